"""What the report says, as values: trials grouped, paired with their clean twin, and scored over seeds.

The numbers are computed again from the packed predictions where the record has them, so a report does not repeat a
score that the predictions contradict: it warns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from foretaste.errors import RecordError
from foretaste.record import DataEntry, EncoderEntry, Estimate, ProbeScores, Steered, TrialRecord
from foretaste.report.aggregate import (
    Cell,
    Twins,
    by_attack,
    failure,
    headline,
    keys_of,
    mean_over_trials,
    one_per_run,
    pair,
    share,
)
from foretaste.report.numbers import budget, label, where


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
class Score:
    """One probe over all pairs.

    Attributes:
        eligible: pairs that the clean twin gets right and that ask for another class.
        successes: of those, the ones steered to the desired class.
        success: their share, with Wilson's interval; None when no pair is eligible.
        base: share of all pairs to which the clean twin already gave the desired class.
        collateral: mean share of the other test predictions that changed.
        neighbours: mean share of the nearest test rows that changed to the desired class; None if not recorded.
        augmented: mean share of the image's augmented copies that get the desired class, over eligible pairs.
        clean_augmented: the same for the clean twin.
        triggered: mean share of the test rows of other classes that get the desired class by the attack's trigger.
        clean_triggered: the same for the clean twin.
    """

    eligible: int
    successes: int
    success: Estimate | None
    base: Estimate | None
    collateral: Estimate | None
    neighbours: Estimate | None
    augmented: Estimate | None
    clean_augmented: Estimate | None
    triggered: Estimate | None
    clean_triggered: Estimate | None


@dataclass(frozen=True)
class PairRow:
    """One attack on one chosen image (at one budget, where the threat has budgets), over its pairs.

    Attributes:
        attack, variant, budget: as in the record.
        pairs: trials that count.
        head: of the headline probe.
        probes: by score key, the headline first; empty in records that have the headline alone.
        clean: mean accuracy of the headline's clean twin over runs; None when no trial counts.
        changes: mean accuracy change by score key, the headline first; each run of the attack counts once.
        runs: runs of the attack; pairs may share one.
        passes: images through the encoder, mean per run.
        failed: trials that failed or were refused; not in any figure.
    """

    attack: str
    variant: str
    budget: float | None
    pairs: list[TrialRecord]
    head: Score
    probes: dict[str, Score]
    clean: Estimate | None
    changes: dict[str, Estimate]
    runs: int
    passes: float
    failed: int

    @property
    def name(self) -> str:
        """`pacl`, with the variant in brackets where there is one."""
        return label(self.attack, self.variant)

    @property
    def noun(self) -> str:
        """What its pairs are counted as."""
        images = {trial.target.index for trial in self.pairs if trial.target}
        return "chosen image" if len(images) == len(self.pairs) else "(image, class) pair"

    @property
    def successes(self) -> int:
        """Of the headline."""
        return self.head.successes

    @property
    def success(self) -> Estimate | None:
        """Of the headline."""
        return self.head.success

    @property
    def base(self) -> Estimate | None:
        """Of the headline."""
        return self.head.base

    @property
    def collateral(self) -> Estimate | None:
        """Of the headline."""
        return self.head.collateral


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
    def head(self) -> ProbeScores | None:
        """Scores of the clean twin's headline probe; None without a clean twin."""
        return headline(self.clean)

    @property
    def tried(self) -> list[TrialRecord]:
        """The clean twin, then the trials of the labelled-data attacks that count."""
        return [*([self.clean] if self.clean else []), *(trial for row in self.rows for trial in row.trials)]

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
    failures = [Failure(trial, why) for trial in records if (why := failure(trial))]
    out = {one.trial.trial for one in failures}
    twins = Twins([trial for trial in records if trial.threat == "clean" and trial.trial not in out])
    contradictions: list[str] = []
    rows = [
        _row(trials, [trial for trial in trials if trial.trial not in out], twins, contradictions)
        for trials in by_attack([trial for trial in records if trial.threat == "labelled"])
    ]
    weights, targeted, pretraining = (
        [
            pair_row(trials, [trial for trial in trials if trial.trial not in out])
            for trials in by_attack([trial for trial in records if trial.threat == threat])
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
        refused=sum(one.trial.status == "ok" for one in failures),
        keys=keys_of(row.cells for row in rows),
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


def pair_row(trials: list[TrialRecord], counted: list[TrialRecord]) -> PairRow:
    """The row of one attack.

    Args:
        trials: all of them, failed ones too; at least one.
        counted: those that finished and were passed by the referee.
    """
    targets = [trial.target for trial in counted if trial.target]
    keys = dict.fromkeys(key for target in targets for key in target.probes)
    runs = one_per_run(counted)
    changes: dict[str, list[Estimate]] = {}
    for trial in runs:
        for key, score in trial.scores.items():
            if score.poisoned:
                value = score.poisoned.value - score.clean.value
                alone = Estimate(value=value, low=value, high=value, n=score.poisoned.n, method="no interval recorded")
                changes.setdefault(key, []).append(score.change or alone)
    return PairRow(
        attack=trials[0].attack,
        variant=trials[0].variant,
        budget=trials[0].budget,
        pairs=[trial for trial in counted if trial.target],
        head=_score(targets),
        probes={key: _score([target.probes[key] for target in targets if key in target.probes]) for key in keys},
        clean=mean_over_trials(head.clean for trial in runs if (head := headline(trial))),
        changes={key: over for key, found in changes.items() if (over := mean_over_trials(found))},
        runs=len(runs),
        passes=sum(trial.ledger.passes for trial in runs if trial.ledger) / max(len(runs), 1),
        failed=len(trials) - len(counted),
    )


def _score(found: Sequence[Steered]) -> Score:
    eligible = [one for one in found if one.eligible]
    return Score(
        eligible=len(eligible),
        successes=sum(one.success for one in eligible),
        success=share([one.success for one in eligible]),
        base=share([one.clean_success for one in found]),
        collateral=mean_over_trials(one.collateral for one in found),
        neighbours=mean_over_trials(one.neighbours for one in found),
        augmented=mean_over_trials(one.augmented for one in eligible),
        clean_augmented=mean_over_trials(one.clean_augmented for one in eligible),
        triggered=mean_over_trials(one.triggered for one in found),
        clean_triggered=mean_over_trials(one.clean_triggered for one in found),
    )


def _warnings(records: list[TrialRecord]) -> list[Warned]:
    """Warnings of all trials, the clean twin's first; one entry per text."""
    found: dict[str, list[str]] = {}
    for trial in sorted(records, key=lambda trial: trial.threat != "clean"):
        for text in trial.warnings:
            found.setdefault(text, []).append(where(trial))
    return [Warned(text, trials) for text, trials in found.items()]
