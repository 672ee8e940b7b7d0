"""What the report says, as values: trials grouped, paired with their clean twin, and scored over seeds.

The numbers are computed again from the packed predictions where the record has them, so a report does not repeat a
score that the predictions contradict: it warns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from foretaste.errors import RecordError
from foretaste.record import DataEntry, EncoderEntry, TrialRecord
from foretaste.report.naming import label, refusals, where
from foretaste.report.numbers import budget
from foretaste.report.pairing import Cell, Twins, pair
from foretaste.report.steering import PairRow, pair_row


@dataclass(frozen=True)
class Row:
    """One labelled-data attack at one budget, over its seeds.

    Attributes:
        attack, variant: as in the record.
        budget: poisoned rows / clean training rows.
        added, replaced: poisoned rows of the first trial that counts.
        cells: by score key, the headline first; empty when no trial counts.
        trials: those that count: finished, and passed by the referee.
        commands: one per trial, failed ones included.
        failed: trials that failed or were refused.
    """

    attack: str
    variant: str
    budget: float | None
    added: int
    cells: dict[str, Cell]
    trials: list[TrialRecord]
    commands: list[str]
    failed: int
    replaced: int = 0

    @property
    def name(self) -> str:
        """`exact (features, box)`."""
        return label(self.attack, self.variant)

    @property
    def head(self) -> Cell | None:
        """The headline score; None when every trial failed."""
        return next(iter(self.cells.values()), None)


@dataclass(frozen=True)
class Failure:
    """A trial that is in no figure, and why."""

    trial: TrialRecord
    reason: str


@dataclass(frozen=True)
class Warned:
    """A warning, with the trials that gave it."""

    text: str
    trials: list[str]


@dataclass(frozen=True, eq=False)
class Summary:
    """Everything that the verdict, the plots and the tables are made of; hashed as the object that it is."""

    records: list[TrialRecord]
    data: DataEntry
    encoder: EncoderEntry | None
    clean: TrialRecord | None
    rows: list[Row]
    weights: list[PairRow]
    targeted: list[PairRow]
    pretraining: list[PairRow]
    failures: list[Failure]
    warnings: list[Warned]
    refused: int = 0
    keys: list[str] = field(default_factory=list)

    @property
    def steering(self) -> list[PairRow]:
        """Attacks on one chosen image of all threats."""
        return [*self.weights, *self.targeted, *self.pretraining]

    @property
    def budgets(self) -> list[float]:
        """Budgets of the labelled-data attacks that count, ascending."""
        return sorted({row.budget for row in self.rows if row.budget is not None and row.cells})


def summarise(records: list[TrialRecord]) -> Summary:
    """Group and score the trials of one audit.

    Raises:
        RecordError: no trial, or trials of more than one data set or encoder.
    """
    _one_audit(records)
    failures = [failure for trial in records if (failure := _failure(trial))]
    out = {failure.trial.trial for failure in failures}
    twins = Twins([trial for trial in records if trial.threat == "clean" and trial.trial not in out])
    contradictions: list[str] = []
    rows = [
        _row(trials, [trial for trial in trials if trial.trial not in out], twins, contradictions)
        for trials in _groups([trial for trial in records if trial.threat == "labelled"])
    ]
    weights, targeted, pretraining = (
        [
            pair_row(trials, [trial for trial in trials if trial.trial not in out])
            for trials in _groups([trial for trial in records if trial.threat == threat])
        ]
        for threat in ("weights", "targeted", "pretraining")
    )
    first = twins.first or records[0]
    return Summary(
        records=records,
        data=first.data,
        encoder=first.encoder or next((trial.encoder for trial in records if trial.encoder), None),
        clean=twins.first,
        rows=rows,
        weights=weights,
        targeted=targeted,
        pretraining=pretraining,
        failures=failures,
        warnings=[*_warnings(records), *(Warned(text, []) for text in contradictions)],
        refused=sum(failure.trial.status == "ok" for failure in failures),
        keys=list(dict.fromkeys(key for row in rows for key in row.cells)),
    )


def _one_audit(records: list[TrialRecord]) -> None:
    if not records:
        raise RecordError("record: at least one trial", got="none", do="run the audit first")
    for noun, found in (
        ("data set", {trial.data.digest: trial.data.name for trial in records}),
        ("encoder", {trial.encoder.sha256: trial.encoder.name for trial in records if trial.encoder}),
    ):
        if len(found) > 1:
            raise RecordError(
                f"record: trials of one {noun}", got=", ".join(found.values()), do="report each audit's folder alone"
            )


def _groups(trials: list[TrialRecord]) -> list[list[TrialRecord]]:
    """Trials by (attack, variant) in order of appearance, then by budget; seeds ascending."""
    groups: dict[tuple[str, str, float], list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault((trial.attack, trial.variant, trial.budget or 0.0), []).append(trial)
    names = list(dict.fromkeys((attack, variant) for attack, variant, _ in groups))
    ordered = sorted(groups, key=lambda key: (names.index(key[:2]), key[2]))
    return [sorted(groups[key], key=lambda trial: trial.seed) for key in ordered]


def _failure(trial: TrialRecord) -> Failure | None:
    if trial.status == "failed":
        error = trial.error
        return Failure(trial, f"{error.type}: {error.message}" if error else "failed without a message")
    if found := refusals(trial):
        return Failure(trial, "refused by the referee: " + "; ".join(found))
    return None


def _row(trials: list[TrialRecord], counted: list[TrialRecord], twins: Twins, contradictions: list[str]) -> Row:
    keys = dict.fromkeys(key for trial in counted for key, score in trial.scores.items() if score.poisoned)
    first = trials[0]
    name = f"{label(first.attack, first.variant)} at {budget(first.budget)}"
    repeated = sorted(seed for seed, times in Counter(trial.seed for trial in counted).items() if times > 1)
    if repeated:
        contradictions.append(f"{name}: several trials with seed {repeated[0]}; each counts as a seed of its own")
    cells = {}
    for key in keys:
        scored = [trial for trial in counted if key in trial.scores and trial.scores[key].poisoned]
        cells[key], agrees = pair(scored, key, twins)
        if not agrees:
            contradictions.append(f"{name}, {key}: scores differ from the predictions; the report uses the predictions")
    return Row(
        attack=first.attack,
        variant=first.variant,
        budget=first.budget,
        added=next((trial.ledger.added for trial in counted if trial.ledger), 0),
        replaced=next((trial.ledger.replaced for trial in counted if trial.ledger), 0),
        cells=cells,
        trials=counted,
        commands=[trial.command for trial in trials],
        failed=len(trials) - len(counted),
    )


def _warnings(records: list[TrialRecord]) -> list[Warned]:
    """Warnings of all trials, the clean twin's first; one entry per text."""
    found: dict[str, list[str]] = {}
    for trial in sorted(records, key=lambda trial: trial.threat != "clean"):
        for text in trial.warnings:
            found.setdefault(text, []).append(where(trial))
    return [Warned(text, trials) for text, trials in found.items()]
