"""Tables of accuracy: clean and poisoned, under other heads, and under the defences of the labelled rows.

The matrix has a column per defence, which ends with the lowest accuracy in it: a defence is worth what survives every
attack that was tried, among them one made against it, where there is one.
"""

from __future__ import annotations

from foretaste.record import Estimate
from foretaste.report.aggregate import lowest
from foretaste.report.defended import AIMED, Column, Defended, Outcome, against, aims_at, everything, plain_form
from foretaste.report.numbers import accuracy, budget, change_interval, interval, method, moved, percent, points
from foretaste.report.summary import Row, Summary
from foretaste.report.tables import NONE, Line, Table

CLEAN, LOWEST, PLAIN = "none (clean rows)", "lowest of these", "no defence"


def labelled(summary: Summary) -> Table:
    """Clean against poisoned accuracy of the headline score: a line per attack, variant and budget."""
    lines = []
    for row in summary.rows:
        head = row.head
        seeds = f"{len(row.trials)}" + (f" ({row.failed} failed)" if row.failed else "")
        numbers = [NONE] * 5
        if head:
            numbers = [
                percent(head.clean.value),
                percent(head.poisoned.value),
                points(head.change.value),
                change_interval(head.change),
                f"{head.rows:,}",
            ]
        lines.append(Line([row.name, budget(row.budget), _rows(row), *numbers, seeds], row.commands))
    head = next((row.head for row in summary.rows if row.head), None)
    key = summary.keys[0] if summary.keys else "no score"
    how = f" Interval of the change: {method(head.change.method)}." if head else ""
    return Table(
        "labelled",
        f"Test accuracy of the clean and the poisoned head ({key}), in %.{how}",
        ["attack", "budget", "rows added", "clean", "poisoned", "change", "interval", "test rows", "seeds"],
        lines,
    )


def _rows(row: Row) -> str:
    """How many rows were added; an attack that replaces rows adds none."""
    return f"0 ({row.replaced:,} replaced)" if row.replaced else f"{row.added:,}"


def judged(summary: Summary) -> Table | None:
    """The same rows under the other score keys: further heads and countermeasures."""
    keys = summary.keys[1:]
    if not keys:
        return None

    def cell(row: Row, key: str) -> str:
        found = row.cells.get(key)
        return f"{accuracy(found.poisoned)} ({points(found.change.value)})" if found else NONE

    clean = {key: row.cells[key].clean for key in keys for row in summary.rows if key in row.cells}
    first = Line(["none (clean twin)", budget(0.0), *(accuracy(clean[key]) for key in keys)])
    lines = [Line([row.name, budget(row.budget), *(cell(row, key) for key in keys)]) for row in summary.rows]
    return Table(
        "judged",
        "Poisoned test accuracy under other heads and countermeasures, in % [95 % interval] (change in points)",
        ["attack", "budget", *keys],
        [first, *lines],
    )


def clean(summary: Summary) -> Table:
    """The clean twin and its yardsticks."""
    found = {key: score.clean for key, score in summary.clean.scores.items()} if summary.clean else {}
    found |= summary.clean.controls if summary.clean else {}
    lines = [Line([key, method(e.method), percent(e.value), interval(e), f"{e.n:,}"]) for key, e in found.items()]
    if "chance" not in found:
        most = "share of the most frequent test class"
        lines.append(Line(["chance", most, percent(summary.data.chance), NONE, NONE]))
    columns = ["score", "how", "value", "interval", "n"]
    return Table("clean", "Clean test accuracy and what to compare it with, in %", columns, lines, text=2)


def matrix(summary: Summary) -> Table | None:
    """A line per budget and attack, a column per defence; None without defences."""
    found = everything(summary)
    if not found.columns:
        return None
    lines = []
    for share in summary.budgets:
        for name, cells in matrix_of(summary, found, share):
            lines.append(Line([name, budget(share), *(text for _, text, _ in cells)]))
    return Table(
        "matrix",
        f"Attacks and defences: test accuracy of the head after the defence, in % [95 % interval]. {AIMED}: the attack "
        "was made against that defence. A defence is worth the lowest accuracy of its column.",
        ["attack", "budget", PLAIN, *(column.name for column in found.columns)],
        lines,
    )


Shown = tuple[Estimate | None, str, str]
"""A cell: its accuracy, its text, its hover text."""


def matrix_of(summary: Summary, found: Defended, share: float) -> list[tuple[str, list[Shown]]]:
    """The lines of one budget: the clean rows, the attacks with adaptive ones below their plain form, the lowest."""
    rows = [(place, row) for place, row in enumerate(summary.rows) if row.budget == share and row.head]
    first: dict[tuple[str, str], int] = {}
    for place, row in rows:
        first.setdefault((row.attack, plain_form(row)), place)
    rows.sort(key=lambda item: (first[item[1].attack, plain_form(item[1])], bool(against(item[1]))))
    clean = [_cell_of(summary.head.clean if summary.head else None, f"{PLAIN}, clean rows")]
    for column in found.columns:
        dropped = found.flagged.get(column)
        more = f"clean rows dropped: {accuracy(dropped)} %" if dropped else ""
        clean.append(_cell_of(found.accuracy(column), f"{column.name}, clean rows", more))
    lines = [(CLEAN, clean)]
    for place, row in rows:
        assert row.head
        cells = [_cell_of(row.head.poisoned, f"{row.name}, {PLAIN}", f"change {moved(row.head.change)} points")]
        own = found.of(place)
        cells += [_cell(row, column, own.get(column)) for column in found.columns]
        lines.append((row.name, cells))
    last = []
    for place in range(len(found.columns) + 1):
        least = lowest((cells[place][0], name) for name, cells in lines[1:])
        last.append(_cell_of(least[0], f"{LOWEST}: {least[1]}") if least else _cell_of(None, LOWEST))
    return [*lines, (LOWEST, last)]


def _cell(row: Row, column: Column, outcome: Outcome | None) -> Shown:
    if outcome is None:
        return _cell_of(None, "")
    more = [f"change {moved(outcome.cell.change)} points against clean rows, {accuracy(outcome.cell.clean)} %"]
    for name, estimate in (
        ("poison dropped", outcome.caught),
        ("clean rows dropped", outcome.flagged),
        ("AUROC", outcome.auroc),
    ):
        more += [f"{name}: {accuracy(estimate)} %"] if estimate else []
    aimed = aims_at(row, column.key)
    value, text, hover = _cell_of(outcome.cell.poisoned, f"{row.name}, {column.name}", *more)
    return value, f"{text} {AIMED}" if aimed else text, f"{hover}\nmade against this defence" if aimed else hover


def _cell_of(estimate: Estimate | None, *told: str) -> Shown:
    if estimate is None:
        return None, NONE, "\n".join(filter(None, [*told[:1], "no figure"]))
    return estimate, accuracy(estimate), "\n".join(filter(None, [told[0], f"{accuracy(estimate)} %", *told[1:]]))
