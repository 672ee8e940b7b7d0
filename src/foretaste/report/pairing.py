"""One score of one row: the poisoned predictions paired with those of the clean twin, over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste import statistics
from foretaste.record import Estimate, TrialRecord, unpack_labels

TOLERANCE = 1e-6
"""Largest gap between a recorded accuracy and that of the recorded predictions: rounding, nothing else."""

Bits = NDArray[Any]


@dataclass(frozen=True)
class Cell:
    """Accuracy of one probe in one row.

    Attributes:
        clean: on the clean training rows.
        poisoned: mean over seeds; its interval is that of the change, placed at the clean accuracy.
        change: poisoned minus clean, paired over the test rows.
        rows: test rows.
        seeds: trials behind the numbers.
    """

    clean: Estimate
    poisoned: Estimate
    change: Estimate
    rows: int
    seeds: int


class Twins:
    """The clean twins of an audit (one, or one per seed) and which test rows each probe gets right."""

    def __init__(self, trials: list[TrialRecord]) -> None:
        self.first = trials[0] if trials else None
        self._by_seed = {trial.seed: trial for trial in reversed(trials)}
        self._right: dict[tuple[str, str], Bits] = {}
        self._truth = {trial.trial: unpack_labels(trial.truth) for trial in trials if trial.truth}

    def of(self, trial: TrialRecord) -> TrialRecord | None:
        """The clean twin with the trial's seed, or else the first one."""
        return self._by_seed.get(trial.seed, self.first)

    def right(self, trial: TrialRecord, key: str) -> tuple[Bits, Bits] | None:
        """Bool [n] and [n]: rows that the clean and the poisoned pipeline get right; None if the record cannot say.

        A score named `probe, something` is that probe after a countermeasure. Its clean twin is the probe after the
        same one, where the clean twin has that score; else the countermeasure left the clean rows as they were, and the
        twin is the clean probe, provided that the trial says so too by giving the same clean accuracy.
        """
        twin = self.of(trial)
        if twin is None or twin.trial not in self._truth or key not in trial.predictions:
            return None
        truth = self._truth[twin.trial]
        probe = key if key in twin.predictions else key.partition(",")[0]
        if probe not in twin.predictions:
            return None
        if (twin.trial, probe) not in self._right:
            self._right[twin.trial, probe] = unpack_labels(twin.predictions[probe]) == truth
        before = self._right[twin.trial, probe]
        if probe != key and abs(float(before.mean()) - trial.scores[key].clean.value) > TOLERANCE:
            return None
        after = unpack_labels(trial.predictions[key])
        return (before, after == truth) if len(after) == len(truth) else None


def pair(trials: list[TrialRecord], key: str, twins: Twins) -> tuple[Cell, bool]:
    """Score `key` over the trials of one row, one trial per seed.

    Without predictions to pair, one trial keeps the change that it recorded, and several give the mean of theirs with
    a bootstrap over trials, which leaves out the uncertainty of the test rows; the interval's method says which.

    Args:
        trials: at least one; each has `scores[key]` with a poisoned accuracy.
        key: name of the score.
        twins: the clean twins.

    Returns:
        The cell, and whether the recorded accuracies agree with the recorded predictions.
    """
    scores = [trial.scores[key] for trial in trials]
    recorded = [score.poisoned.value for score in scores if score.poisoned]
    cleans = [score.clean.value for score in scores]
    clean = scores[0].clean if len(set(cleans)) == 1 else statistics.mean_interval(np.array(cleans))
    paired = [bits for trial in trials if (bits := twins.right(trial, key)) is not None]
    agrees = True
    if len(paired) == len(trials):
        before, after = np.stack([bits[0] for bits in paired]), np.stack([bits[1] for bits in paired])  # [s, n] each
        agrees = bool(np.allclose(after.mean(1), recorded, atol=TOLERANCE, rtol=0))
        change = statistics.paired_change_over_seeds(before if len(paired) > 1 else before[0], after)
        value = float(after.mean())
    else:
        changes = [poisoned - plain for poisoned, plain in zip(recorded, cleans, strict=True)]
        own = scores[0].change if len(scores) == 1 else None
        change = own or statistics.mean_interval(np.array(changes))
        value = float(np.mean(recorded))
    base = value - change.value
    poisoned = Estimate(
        value=value,
        low=min(max(base + change.low, 0.0), value),
        high=max(min(base + change.high, 1.0), value),
        n=change.n,
        method=change.method,
    )
    return Cell(clean, poisoned, change, scores[0].clean.n, len(scores)), agrees
