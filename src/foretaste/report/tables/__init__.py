"""The tables of the report, as text cells: HTML and Markdown print the same ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from foretaste.record import Estimate
from foretaste.report import numbers

NONE = "–"


@dataclass(frozen=True)
class Line:
    """One row of a table: its cells, and the commands that reproduce it."""

    cells: list[str]
    commands: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """A captioned table. `text` counts the leading columns that hold words; the others hold numbers."""

    name: str
    caption: str
    columns: list[str]
    lines: list[Line]
    text: int = 1


def shown(found: Estimate | None) -> str:
    """`74.0 [73.1, 74.9]`, in percent; a dash where there is no figure."""
    return numbers.accuracy(found) if found else NONE
