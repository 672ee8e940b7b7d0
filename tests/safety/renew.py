"""Remake the safety net's references on purpose: `python -m tests.safety.renew [rendered] [audits]`, from the root.

`rendered` are the digests of the reports of `records/` (about two minutes), `audits` the records of the tiny audits
(about one minute). Without a name both. A commit that needs this says why the figures moved.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.safety import doors, rendered, tiny


def renew_rendered() -> None:
    """Write rendered.json from the committed records."""
    audits, older = {}, []
    for name in rendered.audits():
        audits[name], markdown = rendered.audit(name)
        if (rendered.RECORDS / name / "report.md").read_bytes() != markdown:
            older.append(name)
        print(name)
    with tempfile.TemporaryDirectory() as scratch:
        studies = {name: rendered.study(name, Path(scratch))[0] for name in rendered.studies()}
    found = {"audits": audits, "older reports": older, "studies": studies}
    rendered.REFERENCE.write_text(json.dumps(found, indent=1) + "\n")


def renew_audits() -> None:
    """Run the tiny audits and keep what they leave, less seconds, machine and versions."""
    with tempfile.TemporaryDirectory() as scratch, tiny.calm():
        tiny.furnish(Path(scratch))
        os.environ["FORETASTE_CACHE"] = str(Path(scratch, "cache"))
        os.chdir(scratch)
        for name in tiny.AUDITS:
            made = Path(scratch, name)
            doors.audit(tiny.spec(name), made)
            kept = tiny.FOLDER / name
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir(parents=True)
            shutil.copy(made / "audit.yaml", kept)
            lines = [json.dumps(one, separators=(",", ":")) for one in tiny.outcome(made)]
            (kept / "record.jsonl").write_text("\n".join(lines) + "\n")
            print(name, len(lines))
    (tiny.FOLDER / "made_on.json").write_text(json.dumps(tiny.made_on(), indent=1) + "\n")


def main(names: list[str]) -> int:
    """Remake what is named."""
    table = {"rendered": renew_rendered, "audits": renew_audits}
    if unknown := set(names) - set(table):
        print(f"renew: some of {', '.join(table)}; got {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for name in names or table:
        table[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
