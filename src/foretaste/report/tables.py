"""The tables of the report, as text cells: HTML and Markdown print the same ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from foretaste.report.naming import where
from foretaste.report.numbers import (
    accuracy,
    budget,
    change_interval,
    duration,
    interval,
    method,
    percent,
    points,
)
from foretaste.report.summary import Row, Summary

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


def failures(summary: Summary) -> Table:
    """Trials that are in no figure, and why."""
    lines = [Line([where(item.trial), item.reason], [item.trial.command]) for item in summary.failures]
    return Table("failures", "Trials that failed or were refused; they are in no figure", ["trial", "reason"], lines, 2)


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


def cost(summary: Summary) -> Table:
    """Seconds per stage and images through the encoder, mean per trial."""
    groups = [("none (clean twin)", NONE, [summary.clean])] if summary.clean else []
    groups += [(row.name, budget(row.budget), list(row.trials)) for row in summary.rows]
    groups += [
        (row.name, NONE if row.budget is None else budget(row.budget), list(row.pairs)) for row in summary.steering
    ]
    groups = [group for group in groups if group[2]]
    stages = list(dict.fromkeys(stage for _, _, trials in groups for trial in trials for stage in trial.seconds))
    lines = []
    for name, share, trials in groups:
        means = [sum(trial.seconds.get(stage, 0.0) for trial in trials) / len(trials) for stage in stages]
        known = [any(stage in trial.seconds for trial in trials) for stage in stages]
        passes = sum(trial.ledger.passes for trial in trials if trial.ledger) / len(trials)
        cells = [duration(mean) if there else NONE for mean, there in zip(means, known, strict=True)]
        lines.append(Line([name, share, f"{len(trials)}", *cells, duration(sum(means)), f"{passes:,.0f}"]))
    total = sum(sum(trial.seconds.values()) for trial in summary.records)
    return Table(
        "cost",
        f"Time and images through the encoder, mean per trial; all trials together took {duration(total)}",
        ["attack", "budget", "trials", *stages, "total", "images through the encoder"],
        lines,
    )
