from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from foretaste.statistics import (
    mean_interval,
    paired_change,
    paired_change_over_seeds,
    ratio_interval,
    smallest_visible_change,
    wilson,
)


@pytest.mark.parametrize("n", [1, 2, 7, 60, 2000])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_the_interval_of_scipy(n: int, level: float) -> None:
    for successes in sorted({0, 1, n // 3, n - 1, n}):
        found = wilson(successes, n, level)
        expected = binomtest(successes, n).proportion_ci(level, method="wilson")
        assert found.value == successes / n
        assert found.n == n
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_touches_the_ends_exactly_and_never_leaves_them() -> None:
    assert wilson(0, 20).low == 0.0 and wilson(0, 20).high > 0.1
    assert wilson(20, 20).high == 1.0 and wilson(20, 20).low < 0.9


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_wilson_refuses_counts_that_cannot_be(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


def outcomes(n: int, lost: float, won: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong before and after, where a share `lost` turns wrong and `won` turns right."""
    random = np.random.default_rng(seed)
    draw = random.random(n)
    before = draw < 0.7
    after = before.copy()
    after[draw < lost] = False
    after[draw > 1 - won] = True
    return before, after


def test_paired_change_is_a_bootstrap_over_rows() -> None:
    before, after = outcomes(150, lost=0.15, won=0.04, seed=1)
    found = paired_change(before, after)
    random = np.random.default_rng(99)
    means = []
    for _ in range(4000):
        rows = random.integers(len(before), size=len(before))
        means.append(after[rows].mean() - before[rows].mean())
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.value == pytest.approx(after.mean() - before.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.008)  # 150 rows: steps of 0.0067
    assert found.n == 150


def test_pairing_narrows_the_interval() -> None:
    """Rows that both heads get wrong say nothing about a change; two separate intervals would count them twice."""
    before, after = outcomes(400, lost=0.05, won=0.0, seed=2)
    found = paired_change(before, after)
    apart = wilson(int(after.sum()), 400)
    assert found.high - found.low < 0.6 * (apart.high - apart.low)


def test_no_change_has_no_width_and_the_same_seed_gives_the_same_interval() -> None:
    before, after = outcomes(9000, lost=0.1, won=0.1, seed=3)
    assert paired_change(before, before).low == paired_change(before, before).high == 0.0
    assert paired_change(before, after) == paired_change(before, after)
    assert paired_change(before, after, seed=1) != paired_change(before, after, seed=2)


def test_paired_interval_covers_the_true_change() -> None:
    true = 0.03 - 0.12
    covered = 0
    for seed in range(300):
        found = paired_change(*outcomes(300, lost=0.12, won=0.03, seed=seed), seed=seed)
        covered += found.low <= true <= found.high
    assert 0.91 <= covered / 300 <= 0.985  # nominal 0.95, standard error 0.013


def test_change_over_seeds_is_a_bootstrap_over_rows_and_seeds() -> None:
    before, _ = outcomes(120, 0, 0, seed=4)
    random = np.random.default_rng(5)
    after = np.stack([before & (random.random(120) > lost) for lost in (0.1, 0.3, 0.5)])  # [3, 120]
    found = paired_change_over_seeds(before, after)
    means = []
    for _ in range(4000):
        rows, seeds = random.integers(120, size=120), random.integers(3, size=3)
        means.append(after[np.ix_(seeds, rows)].mean() - before[rows].mean())
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.value == pytest.approx(after.mean() - before.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.012)
    assert "3 seeds" in found.method
    rows_alone = paired_change(before, after[1])
    assert found.high - found.low > rows_alone.high - rows_alone.low  # three seeds that differ add their spread


def test_change_over_one_seed_is_the_change_over_rows() -> None:
    before, after = outcomes(90, 0.2, 0.05, seed=6)
    assert paired_change_over_seeds(before, after) == paired_change(before, after)
    assert paired_change_over_seeds(before, after[None]) == paired_change(before, after)


def test_change_over_seeds_takes_a_clean_pipeline_per_seed() -> None:
    pairs = [outcomes(60, 0.2, 0.0, seed=seed) for seed in (7, 8)]
    before, after = (np.stack(side) for side in zip(*pairs, strict=True))
    expected = np.mean([b.mean() - a.mean() for a, b in pairs])
    assert paired_change_over_seeds(before, after).value == pytest.approx(expected)


def test_mean_interval_holds_the_mean_and_shrinks_with_more_numbers() -> None:
    random = np.random.default_rng(9)
    few, many = mean_interval(random.normal(2, 1, 10)), mean_interval(random.normal(2, 1, 1000))
    assert few.low <= few.value <= few.high
    assert many.high - many.low == pytest.approx(2 * 1.96 / 1000**0.5, rel=0.15)
    assert many.high - many.low < few.high - few.low
    assert mean_interval(np.array([0.25])).low == mean_interval(np.array([0.25])).high == 0.25


def test_smallest_visible_change_is_the_half_width_of_the_paired_interval() -> None:
    before, after = outcomes(20_000, lost=0.05, won=0.05, seed=10)
    found = paired_change(before, after)
    assert smallest_visible_change(20_000) == pytest.approx((found.high - found.low) / 2, rel=0.1)
    assert smallest_visible_change(400) == pytest.approx(10 * smallest_visible_change(40_000))


def test_ratio_of_sums_and_its_interval() -> None:
    random = np.random.default_rng(0)
    second = random.uniform(0.5, 1.5, 400)
    first = 3 * second + random.normal(0, 0.5, 400)
    found = ratio_interval(np.stack([first, second], 1))
    assert found.value == pytest.approx(first.sum() / second.sum()) and found.n == 400
    spread = 0.5 / (second.mean() * 400**0.5)  # of the mean residual, over the mean of the second
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert found.low < 3 < found.high
