"""The table of the defender's filters: what each one finds of the poison, and what the head is worth after it."""

from __future__ import annotations

from foretaste.report.defended import Column, everything
from foretaste.report.numbers import accuracy, budget, percent, points
from foretaste.report.summary import Summary
from foretaste.report.tables import NONE, Line, Table


def table(summary: Summary) -> Table | None:
    """A line per attack, budget and filter, over its seeds, the clean twin first; None without filters."""
    found = everything(summary)
    filters: dict[str, list[Column]] = {}
    for column in found.columns:
        if column.rate is not None:
            filters.setdefault(column.key, []).append(column)
    if not filters:
        return None
    rates = [column.rate for column in next(iter(filters.values()))]
    lines = []
    head = next(iter(summary.clean.scores.values()), None) if summary.clean else None
    for key, columns in filters.items():
        if any(column in found.clean for column in columns):
            cells = [percent(head.clean.value) if head else NONE, NONE]
            for column in columns:
                clean = found.accuracy(column)
                cells += [accuracy(clean) if clean else NONE, NONE, accuracy(found.flagged[column])]
            lines.append(Line(["none (clean twin)", budget(0.0), key, *cells]))
    for place, row in enumerate(summary.rows):
        own = found.of(place)
        for key, columns in filters.items():
            shown = [own[column] for column in columns if column in own]
            if not shown:
                continue
            rank = shown[0].auroc
            cells = [percent(row.head.poisoned.value) if row.head else NONE, accuracy(rank) if rank else NONE]
            for one in shown:
                cells += [
                    f"{accuracy(one.cell.poisoned)} ({points(one.cell.change.value)})",
                    accuracy(one.caught) if one.caught else NONE,
                    accuracy(one.flagged) if one.flagged else NONE,
                ]
            lines.append(Line([row.name, budget(row.budget), key, *cells]))
    columns_of = [
        column
        for rate in rates
        for column in (f"accuracy at {budget(rate)}", f"poison dropped at {budget(rate)}", "clean dropped")
    ]
    trials = [*([summary.clean] if summary.clean else []), *(trial for row in summary.rows for trial in row.trials)]
    sources = {f"{s.calibration} ({s.calibration_rows:,})" for trial in trials for s in trial.defences.values()}
    shares = " and ".join(budget(rate) for rate in rates)
    return Table(
        "defences",
        f"Filters of the training rows, blind to the attack: accuracy of the head on the rows left, in % [95 % "
        f"interval] (change in points against the clean rows under the same filter), the shares dropped, in %, and the "
        f"AUROC of the scores, poison against clean, in %. Thresholds at false-alarm rates of {shares}, set by: "
        f"{'; '.join(sorted(sources))}.",
        ["attack", "budget", "filter", "without", "AUROC", *columns_of],
        lines,
        3,
    )
