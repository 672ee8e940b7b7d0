"""The exact total gradient against finite differences of refitted heads, and against autograd with a dense Hessian."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from torch import Tensor

from foretaste.attacks.optimise import stackelberg
from foretaste.attacks.optimise.stackelberg import Leader, Stackelberg, leader_loss, poison_gradient
from foretaste.heads.objective import HeadObjective, Rows
from foretaste.heads.scaler import Scaler
from tests.attacks import attacks_fixture as toy

LEADERS = get_args(Leader)
C, D, M = 3, 4, 4


def problem() -> tuple[Rows, Rows, Tensor, Tensor]:
    """Clean and validation rows in standard units, poisoned rows and their labels."""
    z, y = toy.gaussians(60, "train", D, C)
    v, vy = toy.gaussians(50, "validation", D, C)
    scaler = Scaler.of([z])
    draws = toy.stream(3, "poison")
    x = 2 * torch.randn(M, D, generator=draws)
    return Rows(scaler.apply(z), y), Rows(scaler.apply(v), vy), x, torch.tensor([0, 2, 1, 2])


def refit(clean: Rows, x: Tensor, y: Tensor, start: Tensor | None = None) -> Tensor:
    rows = torch.cat([clean.x.double(), x.double()])
    return toy.naive_head(rows, torch.cat([clean.y, y]), C, start)


@pytest.fixture(params=LEADERS)
def leader(request: pytest.FixtureRequest) -> Leader:
    return request.param


def test_gradient_is_the_finite_difference_of_refitted_heads(leader: Leader) -> None:
    clean, own, x, y = problem()
    objective = Stackelberg(clean, own, C, toy.RIDGE, leader, fit_tolerance=1e-10, solve_tolerance=1e-7)
    now = objective.evaluate(x, y)
    best = refit(clean, x, y)
    assert now.value == pytest.approx(float(toy.naive_leader(leader, best, own.x, own.y)), rel=1e-8)
    assert torch.allclose(objective.head, best, atol=1e-8)
    expected, h = torch.zeros(M, D, dtype=torch.float64), 1e-4
    for j in range(M):
        for k in range(D):
            values = []
            for side in (h, -h):
                moved = x.double()
                moved[j, k] += side
                values.append(float(toy.naive_leader(leader, refit(clean, moved, y, best), own.x, own.y)))
            expected[j, k] = (values[0] - values[1]) / (2 * h)
    assert now.gradient is not None
    torch.testing.assert_close(now.gradient.double(), expected, rtol=2e-4, atol=2e-4 * float(expected.abs().max()))


def test_gradient_is_the_implicit_one_of_autograd_and_cholesky(leader: Leader) -> None:
    clean, own, x, y = problem()
    objective = Stackelberg(clean, own, C, toy.RIDGE, leader, fit_tolerance=1e-10, solve_tolerance=1e-7)
    objective.evaluate(x + 1, y)  # warm starts must not move the answer
    now = objective.evaluate(x, y)
    weight = refit(clean, x, y).requires_grad_()
    rows = torch.cat([clean.x.double(), x.double()]).requires_grad_()
    labels = torch.cat([clean.y, y])
    (slope,) = torch.autograd.grad(toy.naive_leader(leader, weight, own.x, own.y), weight)
    factor = torch.linalg.cholesky(toy.naive_hessian(weight.detach(), rows.detach(), labels))
    u = torch.cholesky_solve(slope.flatten()[:, None], factor).view_as(weight)
    (first,) = torch.autograd.grad(toy.head_loss(weight, rows, labels), weight, create_graph=True)
    (cross,) = torch.autograd.grad((first * u).sum(), rows)
    expected = -cross[-M:]
    assert now.gradient is not None and now.gradient.dtype == torch.float32
    torch.testing.assert_close(now.gradient.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_poison_gradient_is_autograd_of_one_rows_loss() -> None:
    draws = toy.stream(5, "poison")
    weight, u = (torch.randn(C, D + 1, generator=draws, dtype=torch.float64) for _ in range(2))
    x, y = torch.randn(7, D, generator=draws), torch.arange(7) % C
    leaf, head = x.double().requires_grad_(), weight.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(toy.ones(leaf) @ head.T, y, reduction="sum")
    (slope,) = torch.autograd.grad(loss, head, create_graph=True)
    (expected,) = torch.autograd.grad((slope * u).sum(), leaf)
    torch.testing.assert_close(poison_gradient(weight, u, x, y).double(), expected, rtol=1e-5, atol=1e-5)


def test_leader_loss_has_the_gradient_of_finite_differences(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    def pieces(self: HeadObjective) -> Iterator[Rows]:
        for part in self.parts:
            yield from map(Rows, part.x.split(70), part.y.split(70))

    monkeypatch.setattr(HeadObjective, "chunks", pieces)
    z, y = toy.gaussians(200, "leader", D, C)
    weight = torch.randn(C, D + 1, generator=toy.stream(6, "weight"), dtype=torch.float64)
    value, gradient = leader_loss(leader, Rows(z, y), weight, C)
    assert value == pytest.approx(float(toy.naive_leader(leader, weight, z, y)), rel=1e-12)
    h = 1e-6
    for c in range(C):
        for k in range(D + 1):
            step = torch.zeros_like(weight)
            step[c, k] = h
            up, down = (leader_loss(leader, Rows(z, y), weight + s, C)[0] for s in (step, -step))
            assert float(gradient[c, k]) == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-8)


def test_margin_counts_errors() -> None:
    """Far from the boundary each row counts 0 or 1, so the mean is the error rate."""
    z, y = toy.gaussians(200, "leader", D, C)
    weight = 1000 * torch.randn(C, D + 1, generator=toy.stream(6, "weight"), dtype=torch.float64)
    errors = float(((toy.ones(z) @ weight.T).argmax(1) != y).double().mean())
    assert leader_loss("margin", Rows(z, y), weight, C)[0] == pytest.approx(errors, abs=1e-3)


def test_steepest_label_is_the_one_that_hurts_most_after_a_refit(leader: Leader) -> None:
    clean, own, x, y = problem()
    objective = Stackelberg(clean, own, C, toy.RIDGE, leader, fit_tolerance=1e-10, solve_tolerance=1e-7)
    objective.evaluate(x, y)
    new = 2 * torch.randn(8, D, generator=toy.stream(8, "new"))
    rows = torch.cat([clean.x, x])
    best = refit(clean, x, y)
    expected = []
    for row in new:
        harm = []
        for c in range(C):
            labels = torch.cat([clean.y, y, torch.tensor([c])])
            counts = torch.ones(len(labels), dtype=torch.float64)
            counts[-1] = 1e-3
            head = toy.naive_head(torch.cat([rows, row[None]]), labels, C, best, counts)
            harm.append(float(toy.naive_leader(leader, head, own.x, own.y)))
        expected.append(max(range(C), key=harm.__getitem__))
    assert len(set(expected)) > 1, "the case distinguishes labels"
    assert objective.steepest_labels(new).tolist() == expected


def test_labels_need_a_gradient_first() -> None:
    clean, own, x, y = problem()
    objective = Stackelberg(clean, own, C, toy.RIDGE)
    now = objective.evaluate(x, y, gradient=False)
    assert now.gradient is None and "solve" not in now.residuals
    with pytest.raises(ValueError, match="gradient=True"):
        objective.steepest_labels(x)


def test_warm_starts_and_stale_preconditioners_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long walk with kept, and with renewed, preconditioners ends where a cold start does."""
    clean, own, x, y = problem()
    cold = Stackelberg(clean, own, C, toy.RIDGE, "margin", 1e-9, 1e-6).evaluate(4 * x, y)
    assert cold.residuals["fit"] <= 1e-9
    for most in (0, 10**6):
        monkeypatch.setattr(stackelberg, "STALE", most)
        walking = Stackelberg(clean, own, C, toy.RIDGE, "margin", 1e-9, 1e-6)
        for size in (1.0, -1.0, 2.0, 3.0):
            walking.evaluate(size * x, y)
        now = walking.evaluate(4 * x, y)
        assert now.residuals["fit"] <= 1e-9 and now.residuals["solve"] <= 1e-6
        assert now.value == pytest.approx(cold.value, rel=1e-7)
        assert now.gradient is not None and cold.gradient is not None
        torch.testing.assert_close(now.gradient, cold.gradient, rtol=1e-3, atol=1e-4 * float(cold.gradient.abs().max()))


def test_default_tolerances_are_tight_enough(leader: Leader) -> None:
    clean, own, x, y = problem()
    exact = Stackelberg(clean, own, C, toy.RIDGE, leader, 1e-10, 1e-7).evaluate(x, y)
    rough = Stackelberg(clean, own, C, toy.RIDGE, leader)
    for size in (2.0, 1.5, 1.0):
        now = rough.evaluate(size * x, y)
        assert now.residuals["fit"] <= rough.fit_tolerance and now.residuals["solve"] <= rough.solve_tolerance
    assert now.gradient is not None and exact.gradient is not None
    assert float((now.gradient - exact.gradient).norm()) < 0.02 * float(exact.gradient.norm())
    assert now.value == pytest.approx(exact.value, rel=1e-3)
