"""Intervals for shares and for paired changes, and rates of false alarms.

numpy only, so that the report can use them without torch or scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.record import Estimate

Bits = NDArray[Any]
DRAWS = 2000


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927), which stays inside [0, 1] and is never empty.

    Args:
        successes: count in [0, n].
        n: number of trials, at least 1.
        level: coverage.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"wilson expects 0 <= successes <= n and n >= 1, got {successes} of {n}")
    return _score_interval(successes / n, n, level, "wilson")


def mean_share(shares: Bits, level: float = 0.95) -> Estimate:
    """Mean of numbers in [0, 1] with Wilson's interval for as many yes/no trials of that mean.

    No numbers in [0, 1] of one mean vary more than yes/no ones, so the interval is wide enough, and not empty where
    all numbers are equal, as that of a bootstrap would be.

    Args:
        shares: float [n] in [0, 1], n >= 1.
        level: coverage.
    """
    shares = np.asarray(shares, dtype=np.float64)
    if not len(shares) or not 0 <= shares.min() <= shares.max() <= 1:
        raise ValueError(f"mean_share expects numbers in [0, 1], got {shares}")
    return _score_interval(float(shares.mean()), len(shares), level, "wilson over trials")


def _score_interval(share: float, n: int, level: float, name: str) -> Estimate:
    z = NormalDist().inv_cdf(0.5 + level / 2)
    penalty = z * z / n
    centre = (share + penalty / 2) / (1 + penalty)
    half = z / (1 + penalty) * float(np.sqrt(share * (1 - share) / n + penalty / (4 * n)))
    # At 0 and n the bound is 0 or 1 exactly; rounding must not move it.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return Estimate(value=share, low=low, high=high, n=n, method=f"{name} {level:g}")


def auroc(high: Bits, low: Bits, level: float = 0.95) -> Estimate:
    """Chance that a number of `high` exceeds one of `low`, ties for half, with DeLong's interval on the logit scale.

    DeLong, DeLong and Clarke-Pearson, Biometrics 1988: the variance of each number's own share of pairs won, over both
    samples. Where all pairs are won (or lost) it is 0; the interval is then Wilson's for as many trials as the smaller
    sample has numbers, which is wider than what the pairs would give.

    Args:
        high: scores [m] that should be higher, m >= 1.
        low: scores [n], n >= 1.
        level: coverage.
    """
    high, low = (np.asarray(values, dtype=np.float64) for values in (high, low))
    if not len(high) or not len(low):
        raise ValueError(f"auroc expects scores of both kinds, got {len(high)} and {len(low)}")
    won, lost = _shares_below(high, low), 1 - _shares_below(low, high)  # of each high one, [m]; of each low one, [n]
    value, few = float(won.mean()), min(len(high), len(low))
    variance = sum(float(s.var(ddof=1)) / len(s) if len(s) > 1 else 0.25 for s in (won, lost))
    low_end, high_end = 0.0, 1.0
    if value in (0.0, 1.0):
        bounds = wilson(few * round(value), few, level)
        low_end, high_end = bounds.low, bounds.high
    else:
        odds = np.log(value / (1 - value))
        reach = NormalDist().inv_cdf(0.5 + level / 2) * float(np.sqrt(variance)) / (value * (1 - value))
        low_end, high_end = (float(1 / (1 + np.exp(-np.clip(odds + s * reach, -700, 700)))) for s in (-1, 1))
    return Estimate(
        value=value,
        low=min(low_end, value),
        high=max(high_end, value),
        n=len(high) + len(low),
        method=f"DeLong {level:g}",
    )


def _shares_below(values: Bits, others: Bits) -> Bits:
    """Share of the others [n] below each value [m], ties for half: float [m]."""
    ordered = np.sort(others)
    sides = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return sum(sides) / (2 * len(ordered))  # type: ignore[return-value]


def paired_change(before: Bits, after: Bits, seed: int = 0, level: float = 0.95) -> Estimate:
    """Mean change of a yes/no score over the same rows, with a percentile bootstrap over the rows.

    A bootstrap of n rows whose difference is -1, 0 or +1 is one multinomial draw of the three counts, so no
    resampling loop is needed.

    Args:
        before: bool [n], the clean pipeline got the row right.
        after: bool [n], the poisoned pipeline got it right; same rows in the same order.
        seed: of the bootstrap.
        level: coverage.
    """
    difference = after.astype(np.int8) - before.astype(np.int8)  # [n]
    n = len(difference)
    counts = np.array([(difference == -1).sum(), (difference == 0).sum(), (difference == 1).sum()])
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=DRAWS)
    means = (draws[:, 2] - draws[:, 0]) / n
    return _percentile(float(difference.mean()), means, n, level, "paired bootstrap over rows")


def paired_change_over_seeds(before: Bits, after: Bits, seed: int = 0, level: float = 0.95) -> Estimate:
    """Mean paired change over several seeds, bootstrapped over rows and over seeds at once.

    Rows are shared by the seeds, so each draw picks one set of rows for all of them; with one seed this is
    `paired_change`.

    Args:
        before: bool [n], or [s, n] where each seed has its own clean pipeline.
        after: bool [s, n], one line per seed.
        seed: of the bootstrap.
        level: coverage.
    """
    after = np.atleast_2d(after)
    if len(after) == 1:
        return paired_change(before, after[0], seed, level)
    difference = after.astype(np.int8) - before.astype(np.int8)  # [s, n]
    seeds, n = difference.shape
    # Rows that changed alike in every seed are interchangeable: draw how often each kind of row comes, not each row.
    kinds, counts = np.unique(difference, axis=1, return_counts=True)  # [s, k], [k]
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(n, counts / n, size=DRAWS)  # [draws, k]
    picks = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS)  # [draws, s]
    means = ((rows @ kinds.T) / n * picks / seeds).sum(1)
    return _percentile(float(difference.mean()), means, n, level, f"paired bootstrap over rows and {seeds} seeds")


def mean_interval(values: Bits, seed: int = 0, level: float = 0.95) -> Estimate:
    """Mean of a few measured numbers with a percentile bootstrap over them."""
    values = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(values), size=(DRAWS, len(values)))
    return _percentile(float(values.mean()), values[picks].mean(1), len(values), level, "bootstrap over trials")


def ratio_interval(pairs: Bits, seed: int = 0, level: float = 0.95) -> Estimate:
    """Sum of the first numbers over the sum of the second, with a percentile bootstrap over the pairs.

    Args:
        pairs: float [k, 2]; the second column has a sum above 0.
        seed: of the bootstrap.
        level: coverage.
    """
    pairs = np.asarray(pairs, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(pairs), size=(DRAWS, len(pairs)))
    sums = pairs[picks].sum(1)  # [draws, 2]
    ratios = sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], np.inf)
    value = float(pairs[:, 0].sum() / pairs[:, 1].sum())
    return _percentile(value, ratios, len(pairs), level, "bootstrap over trials")


def smallest_visible_change(n: int, share_that_moves: float = 0.1, level: float = 0.95) -> float:
    """The paired change below which n test rows cannot tell a change from none (half-width of the interval).

    McNemar's variance: when a share q of the rows changes its verdict in either direction, the standard error of
    the mean change is at most sqrt(q / n).
    """
    return NormalDist().inv_cdf(0.5 + level / 2) * float(np.sqrt(share_that_moves / max(n, 1)))


def _percentile(value: float, means: Bits, n: int, level: float, method: str) -> Estimate:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=value, low=min(float(low), value), high=max(float(high), value), n=n, method=f"{method} {level:g}"
    )


def false_alarm_rate(score: float, null: Sequence[float]) -> float | None:
    """How often a clean encoder would look at least so suspicious: (1 + #{null >= score}) / (n + 1).

    If the suspect is one more draw from where the n clean encoders came from, the rate is at most a with probability
    at most a, for every a (a permutation p-value; Phipson and Smyth, "Permutation P-values Should Never Be Zero",
    2010). The least that n can give is 1 / (n + 1). None where there is no clean encoder.

    >>> false_alarm_rate(3.0, [1.0, 2.0, 3.0])
    0.5
    """
    if not null:
        return None
    return (1 + sum(value >= score for value in null)) / (len(null) + 1)
