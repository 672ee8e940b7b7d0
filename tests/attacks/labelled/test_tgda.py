"""TGDA: its hypergradient against finite differences, its follower and conjugate gradients against naive ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.tgda import TGDA, largest_eigenvalue
from foretaste.attacks.optimise.carriers import PixelCarrier
from foretaste.attacks.optimise.generator import Autoencoder, GeneratorCarrier
from foretaste.attacks.optimise.unrolled import Unrolled, normal_equations
from foretaste.heads.objective import HeadObjective, Rows
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime
from tests.attacks import attacks_fixture as toy

C, D, M = 3, 4, 6


def problem() -> tuple[Rows, Rows, Tensor, Tensor]:
    z, y = toy.gaussians(60, "train", D, C)
    v, vy = toy.gaussians(50, "validation", D, C)
    scaler = Scaler.of([z])
    x = 2 * torch.randn(M, D, generator=toy.stream(3, "poison"))
    return Rows(scaler.apply(z), y), Rows(scaler.apply(v), vy), x, torch.arange(M) % C


def follower(clean: Rows, own: Rows, k: int, cg: int) -> Unrolled:
    start = torch.zeros(C, D + 1, dtype=torch.float64)
    return Unrolled(clean, own, start, C, toy.RIDGE, "cross-entropy", k, 0.5, cg)


def test_the_follower_takes_k_plain_gradient_steps() -> None:
    clean, own, x, y = problem()
    objective = follower(clean, own, 3, 16)
    objective.evaluate(x, y)
    both, labels = torch.cat([clean.x, x]).double(), torch.cat([clean.y, y])
    weight = torch.zeros(C, D + 1, dtype=torch.float64)
    for _ in range(3):
        leaf = weight.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(toy.head_loss(leaf, both, labels), leaf)
        weight = weight - 0.5 * gradient
    torch.testing.assert_close(objective.head, weight, rtol=0, atol=1e-6)
    before = objective.head
    objective.evaluate(x, y)
    assert not torch.equal(before, objective.head), "the follower goes on from where it was"


def test_hypergradient_of_a_converged_follower_is_the_finite_difference() -> None:
    clean, own, x, y = problem()
    objective = follower(clean, own, 4000, 200)
    now = objective.evaluate(x, y)
    assert now.gradient is not None and now.residuals["solve"] < 1e-3
    expected, h = torch.zeros(M, D, dtype=torch.float64), 1e-4
    best = toy.naive_head(torch.cat([clean.x, x]).double(), torch.cat([clean.y, y]), C)
    for j in range(M):
        for k in range(D):
            values = []
            for side in (h, -h):
                moved = x.double()
                moved[j, k] += side
                rows, labels = torch.cat([clean.x.double(), moved]), torch.cat([clean.y, y])
                head = toy.naive_head(rows, labels, C, best)
                values.append(float(toy.naive_leader("cross-entropy", head, own.x, own.y)))
            expected[j, k] = (values[0] - values[1]) / (2 * h)
    torch.testing.assert_close(now.gradient.double(), expected, rtol=0, atol=5e-3 * float(expected.abs().max()))


def test_conjugate_gradients_on_the_normal_equations() -> None:
    clean, _, _, _ = problem()
    objective = HeadObjective((clean,), C, 0.05)
    weight = 0.3 * torch.randn(C, D + 1, generator=toy.stream(0, "w"), dtype=torch.float64)
    right = torch.randn(C, D + 1, generator=toy.stream(0, "b"), dtype=torch.float64)
    dense = objective.curvature(weight).dense(10**6)[0]
    truth = torch.linalg.solve(dense, right.flatten()).view_as(right)
    errors = []
    for steps in (1, 4, 40):
        v, residual = normal_equations(objective.curvature(weight), right, steps)
        left = dense @ v.flatten() - right.flatten()
        assert residual == pytest.approx(float(left.norm() / right.norm()), rel=0.02, abs=2e-5)
        errors.append(float((v - truth).norm() / truth.norm()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-3
    draws = toy.stream(0, "power")
    assert largest_eigenvalue(objective.curvature(weight), draws, 200) == pytest.approx(
        float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-3
    )


@pytest.mark.parametrize("epsilon", [None, 16.0])
def test_the_generators_gradient_is_the_finite_difference_through_encoder_and_network(epsilon: float | None) -> None:
    """The public adaptation never updates its generator: here every parameter's gradient is checked."""
    images, encoder = toy.stripes(5, "base"), toy.small_encoder("convolution")
    scaler = Scaler(torch.zeros(8), torch.ones(8))
    pixels = PixelCarrier(images.pixels, encoder, scaler, epsilon, Runtime())
    carrier = GeneratorCarrier(pixels, toy.stream(0, "generator"))
    push = torch.randn(5, 8, generator=toy.stream(0, "push"))
    with torch.no_grad():
        carrier.features()
        carrier.pull(push)
    gradient = carrier.leaf.grad
    assert gradient is not None
    assert not bool((gradient == 0).all())

    def value(leaf: Tensor) -> float:
        with torch.no_grad():
            z = encoder.double()(carrier.images(leaf.float()).double())
            encoder.float()
        return float((z * push).sum())

    draws = toy.stream(0, "directions")
    for _ in range(4):
        direction = torch.randn(carrier.leaf.shape, generator=draws)
        direction /= direction.norm()
        slope = (value(carrier.leaf + 1e-2 * direction) - value(carrier.leaf - 1e-2 * direction)) / 2e-2
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.05, abs=2e-3 * float(gradient.norm()))


def test_the_generator_moves_every_tensor_and_its_images_keep_their_bounds() -> None:
    known = toy.pixel_knowledge()
    assert known.images is not None
    first = Autoencoder(toy.stream(0, "generator")).state_dict()
    again = Autoencoder(toy.stream(0, "generator")).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    made = TGDA(carrier="generator", epsilon=16, steps=4).poison(known, 12, 0)
    still = TGDA(carrier="generator", epsilon=16, steps=4, rate=1e-9).poison(known, 12, 0)
    assert made.pixels is not None and still.pixels is not None
    gap = (made.pixels.int() - known.images.pixels[made.base].int()).abs()
    assert 0 < int(gap.max()) <= 16
    assert not torch.equal(made.pixels, still.pixels), "the generator was trained"


def accuracy(known: Knowledge, z: Tensor | None = None, y: Tensor | None = None) -> float:
    return toy.judge(known, z, y, toy.gaussians(4000, "test"))


def test_scikit_learn_loses_accuracy_and_more_under_the_exact_attack() -> None:
    from foretaste.attacks.labelled.exact import Exact

    known = toy.feature_knowledge()
    made = TGDA(labels="random").poison(known, 20, 0)
    exact = Exact(leader="cross-entropy").poison(known, 20, 0)
    assert accuracy(known, made.z, made.y) < accuracy(known) - 0.03
    assert exact.ledger.objective[-1] > made.ledger.objective[-1]
