"""Write docs/results.md from records/: every figure there is looked up, none is typed.

python -m scripts.results            write it
python -m scripts.results --check    exit code 1 if it is not what the records say
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from foretaste.record import read
from foretaste.report import render

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
SHOWN = ("Verdict", "Labelled rows", "Encoder weights")
LONG = 60  # tables of more lines (single pairs) stay in the record's own report
HEAD = """# What was measured

Written by `python -m scripts.results` from the files in `records/`; a test holds it to them. Each section names its
command, machine, n and seeds. Intervals are 95 %. The real data and encoders are not part of the repository; paths in
the commands are where they lay beside it.
"""


def main() -> None:
    text = page()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == text else "docs/results.md is not what records/ says")
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


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
