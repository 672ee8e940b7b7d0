"""Constraint sets against naive answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste.attacks.optimise.constraints import Ball, feature_constraint
from foretaste.errors import BudgetError
from tests.attacks import attacks_fixture as toy


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
