"""Write docs/results.md and docs/feature-targeted.md from records/: every figure there is looked up, none is typed.

python -m scripts.results            write them
python -m scripts.results --check    exit code 1 if one is not what the records say
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from foretaste.record import read
from foretaste.report import render
from foretaste.report.study import page_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
STUDY_PAGE, STUDY = ROOT / "docs" / "feature-targeted.md", ROOT / "records" / "feature-targeted"
SHOWN = ("Verdict", "Labelled rows", "Encoder weights")
LONG = 60  # tables of more lines (single pairs) stay in the record's own report
HEAD = """# What was measured

Written by `python -m scripts.results` from the files in `records/`; a test holds it to them. Each section names its
command, machine, n and seeds. Intervals are 95 %. The real data and encoders are not part of the repository; paths in
the commands are where they lay beside it.
"""


STUDY_HEAD = """# Poisoned feature extractors: the paper's claims, measured

Written by `python -m scripts.results` from `records/feature-targeted`; a test holds it to them. Lu, Yang, Kamath, Yu,
"Indiscriminate Data Poisoning Attacks on Pre-trained Feature Extractors" (SaTML 2024, arXiv 2402.12626) publish no
code; the attacks here are written from the paper's description and from its authors' earlier code, see
[attacks.md](attacks.md). A statement *holds* if the mean of its comparisons is above zero by its 95 % interval
(bootstrap over the comparisons). Rows are added to the head's training rows (`emn` replaces rows); the head is the
exact one.

"""


def main() -> None:
    pages = {PAGE: page(), STUDY_PAGE: study()}
    if "--check" in sys.argv[1:]:
        stale = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
        sys.exit(f"not what records/ says: {', '.join(stale)}" if stale else 0)
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def study() -> str:
    """The page of the study."""
    first = next(iter(sorted(STUDY.glob("*/record.jsonl"))))
    machine, versions = (read(first)[0].machine, read(first)[0].versions)
    notes = STUDY / "notes.md"
    lines = [
        "Command: `foretaste reproduce feature-targeted --plan studies/feature-targeted.yaml --out "
        f"records/feature-targeted`. Machine: {machine.get('cpu', '')}, {machine.get('cores', '')} cores; "
        + ", ".join(f"{key} {value}" for key, value in versions.items())
        + ".",
        *([notes.read_text(encoding="utf-8").strip()] if notes.exists() else []),
        page_of(STUDY).partition("\n\n")[2],
    ]
    return STUDY_HEAD + "\n\n".join(lines).rstrip() + "\n"


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
        f"(../{name}/record.jsonl). Rows: {rows}. Machine: {machine.get('cpu', '')}, {machine.get('cores', '')} cores; "
        f"{versions}.",
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
        f"Command: `{found['command']}`. Record: [`records/bench.json`](../records/bench.json). "
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
