"""Attacks on one chosen image, over their (image, class) pairs: what a row of the report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretaste import statistics
from foretaste.record import Estimate, Steered, TrialRecord
from foretaste.report.naming import label


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
        clean=_mean([next(iter(trial.scores.values())).clean for trial in runs if trial.scores]),
        changes={key: mean(found) for key, found in changes.items()},
        runs=len(runs),
        passes=sum(trial.ledger.passes for trial in runs if trial.ledger) / max(len(runs), 1),
        failed=len(trials) - len(counted),
    )


def mean(found: list[Estimate]) -> Estimate:
    """Mean over trials; a single trial keeps the interval that it has, since one number has no spread."""
    return found[0] if len(found) == 1 else statistics.mean_interval(np.array([estimate.value for estimate in found]))


def one_per_run(trials: list[TrialRecord]) -> list[TrialRecord]:
    """The first trial of each run: pairs that share an encoder share its accuracy and its cost."""
    shared = [trial.target.together > 1 if trial.target else False for trial in trials]
    return list(
        {
            (trial.digests.get("poisoned encoder") if together else None) or trial.trial: trial
            for trial, together in zip(reversed(trials), reversed(shared), strict=True)
        }.values()
    )[::-1]


def _score(found: Sequence[Steered]) -> Score:
    eligible = [one for one in found if one.eligible]
    successes = sum(one.success for one in eligible)
    return Score(
        eligible=len(eligible),
        successes=successes,
        success=statistics.wilson(successes, len(eligible)) if eligible else None,
        base=statistics.wilson(sum(one.clean_success for one in found), len(found)) if found else None,
        collateral=_mean([one.collateral for one in found]),
        neighbours=_mean([one.neighbours for one in found]),
        augmented=_mean([one.augmented for one in eligible]),
        clean_augmented=_mean([one.clean_augmented for one in eligible]),
        triggered=_mean([one.triggered for one in found]),
        clean_triggered=_mean([one.clean_triggered for one in found]),
    )


def _mean(found: Sequence[Estimate | None]) -> Estimate | None:
    known = [estimate for estimate in found if estimate]
    return mean(known) if known else None
