"""Target heads and gradient canceling: against autograd, a planted reachable head and heads that others retrain."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.gradient_canceling import GradientCanceling
from foretaste.attacks.optimise.carriers import FeatureCarrier
from foretaste.attacks.optimise.constraints import Everywhere
from foretaste.attacks.optimise.gradient_residual import GradientResidual
from foretaste.attacks.optimise.projected_ascent import ascend
from foretaste.attacks.optimise.target_heads import grad_pc, reachable_heads, threshold
from foretaste.heads.fit import minimise
from foretaste.heads.objective import HeadObjective, Rows
from foretaste.heads.scaler import Scaler
from tests.attacks import attacks_fixture as toy

C, D, M = 3, 4, 30


def problem() -> tuple[Rows, HeadObjective, Tensor]:
    """Clean rows in standard units, their training problem and its optimum."""
    z, y = toy.gaussians(120, "train", D, C)
    clean = Rows(Scaler.of([z]).apply(z), y)
    objective = HeadObjective((clean,), C, toy.RIDGE)
    return clean, objective, minimise(objective, tolerance=1e-10).weight


def gradient_at(weight: Tensor, x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Sum over rows of the training gradient, with n times the ridge, by autograd in float64."""
    leaf = weight.clone().requires_grad_()
    total = torch.nn.functional.cross_entropy(toy.ones(x) @ leaf.T, y, reduction="sum")
    (gradient,) = torch.autograd.grad(total + len(x) * ridge / 2 * leaf.square().sum(), leaf)
    return gradient


def test_objective_and_gradient_are_autograds() -> None:
    clean, objective, fitted = problem()
    target = grad_pc(objective, fitted, 0.7)
    x = 2 * torch.randn(M, D, generator=toy.stream(0, "poison"))
    y = torch.arange(M) % C
    now = GradientResidual(clean, target, C, toy.RIDGE, M).evaluate(x, y)
    both, labels = torch.cat([clean.x, x]).double(), torch.cat([clean.y, y])
    # Of the clean rows alone, but with the ridge of all n + m rows: what the poison has to cancel.
    alone = gradient_at(target, clean.x, clean.y, 0.0) + (len(clean) + M) * toy.RIDGE * target
    expected = float(gradient_at(target, both, labels, toy.RIDGE).square().sum() / alone.square().sum())
    assert now.value == pytest.approx(expected, rel=1e-6)
    leaf = x.double().requires_grad_()
    weight = target.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(torch.cat([leaf, torch.ones(M, 1)], 1) @ weight.T, y, reduction="sum")
    (poison,) = torch.autograd.grad(loss, weight, create_graph=True)
    ((alone + poison).square().sum() / alone.square().sum()).backward()
    assert now.gradient is not None and leaf.grad is not None
    torch.testing.assert_close(now.gradient.double(), leaf.grad, rtol=1e-4, atol=1e-6 * float(leaf.grad.abs().max()))


def test_a_cancelled_head_is_what_retraining_finds() -> None:
    """Bias, every class and weight decay are canceled: the head that another solver fits is the target."""
    clean, _, fitted = problem()
    y = (clean.y[:M] + 1 + torch.arange(M) % 2) % C
    planted = 2 * torch.randn(M, D, generator=toy.stream(0, "planted"))
    target = toy.naive_head(torch.cat([clean.x, planted]).double(), torch.cat([clean.y, y]), C)
    carrier = FeatureCarrier(clean.x[:M].clone(), Scaler(torch.zeros(D), torch.ones(D)), Everywhere())
    end = ascend(
        "test", carrier, GradientResidual(clean, target, C, toy.RIDGE, M), y, steps=2000, rate=0.02, progress=_quiet
    )
    assert min(end.curve) < 1e-5
    assert not torch.allclose(carrier.leaf, planted, atol=0.1)
    retrained = toy.naive_head(torch.cat([clean.x, carrier.leaf]).double(), torch.cat([clean.y, y]), C)
    assert float((retrained - target).norm()) < 0.02 * float((target - fitted).norm())


def _quiet(done: int, total: int) -> None: ...


def test_grad_pc_is_on_its_ball_and_beats_random_directions() -> None:
    clean, objective, fitted = problem()
    bare = HeadObjective((clean,), C, 0.0)
    target = grad_pc(objective, fitted, 0.8)
    assert float((target - fitted).norm()) == pytest.approx(0.8)
    draws = toy.stream(0, "directions")
    others = torch.randn(300, *fitted.shape, generator=draws, dtype=torch.float64)
    losses = [bare.loss(fitted + 0.8 * other / other.norm()) for other in others]
    assert bare.loss(target) > max(losses)


def test_threshold_is_the_largest_pull_of_any_row() -> None:
    """tau from its definition: the most that one row can pull along the target, found numerically."""
    clean, objective, fitted = problem()
    weight = grad_pc(objective, fitted, 1.5)
    # A row's pull <W, r [x; 1]'> depends on its logits s = W [x; 1] alone: sum_k p_k s_k - s_c. By symmetry the extreme
    # has s_c = 0 against C - 1 equal logits t.
    found = minimize_scalar(lambda t: _pull(t), bounds=(-20, 5), method="bounded")
    most = -float(found.fun)
    pull = float((weight * gradient_at(weight, clean.x, clean.y, 0.0)).sum()) / len(clean)
    decay = toy.RIDGE * float(weight.square().sum())
    assert threshold(objective, weight) == pytest.approx((pull + decay) / (most - decay), rel=1e-4)
    assert threshold(objective, fitted) == pytest.approx(0, abs=1e-6)


def _pull(t: float) -> float:
    others = (C - 1) * math.exp(t)
    return others / (1 + others) * t


def test_heads_beyond_the_threshold_cannot_be_installed() -> None:
    clean, objective, fitted = problem()
    budget = M / len(clean)
    beyond = reachable_heads(objective, fitted, [6 * budget])[0]
    assert threshold(objective, beyond.weight) > 5 * budget
    carrier = FeatureCarrier(clean.x[:M].clone(), Scaler(torch.zeros(D), torch.ones(D)), Everywhere())
    y = (clean.y[:M] + 1) % C
    end = ascend(
        "test",
        carrier,
        GradientResidual(clean, beyond.weight, C, toy.RIDGE, M),
        y,
        steps=1500,
        rate=0.05,
        progress=_quiet,
    )
    assert min(end.curve) > 0.05


def accuracy(known: Knowledge, z: Tensor | None = None, y: Tensor | None = None) -> float:
    return toy.judge(known, z, y, toy.gaussians(4000, "test"))


@pytest.mark.parametrize("target", ["grad-pc", "exact"])
def test_scikit_learn_loses_accuracy(target: str) -> None:
    known = toy.feature_knowledge()
    made = GradientCanceling(target=target, labels="random").poison(known, 40, 0)
    assert accuracy(known, made.z, made.y) < accuracy(known) - 0.03
    figures = made.ledger.figures
    assert 0 < figures["residual"] < 1 and figures["radius"] > 0
    assert figures["budget reaches tau"] == float(figures["tau"] <= 0.1)
    assert figures["residual"] == pytest.approx(min(made.ledger.objective) ** 0.5)


def test_the_exact_attacks_head_is_the_better_target() -> None:
    known = toy.feature_knowledge()
    found = {}
    for target in ("grad-pc", "exact"):
        made = GradientCanceling(target=target, labels="random").poison(known, 20, 0)
        found[target] = accuracy(known, made.z, made.y)
    assert found["exact"] < found["grad-pc"] - 0.02
