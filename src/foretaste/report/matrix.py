"""The matrix of attacks and defences: a heat map per budget, and the same accuracies as a table.

Each column ends with the lowest accuracy in it: a defence is worth what survives every attack that was tried, among
them one made against it, where there is one.
"""

from __future__ import annotations

from foretaste.record import Estimate
from foretaste.report.defended import AIMED, Column, Defended, Outcome, against, aims_at, everything, plain_form
from foretaste.report.figure import Json, Plot, layout, plain
from foretaste.report.numbers import accuracy, budget, moved, percent
from foretaste.report.summary import Row, Summary
from foretaste.report.tables import NONE, Line, Table

CLEAN, LOWEST, PLAIN = "none (clean rows)", "lowest of these", "no defence"
SCALE = [[0, "#ffffff"], [0.5, "#f3b48b"], [1, "#b04a00"]]
"""Points of accuracy lost: white for none; single-hued, so that no colour needs to be told from another."""


def table(summary: Summary) -> Table | None:
    """A line per budget and attack, a column per defence; None without defences."""
    found = everything(summary)
    if not found.columns:
        return None
    lines = []
    for share in summary.budgets:
        for name, cells in _grid(summary, found, share):
            lines.append(Line([name, budget(share), *(text for _, text, _ in cells)]))
    return Table(
        "matrix",
        f"Attacks and defences: test accuracy of the head after the defence, in % [95 % interval]. {AIMED}: the attack "
        "was made against that defence. A defence is worth the lowest accuracy of its column.",
        ["attack", "budget", PLAIN, *(column.name for column in found.columns)],
        lines,
    )


def figures(summary: Summary) -> list[Plot]:
    """One heat map per budget at which an attack counts; none without defences."""
    found = everything(summary)
    shares = summary.budgets if found.columns else []
    return [_figure(summary, found, share, number) for number, share in enumerate(shares)]


Shown = tuple[Estimate | None, str, str]
"""A cell: its accuracy, its text, its hover text."""


def _grid(summary: Summary, found: Defended, share: float) -> list[tuple[str, list[Shown]]]:
    """The lines of one budget: the clean rows, the attacks with adaptive ones below their plain form, the lowest."""
    rows = [(place, row) for place, row in enumerate(summary.rows) if row.budget == share and row.head]
    first: dict[tuple[str, str], int] = {}
    for place, row in rows:
        first.setdefault((row.attack, plain_form(row)), place)
    rows.sort(key=lambda item: (first[item[1].attack, plain_form(item[1])], bool(against(item[1]))))
    head = next(iter(summary.clean.scores.values()), None) if summary.clean else None
    clean = [_shown(head.clean if head else None, f"{PLAIN}, clean rows")]
    for column in found.columns:
        dropped = found.flagged.get(column)
        more = f"clean rows dropped: {accuracy(dropped)} %" if dropped else ""
        clean.append(_shown(found.accuracy(column), f"{column.name}, clean rows", more))
    lines = [(CLEAN, clean)]
    for place, row in rows:
        assert row.head
        cells = [_shown(row.head.poisoned, f"{row.name}, {PLAIN}", f"change {moved(row.head.change)} points")]
        own = found.of(place)
        cells += [_cell(row, column, own.get(column)) for column in found.columns]
        lines.append((row.name, cells))
    lowest = []
    for place in range(len(found.columns) + 1):
        known = [(cells[place][0], name) for name, cells in lines[1:]]
        least = min(((e, name) for e, name in known if e), key=lambda one: one[0].value, default=None)
        lowest.append(_shown(least[0], f"{LOWEST}: {least[1]}") if least else _shown(None, LOWEST))
    return [*lines, (LOWEST, lowest)]


def _cell(row: Row, column: Column, outcome: Outcome | None) -> Shown:
    if outcome is None:
        return _shown(None, "")
    more = [f"change {moved(outcome.cell.change)} points against clean rows, {accuracy(outcome.cell.clean)} %"]
    for name, estimate in (
        ("poison dropped", outcome.caught),
        ("clean rows dropped", outcome.flagged),
        ("AUROC", outcome.auroc),
    ):
        more += [f"{name}: {accuracy(estimate)} %"] if estimate else []
    aimed = aims_at(row, column.key)
    value, text, hover = _shown(outcome.cell.poisoned, f"{row.name}, {column.name}", *more)
    return value, f"{text} {AIMED}" if aimed else text, f"{hover}\nmade against this defence" if aimed else hover


def _shown(estimate: Estimate | None, *told: str) -> Shown:
    if estimate is None:
        return None, NONE, "\n".join(filter(None, [*told[:1], "no figure"]))
    return estimate, accuracy(estimate), "\n".join(filter(None, [told[0], f"{accuracy(estimate)} %", *told[1:]]))


def _figure(summary: Summary, found: Defended, share: float, number: int) -> Plot:
    lines = _grid(summary, found, share)
    top = max((e.value for e, _, _ in lines[0][1] if e), default=1.0)
    names = [plain(name) for name, _ in lines]
    columns = [plain(name) for name in [PLAIN, *(column.name for column in found.columns)]]
    text = [
        [(percent(e.value) if e else NONE) + (f" {AIMED}" if AIMED in told else "") for e, told, _ in cells]
        for _, cells in lines
    ]
    trace: Json = {
        "type": "heatmap",
        "x": columns,
        "y": names,
        "z": [[round(100 * max(top - e.value, 0.0), 3) if e else None for e, _, _ in cells] for _, cells in lines],
        "zmin": 0,
        "zmax": max(10.0, *(100 * (top - e.value) for _, cells in lines for e, _, _ in cells if e)),
        "text": text,
        "texttemplate": "%{text}",
        "hovertext": [[plain(hover).replace("\n", "<br>") for *_, hover in cells] for _, cells in lines],
        "hoverinfo": "text",
        "colorscale": SCALE,
        "colorbar": {"title": {"text": "points lost", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        "xgap": 2,
        "ygap": 2,
    }
    look = layout(
        {"side": "top", "tickangle": -30, "automargin": True, "showgrid": False},
        {"autorange": "reversed", "showgrid": False},
    )
    return Plot(
        name=f"matrix-{number}",
        title=f"Attacks and defences at {budget(share)}",
        note=f"Test accuracy after the defence, in %; hover for intervals and what was dropped. {AIMED}: the attack "
        "was made against that defence. The last line is what the defence is worth against the attacks tried.",
        data=[trace],
        layout={**look, "margin": {**look["margin"], "t": 90}},
        height=190 + 44 * len(lines),
    )
