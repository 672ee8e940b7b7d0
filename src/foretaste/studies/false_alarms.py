"""How often scans cry wolf, from the file of `scripts/false_alarms.py`: a table for the study of defences."""

from __future__ import annotations

import json
from pathlib import Path

from foretaste.errors import RecordError
from foretaste.record import Estimate
from foretaste.report.numbers import accuracy, budget
from foretaste.report.tables import Line, Table

FILE = "false-alarms.json"


def table(folder: Path) -> Table | None:
    """A line per scan and kind of clean suspect; None where the study has no such file.

    Raises:
        RecordError: the file is not one of that script.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rates = list(
            dict.fromkeys(r for kinds in found["scans"].values() for one in kinds.values() for r in one["alarms"])
        )
        lines = [
            Line(
                [
                    scan.partition("(")[0],
                    kind,
                    f"{len(one['rates'])}",
                    *(accuracy(Estimate.model_validate(one["alarms"][rate])) for rate in rates),
                ]
            )
            for scan, kinds in found["scans"].items()
            for kind, one in kinds.items()
        ]
        caption = (
            f"Clean encoders as suspects, in %: those that a scan flags beside a null of {found['null']} others, on "
            f"{found['data']['rows']:,} images of {found['data']['name']}. A null whose members are judged by the rest "
            "keeps its rate by construction; the others show what a verdict is worth where the null does not fit the "
            f"suspect. Command: {found['command']}"
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path}: a file of scripts/false_alarms.py", got=repr(error), do="make it again, or take it out"
        ) from None
    return Table(
        "false-alarms",
        caption,
        ["scan", "clean suspects", "encoders", *(f"flagged at {budget(float(rate))}" for rate in rates)],
        lines,
        2,
    )
