"""The matrix of attacks and defences, against planted records."""

from __future__ import annotations

from foretaste.report.summary import summarise
from foretaste.report.tables import accuracy
from tests.report.defended_fixture import attacked, twin

PLAIN = attacked(1462, {"sphere": (1662, 0.9), "trimmed": (1562, 0.5)})


AIMED = attacked(1502, {"sphere": (1480, 0.03), "trimmed": (1600, 0.6)}, "sphere")


def test_the_matrix_has_the_planted_figures() -> None:
    records = [twin(sphere=1660, trimmed=1652), *PLAIN, *attacked(1600, {"sphere": (1610, 0.2)}, attack="tgda"), *AIMED]
    summary = summarise(records)
    shown = accuracy.matrix(summary)
    assert shown is not None
    assert shown.columns == [
        "attack",
        "budget",
        "no defence",
        *(f"{key} at {rate} %" for key in ("sphere", "trimmed") for rate in (1, 5)),
    ]
    cells = {line.cells[0]: line.cells[2:] for line in shown.lines}
    assert list(cells) == [
        "none (clean rows)",
        "exact (features, box)",
        "exact (features, box, against sphere)",  # below its plain form
        "tgda (features, box)",
        "lowest of these",
    ]
    values = {name: [cell.split(" ")[0] for cell in line] for name, line in cells.items()}
    assert values["none (clean rows)"] == ["83.1", "83.0", "83.0", "82.6", "82.6"]
    assert values["exact (features, box)"] == ["73.1", "83.1", "83.1", "78.1", "78.1"]
    assert values["exact (features, box, against sphere)"] == ["75.1", "74.0", "74.0", "80.0", "80.0"]
    assert values["tgda (features, box)"] == ["80.0", "80.5", "80.5", "–", "–"]
    assert values["lowest of these"] == ["73.1", "74.0", "74.0", "78.1", "78.1"]
    marked = {(name, place) for name, line in cells.items() for place, cell in enumerate(line) if "◆" in cell}
    assert marked == {("exact (features, box, against sphere)", 1), ("exact (features, box, against sphere)", 2)}
