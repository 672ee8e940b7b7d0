"""Every attack under every defence of the labelled rows, as values: what the matrix and the recommendation are made of.

A defence stands in one column for each of its false-alarm rates; a certified head has one column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from foretaste.record import Alarm, Estimate, TrialRecord
from foretaste.report.aggregate import Cell, Twins, mean_as_wide, pair
from foretaste.report.numbers import budget
from foretaste.report.summary import PairRow, Row, Summary

AIMED = "◆"
"""Marks an attack that was made against the defence of its column or line."""


@dataclass(frozen=True)
class Column:
    """A defence at one false-alarm rate; no rate for a certified head."""

    key: str
    rate: float | None = None

    @property
    def name(self) -> str:
        """`sphere at 5 %`."""
        return self.key if self.rate is None else f"{self.key} at {budget(self.rate)}"

    @property
    def words(self) -> str:
        """`sphere (5 % false alarms)`."""
        return self.key if self.rate is None else f"{self.key} ({budget(self.rate)} false alarms)"


@dataclass(frozen=True)
class Outcome:
    """One attack at one budget under one defence, over its seeds.

    Attributes:
        cell: accuracy after the defence; its `clean` is that of the clean rows under the same defence.
        caught: share of the poison that was dropped; None for a certified head.
        flagged: share of the clean training rows likewise.
        auroc: of the filter's scores, poison against clean.
        trials: behind the figures, each with the head after the defence as its only score.
    """

    cell: Cell
    caught: Estimate | None
    flagged: Estimate | None
    auroc: Estimate | None
    trials: list[TrialRecord]


@dataclass(frozen=True)
class Defended:
    """All of an audit.

    Attributes:
        columns: defences, in the order of the record.
        outcomes: by place of the row in the summary, and column.
        clean: the clean twin under each defence, as a trial of that score alone.
        flagged: share of its rows that were dropped.
    """

    columns: list[Column]
    outcomes: dict[tuple[int, Column], Outcome]
    clean: dict[Column, TrialRecord]
    flagged: dict[Column, Estimate]

    def of(self, row: int) -> dict[Column, Outcome]:
        """A row of the matrix."""
        return {column: self.outcomes[row, column] for column in self.columns if (row, column) in self.outcomes}

    def accuracy(self, column: Column) -> Estimate | None:
        """Accuracy under the defence where there is no poison; None without a clean twin."""
        return self.clean[column].scores[column.key].clean if column in self.clean else None


@lru_cache(maxsize=32)
def everything(summary: Summary) -> Defended:
    """The matrix of an audit; without columns where no defence was tried."""
    columns = list(dict.fromkeys(column for trial in summary.tried for column in _columns(trial)))
    clean = {c: _view(summary.clean, c) for c in columns if summary.clean and c in _columns(summary.clean)}
    flagged = {c: _alarms([summary.clean], c)[0].clean for c in clean if summary.clean and c.rate is not None}
    outcomes = {
        (place, column): _outcome(found, column, clean.get(column))
        for place, row in enumerate(summary.rows)
        for column in columns
        if (found := [trial for trial in row.trials if column in _columns(trial)])
    }
    return Defended(columns, outcomes, clean, flagged)


def against(row: Row | PairRow) -> str:
    """The defence that the row's attack was made against, as the record has it; empty for a plain attack."""
    trials = row.trials if isinstance(row, Row) else row.pairs
    attack = trials[0].spec.get("attack") if trials else None
    said = attack.get("against") if isinstance(attack, dict) else None
    return said if isinstance(said, str) else ""


def aims_at(row: Row | PairRow, key: str) -> bool:
    """Whether the row's attack was made against the defence: same name, and same fields in any order and case.

    What file a defender averages with is nothing that the attacker can name.
    """
    own = ":".join(part for part in key.split(":") if not part.startswith("with_weights="))
    said, named = (_plain_numbers(text.replace("/", ":").lower().split(":")) for text in (against(row), own))
    return said == named


def _plain_numbers(parts: list[str]) -> list[str]:
    """Sorted, with 2.0 written as 2: the one is what a record's key says, the other what somebody typed."""
    return sorted(part.removesuffix(".0") for part in parts)


def plain_form(row: Row) -> str:
    """The variant of the same attack that reckons with no filter."""
    return ", ".join(one for one in row.variant.split(", ") if not one.startswith(("against", "penalty")))


def _columns(trial: TrialRecord) -> list[Column]:
    found = [Column(key, alarm.rate) for key, one in trial.defences.items() for alarm in one.alarms]
    return [*found, *(Column(key) for key in trial.certified)]


def _alarms(trials: list[TrialRecord], column: Column) -> list[Alarm]:
    return [next(a for a in trial.defences[column.key].alarms if a.rate == column.rate) for trial in trials]


def _view(trial: TrialRecord, column: Column) -> TrialRecord:
    """The trial as if the head under the defence were its only score, so that it is paired as every score is."""
    one = trial.certified[column.key] if column.rate is None else _alarms([trial], column)[0]
    return trial.model_copy(update={"scores": {column.key: one.scores}, "predictions": {column.key: one.predictions}})


def _outcome(trials: list[TrialRecord], column: Column, twin: TrialRecord | None) -> Outcome:
    views = [_view(trial, column) for trial in trials]
    cell, _ = pair(views, column.key, Twins([twin] if twin else []))
    if column.rate is None:
        return Outcome(cell, None, None, None, views)
    alarms = _alarms(trials, column)
    ranks = [trial.defences[column.key].auroc for trial in trials]
    caught, flagged = mean_as_wide(one.poison for one in alarms), mean_as_wide(one.clean for one in alarms)
    return Outcome(cell, caught, flagged, mean_as_wide(ranks), views)
