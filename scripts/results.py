"""Write the pages of docs/results/ from records/: every figure there is looked up, none is typed.

python -m scripts.results            write them
python -m scripts.results --check    exit code 1 if one is not what the records say
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from foretaste.record import read
from foretaste.report import render
from foretaste.studies.page import page_of

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "results"
CODE = re.compile(r"\.py:\w")
"""Code that a plan names, which runs only for somebody who says so."""
PAGE = FOLDER / "audits.md"
SHOWN = ("Verdict", "Labelled rows", "Encoder weights")
LONG = 60  # tables of more lines (single pairs) stay in the record's own report
HEAD = """# What was measured

Written by `python -m scripts.results` from the files in `records/`; a test holds it to them. Each section names its
command, machine, n and seeds. Intervals are 95 %. The real data and encoders are not part of the repository; paths in
the commands are where they lay beside it.
"""


HEADS = {
    "feature-targeted": """# Poisoned feature extractors: the paper's claims, measured

Written by `python -m scripts.results` from `records/feature-targeted`; a test holds it to them. Lu, Yang, Kamath, Yu,
"Indiscriminate Data Poisoning Attacks on Pre-trained Feature Extractors" (SaTML 2024, arXiv 2402.12626) publish no
code; the attacks here are written from the paper's description and from its authors' earlier code, see
[attacks.md](../attacks.md). A statement *holds* if the mean of its comparisons is above zero by its 95 % interval
(bootstrap over the comparisons). Rows are added to the head's training rows (`emn` replaces rows); the head is the
exact one.

""",
    "pacl": """# PA-CL and its baselines, measured

Written by `python -m scripts.results` from `records/pacl`; a test holds it to them. Chen, Gao, Liu, Abdelmoniem, Wang,
"Manipulating Pre-trained Encoder for Targeted Poisoning Attacks in Contrastive Learning" (IEEE TIFS 2024): only the
abstract is public, so `pacl` is our reconstruction and so is every comparison, see [pacl.md](../pacl.md). Each pair is
one test image that the clean pipeline gets right and one other class, both drawn at random; the attacker sees the image
and its own rows, never the head's rows or other test rows. "Success" is the share of pairs for which the poisoned
pipeline gives the image the wanted class; "had it before" is the same of the clean twin. The paper reports 40 % above
the mean of three baselines on four data sets, with accuracy within 5 %; its baselines are not public. Ours are the
earlier attacks with the same goal under three threats: PoisonedEncoder (the only earlier attack without a trigger on
contrastive pre-training, which the abstract contrasts itself with), BadEncoder with the one target in the place of the
trigger (the closest mechanism), and gradient matching on labelled rows (the comparison that PoisonedEncoder's authors
made).

""",
    "defences": """# Defences, measured

Written by `python -m scripts.results` from `records/defences`; a test holds it to them. What each defence does is in
[defences.md](../defences.md). Attacks on the labelled rows add poisoned features within the range of each clean
feature; the head is the exact one, fitted to what a filter leaves, or a certified vote. Edits of an encoder are
PA-CL's, our reconstruction ([pacl.md](../pacl.md)), each for one test image and one class, both drawn at random. An
attack that names a defence (`against`) was made by somebody who knows that defence and its settings, but not the
defender's rows.

""",
}


def main() -> None:
    pages = {PAGE: page()} | {FOLDER / f"{name}.md": study(name) for name in measured()}
    if "--check" in sys.argv[1:]:
        stale = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
        sys.exit(f"not what records/ says: {', '.join(stale)}" if stale else 0)
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def measured() -> list[str]:
    """The studies that have records."""
    return [name for name in HEADS if any((ROOT / "records" / name).glob("*/record.jsonl"))]


def study(name: str) -> str:
    """The page of one study."""
    folder = ROOT / "records" / name
    first = read(next(iter(sorted(folder.glob("*/record.jsonl")))))[0]
    machine, versions = first.machine, first.versions
    notes, plan = folder / "notes.md", (folder / "study.yaml").read_text(encoding="utf-8")
    trust = " --trust-code" if CODE.search(plan) else ""
    lines = [
        f"Command: `foretaste reproduce {name} --plan records/{name}/study.yaml --out again{trust}`. "
        f"Machine: {machine.get('cpu', '')}, {machine.get('cores', '')} cores; "
        + ", ".join(f"{key} {value}" for key, value in versions.items())
        + ".",
        *([notes.read_text(encoding="utf-8").strip()] if notes.exists() else []),
        page_of(folder).partition("\n\n")[2],
    ]
    return HEADS[name] + "\n\n".join(lines).rstrip() + "\n"


def page() -> str:
    """The whole page."""
    audits = sorted(path.parent for path in (ROOT / "records").glob("*/record.jsonl"))
    return "\n".join([HEAD, *map(audit, audits), benches()]).rstrip() + "\n"


def audit(folder: Path) -> str:
    """The section of one audit."""
    records = read(folder)
    name = folder.relative_to(ROOT).as_posix()
    first = records[0]
    machine = first.machine
    versions = ", ".join(f"{key} {value}" for key, value in first.versions.items())
    rows = ", ".join(f"{count:,} {part}" for part, count in first.data.rows.items())
    lines = [
        f"## {first.data.name}" + (f" with {first.encoder.name}" if first.encoder else ""),
        f"Command: `foretaste audit {name}/audit.yaml --out again`. Record: [`{name}/record.jsonl`]"
        f"(../../{name}/record.jsonl). Rows: {rows}. "
        f"Machine: {machine.get('cpu', '')}, {machine.get('cores', '')} cores; {versions}.",
    ]
    return "\n\n".join([*lines, *sections(render(records).markdown)]) + "\n"


def sections(report: str) -> list[str]:
    """The parts of a report that belong on the page, without commands and without long tables."""
    kept, wanted = [], False
    for block in report.split("\n\n"):
        if block.startswith("## "):
            wanted = block[3:] in SHOWN
            block = f"#{block}"
        code = block.startswith(("```", "To reproduce"))
        if wanted and not code and block.count("\n") <= LONG and not block.startswith("### Verdict"):
            kept.append(block)
    return kept


def benches() -> str:
    """The section of `make bench`."""
    path = ROOT / "records" / "bench.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "## Speed",
        f"Command: `{found['command']}`. Record: [`records/bench.json`](../../records/bench.json). "
        f"Machine: {found['machine']['cpu']}, {found['machine']['cores']} cores; torch {found['versions']['torch']}, "
        f"scikit-learn {found['versions']['scikit-learn']}.",
        "| bench | measure | value | goal | met |\n| --- | --- | ---: | --- | --- |",
    ]
    met = {None: "", True: "yes", False: "no"}
    table = [
        f"| {row['bench']} | {row['measure']} | {row['value']:.4g} | {row['goal'] or ''} | {met[row['met']]} |"
        for row in found["rows"]
    ]
    return "\n\n".join(lines) + "\n" + "\n".join(table) + "\n"


if __name__ == "__main__":
    main()
