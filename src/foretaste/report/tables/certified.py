"""The bracket: between what attacks found and what a certificate proves lies the head's true worst case.

On the plain head and on each certified head the lowest accuracy that any attack of the audit reached bounds the worst
case from above; the certificate bounds that of the certified head from below. Both speak of the training rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from foretaste.record import Estimate, TrialRecord
from foretaste.report.aggregate import headline, lowest
from foretaste.report.defended import aims_at
from foretaste.report.numbers import accuracy, budget, label
from foretaste.report.summary import Summary
from foretaste.report.tables import NONE, Line, Table, shown

CAVEAT = (
    "The certificates count changes of the training rows. They take the encoder as given and say nothing about one "
    "that was edited, which moves every vote at once."
)


@dataclass(frozen=True)
class Worst:
    """The lowest accuracy that an attack reached, and which."""

    accuracy: Estimate
    attack: str


@dataclass(frozen=True)
class Step:
    """One budget of one certified head.

    Attributes:
        share: poisoned rows / clean training rows; 0 is the clean twin.
        plain: lowest accuracy of the plain head that an attack found; None where none was tried.
        voted: of the certified head.
        bound: certified accuracy at the most changes that the budget's attacks made, or that rows added would make.
        changes: which are these.
    """

    share: float
    plain: Worst | None
    voted: Worst | None
    bound: Estimate | None
    changes: int


def steps(summary: Summary, key: str) -> list[Step]:
    """The clean twin, then every budget that was attacked or certified, ascending."""
    if summary.clean is None or key not in summary.clean.certified:
        return []
    twin = summary.clean.certified[key]
    proven = {bound.share: bound for bound in twin.bounds}
    attacked = {row.budget for row in summary.rows if row.budget is not None and row.trials}
    start = Worst(summary.head.clean, "none") if summary.head else None
    found = [Step(0.0, start, Worst(twin.scores.clean, "none"), twin.scores.clean if twin.certain else None, 0)]
    for share in sorted({*proven, *attacked}):
        trials = [trial for row in summary.rows if row.budget == share for trial in row.trials]
        own = [trial for trial in trials if key in trial.certified]
        # Attacks that replace rows can touch more than those that add them: the bound is of the most that was done.
        bounds = [*([proven[share]] if share in proven else []), *(b for t in own for b in t.certified[key].bounds)]
        most = max(bounds, key=lambda bound: bound.changes, default=None)
        found.append(
            Step(
                share,
                _lowest([(_poisoned(trial), trial) for trial in trials]),
                _lowest([(trial.certified[key].scores.poisoned, trial) for trial in own]),
                most.accuracy if most else None,
                most.changes if most else 0,
            )
        )
    return found


def table(summary: Summary) -> Table | None:
    """A line per certified head and budget; None without certified heads."""
    lines = []
    for key in heads(summary):
        for step in steps(summary, key):
            lines.append(
                Line(
                    [
                        key,
                        budget(step.share),
                        *_cells(step.plain),
                        *_cells(step.voted),
                        f"{step.changes:,}",
                        shown(step.bound),
                    ]
                )
            )
    if not lines:
        return None
    return Table(
        "bracket",
        "The bracket, in % [95 % interval]: the lowest accuracy that any attack found on the plain head and on the "
        "certified head, over attacks and seeds, and what the certificate proves for as many changes. "
        + caveat(summary, heads(summary)),
        [
            "certified head",
            "budget",
            "plain head, lowest found",
            "by",
            "certified head, lowest found",
            "by",
            "changes",
            "certified",
        ],
        lines,
        1,
    )


def caveat(summary: Summary, keys: list[str]) -> str:
    """What neither end of the bracket says, and which of the heads no attack was made against."""
    plain_only = [key for key in keys if not any(row.head and aims_at(row, key) for row in summary.rows)]
    if not plain_only:
        return CAVEAT
    of = "" if len(keys) == 1 else f" {', '.join(plain_only)}:"
    return f"{CAVEAT}{of} The attacks were made for the plain head, none against the vote."


def heads(summary: Summary) -> list[str]:
    """The certified heads."""
    return list(summary.clean.certified) if summary.clean else []


def _poisoned(trial: TrialRecord) -> Estimate | None:
    score = headline(trial)
    return score.poisoned if score else None


def _lowest(found: list[tuple[Estimate | None, TrialRecord]]) -> Worst | None:
    least = lowest(found)
    return Worst(least[0], label(least[1].attack, least[1].variant)) if least else None


def _cells(worst: Worst | None) -> list[str]:
    return [accuracy(worst.accuracy), worst.attack] if worst else [NONE, NONE]
