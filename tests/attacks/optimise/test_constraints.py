"""Budgets, constraint sets, base rows and label flips against naive answers."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from foretaste.attacks.budget import poisoned_rows
from foretaste.attacks.labelled.label_flip import LabelFlip
from foretaste.attacks.optimise.bases import spread, wrong_labels
from foretaste.attacks.optimise.constraints import Ball, feature_constraint
from foretaste.attacks.optimise.projected_ascent import Adam
from foretaste.errors import BudgetError
from tests import attacks_fixture as toy


@pytest.mark.parametrize(("budget", "n", "rows"), [(0.29, 100, 29), (0.03, 5000, 150), (0.1, 30, 3), (1.15, 100, 115)])
def test_budget_is_what_was_typed(budget: float, n: int, rows: int) -> None:
    assert poisoned_rows(budget, n) == rows


@pytest.mark.parametrize("budget", [0.0, -0.1, math.nan, math.inf, -math.inf, 0.0009, 1e-320])
def test_no_budget_no_rows(budget: float) -> None:
    with pytest.raises(BudgetError, match="share of the 1000 training rows"):
        poisoned_rows(budget, 1000)


def test_budget_of_nothing() -> None:
    with pytest.raises(BudgetError):
        poisoned_rows(0.5, 0)


@given(st.integers(1, 10**6), st.integers(1, 4), st.integers(1, 10**6))
@settings(max_examples=200, deadline=None)
def test_budget_is_floor_of_the_decimal(digits: int, places: int, n: int) -> None:
    typed = Fraction(digits, 10**places)
    rows = math.floor(typed * n)
    if rows:
        assert poisoned_rows(float(typed), n) == rows
    else:
        with pytest.raises(BudgetError):
            poisoned_rows(float(typed), n)


@given(st.integers(2, 12), st.integers(0, 2**30))
@settings(max_examples=30, deadline=None)
def test_wrong_labels_are_wrong_and_even(classes: int, seed: int) -> None:
    y = torch.arange(500 * classes) % classes
    flipped = wrong_labels(y, classes, torch.Generator().manual_seed(seed))
    assert not bool((flipped == y).any()) and 0 <= int(flipped.min()) <= int(flipped.max()) < classes
    pairs = torch.zeros(classes, classes).index_put_((y, flipped), torch.ones(len(y)), accumulate=True)
    expected = 500 / (classes - 1)
    off = pairs[~torch.eye(classes, dtype=torch.bool)]
    assert float((off - expected).abs().max()) < 6 * expected**0.5 + 1


@pytest.mark.parametrize(("n", "rows"), [(10, 3), (10, 10), (10, 25)])
def test_bases_are_used_evenly(n: int, rows: int) -> None:
    used = torch.bincount(spread(n, rows, toy.stream(0, "bases")), minlength=n)
    assert int(used.sum()) == rows and int(used.max() - used.min()) <= 1


def clean() -> tuple[Tensor, Tensor]:
    return toy.gaussians(200, "train", 5, 4)


def far(m: int = 60) -> tuple[Tensor, Tensor]:
    draws = toy.stream(1, "far")
    return 3 + 4 * torch.rand(m, 1, generator=draws) * torch.randn(m, 5, generator=draws), torch.randint(
        4, (m,), generator=draws
    )


def test_box_is_the_range_and_the_nearest_point() -> None:
    z, y = clean()
    p, labels = far()
    box = feature_constraint("box", z, y, 4, 0.95)
    inside = box.project(p, labels)
    low, high = z.numpy().min(0), z.numpy().max(0)
    np.testing.assert_array_equal(inside.numpy(), np.clip(p.numpy(), low, high))
    assert torch.equal(box.project(inside, labels), inside) and torch.equal(box.project(z, y), z)
    assert not torch.equal(inside, p)


def naive_ball(z: Tensor, y: Tensor, label: int, quantile: float) -> tuple[np.ndarray, float]:
    rows = toy.as_numpy(z)[y.numpy() == label]
    centre = rows.mean(0)
    return centre, float(np.quantile(np.sqrt(((rows - centre) ** 2).sum(1)), quantile))


@pytest.mark.parametrize("quantile", [0.5, 0.95, 1.0])
def test_ball_holds_its_share_of_the_class_and_projects_to_the_nearest_point(quantile: float) -> None:
    z, y = clean()
    p, labels = far()
    ball = feature_constraint("ball", z, y, 4, quantile)
    inside = ball.project(p, labels)
    moved = 0
    for row, near, label in zip(p, inside, labels.tolist(), strict=True):
        centre, radius = naive_ball(z, y, label, quantile)
        offset = toy.as_numpy(row) - centre
        length = np.linalg.norm(offset)
        expected = centre + offset * min(1.0, radius / length)
        np.testing.assert_allclose(toy.as_numpy(near), expected, rtol=0, atol=2e-5)
        assert np.linalg.norm(toy.as_numpy(near) - centre) <= radius
        moved += length > radius
    assert 10 < moved <= len(p)
    torch.testing.assert_close(ball.project(inside, labels), inside, rtol=0, atol=1e-5)
    unmoved = (ball.project(z, y) == z).all(1)
    for c in range(4):
        assert float(unmoved[y == c].float().mean()) == pytest.approx(quantile, abs=1.5 / 50)


def test_ball_is_kept_far_from_the_origin_and_with_many_rows() -> None:
    """Sums of 50,000 float32 rows, or coordinates large beside the radius, must not move the ball past the judge."""
    for offset, n in ((10.0, 50_000), (1000.0, 100)):
        z = offset + torch.randn(n, 5, generator=toy.stream(2, "many"))
        y = torch.zeros(n, dtype=torch.int64)
        z[0] += 100.0
        inside = feature_constraint("ball", z, y, 1, 0.9).project(z, y)
        centre, radius = naive_ball(z, y, 0, 0.9)
        reach = np.linalg.norm(toy.as_numpy(inside) - centre, axis=1).max() / radius
        assert 0.99 < reach <= 1.0


def test_no_constraint_moves_nothing() -> None:
    z, y = clean()
    p, labels = far()
    assert torch.equal(feature_constraint("none", z, y, 4, 0.95).project(p, labels), p)


def test_ball_of_an_absent_class_and_of_one_row() -> None:
    z, y = clean()
    keep = y != 2
    with pytest.raises(BudgetError, match=r"none of class \[2\]"):
        feature_constraint("ball", z[keep], y[keep], 4, 0.95)
    single = torch.cat([z[keep], z[2:3]]), torch.cat([y[keep], torch.tensor([2])])
    p = torch.cat([far(3)[0], z[2:3]])
    ball = feature_constraint("ball", *single, 4, 0.95)
    assert isinstance(ball, Ball) and float(ball.radii[2]) == 0
    assert torch.equal(ball.project(p, torch.full((4,), 2)), z[2:3].expand(4, -1))


def test_label_flip_copies_rows_under_wrong_labels() -> None:
    known = toy.feature_knowledge()
    made = LabelFlip().poison(known, 30, 0)
    assert made.z is not None and made.pixels is None and made.constraint == "box"
    assert torch.equal(made.z, known.z[made.base]) and len(set(made.base.tolist())) == 30
    assert not bool((made.y == known.y[made.base]).any())
    pictures = toy.pixel_knowledge()
    made = LabelFlip().poison(pictures, 30, 0)
    assert pictures.images is not None and made.pixels is not None and made.z is None
    assert torch.equal(made.pixels, pictures.images.pixels[made.base])


def test_least_likely_label_is_the_one_of_scikit_learn() -> None:
    known = toy.feature_knowledge()
    known.y[:40] = (known.y[:40] + 2) % 4  # rows whose own label is the least likely one: it must not be taken
    made = LabelFlip(labels="least-likely").poison(known, 200, 0)
    scaler = StandardScaler().fit(known.z.numpy())
    rows = np.hstack([scaler.transform(known.z.numpy()), np.ones((len(known.z), 1))])
    head = LogisticRegression(C=1 / (known.ridge * len(rows)), fit_intercept=False, tol=1e-10, max_iter=10_000)
    likely = head.fit(rows, known.y.numpy()).predict_proba(rows[made.base.numpy()])
    assert bool((likely.argmin(1) == known.y[made.base].numpy()).any())
    likely[np.arange(200), known.y[made.base].numpy()] = 2
    np.testing.assert_array_equal(made.y.numpy(), likely.argmin(1))
    assert len(made.y.unique()) > 2


def test_adam_is_the_one_of_torch() -> None:
    draws = toy.stream(4, "gradients")
    leaf = torch.randn(5, 3, generator=draws)
    other = leaf.clone()
    ours, theirs = Adam(leaf, 0.3), torch.optim.Adam([other], lr=0.3, maximize=True)
    for step in range(20):
        leaf.grad = torch.randn(5, 3, generator=draws) * 10 ** (step % 5 - 3)
        other.grad = leaf.grad.clone()
        ours.step()
        theirs.step()
        torch.testing.assert_close(leaf, other, rtol=1e-5, atol=1e-6)


def test_exact_does_not_load_the_compiler() -> None:
    """It would cost seconds, as long as the attack."""
    code = """
import sys, torch
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.exact import Exact
from foretaste.runtime import Runtime
z, y = torch.rand(30, 2), torch.arange(30) % 3
Exact(steps=2).poison(Knowledge(z, y, z, y, 3, 1e-3, Runtime()), 4, 0)
sys.exit('torch._dynamo' in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
