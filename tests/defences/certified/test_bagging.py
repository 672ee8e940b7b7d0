"""Bagging's bounds and radii against naive ones, and its certificates against other draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom

from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.bagging import Bagging, bounds, radii, worst_case
from tests.defences import fixture as toy


def lent(n: int, seed: int = 0, distance: float = 1.5) -> TrainingRows:
    return toy.rows(*toy.blob(n, seed, distance), clean=toy.blob(60, 7, distance))


# The certificate of bagging.


def naive_bagging_radius(low: float, high: float, n: int, k: int) -> int:
    """Theorem 1, for every r and every n' in turn."""
    for r in range(n + 1):
        worst = max((m / n) ** k - 2 * ((max(n, m) - r) / n) ** k + 1 for m in range(max(n - r, 0), n + r + 1))
        if not worst - low + high < 0:
            return r - 1
    return n


@pytest.mark.parametrize(("n", "k"), [(40, 1), (40, 2), (60, 5), (150, 30), (7, 9)])
def test_bagging_radius_is_the_naive_one(n: int, k: int) -> None:
    random = np.random.default_rng(0)
    low = random.uniform(0, 1, 40)
    high = np.minimum(random.uniform(0, 0.6, 40), 1 - low)
    found = radii(low - high, worst_case(n, k)).tolist()
    assert found == [naive_bagging_radius(a, b, n, k) for a, b in zip(low, high, strict=True)]
    assert len(set(found)) > (3 if n >= 40 else 1)


def test_bounds_are_clopper_and_pearsons() -> None:
    """By their definition: at the bound, counts as extreme as those seen have a chance of alpha / C."""
    counts = torch.tensor([[70, 20, 10], [34, 33, 33], [0, 100, 0], [50, 50, 0]])
    first, low, high = bounds(counts, 0.03)
    assert first.tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(binom.sf([69, 33, 99, 49], 100, low), 0.01, rtol=1e-6)
    np.testing.assert_allclose(binom.cdf([20, 33, 50], 100, np.array(high)[[0, 1, 3]]), 0.01, rtol=1e-6)
    assert high[2] <= 1 - low[2]


def test_bagging_covers_what_it_says_for_other_draws_too() -> None:
    """The certificate is about all bags: rows that are covered keep their prediction under poison and other seeds."""
    rows, test = lent(150, distance=3.0), lent(60, 5, 3.0)
    defence = Bagging(learners=400, bag=6, head="prototype")
    before = defence.fit(rows, 0).certify(test.z)
    assert int(before.radii.max()) >= 5 and int(before.radii.min()) < 5
    covered = before.radii >= 5
    for seed in range(3):
        y = rows.y.clone()
        hit = torch.from_numpy(np.random.default_rng(seed).permutation(150)[:5])
        y[hit] = (y[hit] + 1) % 3
        after = defence.fit(TrainingRows(rows.z, y, 3), seed).certify(test.z)
        assert torch.equal(after.predictions[covered], before.predictions[covered])
