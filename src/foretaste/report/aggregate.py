"""Aggregation of trials, written once: pure functions of records that the tables, figures, verdicts and studies share.

Each says what is grouped, what its n counts, and which interval it gives. Absent is None, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from foretaste import statistics
from foretaste.record import Estimate, ProbeScores, TrialRecord, unpack_labels

TOLERANCE = 1e-6
"""Largest gap between a recorded accuracy and that of the recorded predictions: rounding, nothing else."""

Bits = NDArray[Any]
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


# Grouping


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by key; keys and items in the order of appearance.

    >>> grouped([3, 1, 4, 1], lambda n: n % 2)
    {1: [3, 1, 1], 0: [4]}
    """
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_attack(trials: Iterable[TrialRecord]) -> list[list[TrialRecord]]:
    """Trials by (attack, variant) in order of appearance, then by budget ascending; seeds ascending within a group."""
    groups = grouped(trials, lambda trial: (trial.attack, trial.variant, trial.budget or 0.0))
    names = list(dict.fromkeys((attack, variant) for attack, variant, _ in groups))
    ordered = sorted(groups, key=lambda key: (names.index(key[:2]), key[2]))
    return [sorted(groups[key], key=lambda trial: trial.seed) for key in ordered]


def one_per_run(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The first trial of each run: pairs that share an encoder share its accuracy and its cost."""
    shared = [trial.target.together > 1 if trial.target else False for trial in trials]
    return list(
        {
            (trial.digests.get("poisoned encoder") if together else None) or trial.trial: trial
            for trial, together in zip(reversed(trials), reversed(shared), strict=True)
        }.values()
    )[::-1]


def keys_of(found: Iterable[Iterable[str]]) -> list[str]:
    """Each key once, in the order of appearance."""
    return list(dict.fromkeys(key for one in found for key in one))


def eligible(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials with a pair that counts: the clean pipeline gets the image right, and the wanted class is another."""
    return [trial for trial in trials if trial.target and trial.target.eligible]


def refusals(trial: TrialRecord) -> list[str]:
    """What the referee found wrong with a trial, one line per check."""
    return [f"{check.name}: {check.found}" for check in trial.referee if not check.ok]


def failure(trial: TrialRecord) -> str:
    """Why a trial is in no figure: it failed, or the referee refused it; empty where it counts."""
    if trial.status == "failed":
        return f"{trial.error.type}: {trial.error.message}" if trial.error else "failed without a message"
    found = refusals(trial)
    return "refused by the referee: " + "; ".join(found) if found else ""


def headline(trial: TrialRecord | None) -> ProbeScores | None:
    """Scores of the first probe; None without one."""
    return next(iter(trial.scores.values()), None) if trial else None


# Shares, means and extremes


def share(bits: Sequence[bool]) -> Estimate | None:
    """Share of yes among n yes/no outcomes, with Wilson's interval; None where n is 0."""
    return statistics.wilson(sum(bits), len(bits)) if bits else None


def mean_share(shares: Sequence[float]) -> Estimate | None:
    """Mean of n numbers in [0, 1], one per trial, with Wilson's interval for n outcomes; None where n is 0."""
    return statistics.mean_share(np.array(shares)) if shares else None


def mean(values: Sequence[float]) -> float | None:
    """Mean of numbers that need no interval; None where there is none."""
    return float(np.mean(values)) if values else None


def mean_over_trials(found: Iterable[Estimate | None]) -> Estimate | None:
    """Mean over trials; n counts trials, and the interval is a bootstrap over them.

    A single trial keeps the interval and the n that it has, since one number has no spread.
    """
    known = [one for one in found if one]
    if len(known) < 2:
        return known[0] if known else None
    return statistics.mean_interval(np.array([one.value for one in known]))


def mean_as_wide(found: Iterable[Estimate | None]) -> Estimate | None:
    """Mean over trials with the mean of their own intervals; n is that of the first.

    As wide as if all trials erred alike, since two or three numbers have no spread to speak of.
    """
    known = [one for one in found if one]
    if not known:
        return None
    value, low, high = (float(np.mean([getattr(one, end) for one in known])) for end in ("value", "low", "high"))
    return Estimate(value=value, low=low, high=high, n=known[0].n, method=f"{known[0].method}, mean of the trials")


def lowest(found: Iterable[tuple[Estimate | None, T]]) -> tuple[Estimate, T] | None:
    """The least estimate by its value with what it is of, the first of equal ones; None where there is none."""
    known = [(one, of) for one, of in found if one]
    return min(known, key=lambda one: one[0].value) if known else None


# Pairs of predictions


def right(trial: TrialRecord, key: str, truth: Bits) -> Bits | None:
    """Bool [n]: test rows that a score gets right; None without its predictions, or where they are of other rows."""
    if key not in trial.predictions:
        return None
    guessed = unpack_labels(trial.predictions[key])
    return guessed == truth if len(guessed) == len(truth) else None


def paired(before: Sequence[Bits], after: Sequence[Bits]) -> Estimate | None:
    """Mean change of accuracy over the same n test rows; bootstrap over rows, and over seeds where there are several.

    Args:
        before: bool [n] per seed.
        after: bool [n] per seed; where the sides have different numbers of seeds, the one with more is cut.

    Returns:
        None where either side is missing.
    """
    seeds = min(len(before), len(after))
    if not seeds:
        return None
    first = np.stack(before[:seeds]) if seeds > 1 else before[0]
    return statistics.paired_change_over_seeds(first, np.stack(after[:seeds]))


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
        self._right: dict[tuple[str, str], Bits | None] = {}
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
        if (twin.trial, probe) not in self._right:
            self._right[twin.trial, probe] = right(twin, probe, truth)
        before, after = self._right[twin.trial, probe], right(trial, key, truth)
        if before is None or after is None:
            return None
        if probe != key and abs(float(before.mean()) - trial.scores[key].clean.value) > TOLERANCE:
            return None
        return before, after


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
    known = [bits for trial in trials if (bits := twins.right(trial, key)) is not None]
    change = paired([bits[0] for bits in known], [bits[1] for bits in known]) if len(known) == len(trials) else None
    agrees = True
    if change:
        after = np.stack([bits[1] for bits in known])  # [s, n]
        agrees = bool(np.allclose(after.mean(1), recorded, atol=TOLERANCE, rtol=0))
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
