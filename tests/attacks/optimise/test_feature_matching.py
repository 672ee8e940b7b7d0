"""Images for features: feature matching against closed forms, the ledger against numpy and scikit-image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor, nn

from foretaste.attacks.base import part
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.exact import Exact
from foretaste.attacks.optimise import carriers, feature_matching
from foretaste.attacks.optimise.feature_matching import FeatureMatching, nearest_bases
from foretaste.attacks.optimise.inversion import structural_similarity
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.errors import AttackError, SpecError
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime
from tests.attacks import attacks_fixture as toy

M = 6


def linear_encoder(d: int = 8) -> Encoder:
    """z = A u on pixels in [0, 1], without normalisation or bias."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * toy.SIDE**2, d, bias=False))
    with torch.no_grad():
        body[1].weight.copy_(torch.randn(d, 3 * toy.SIDE**2, generator=toy.stream(0, "A")) / 10)
    return Encoder(body, Card(name="linear", architecture="tests", d=d))


def problem(kind: str = "convolution", n: int = 120) -> tuple[Knowledge, Scaler, Tensor, Tensor]:
    """What is known, the scaler, base rows, and the features of other images as goals: those can be reached."""
    known = toy.pixel_knowledge(n, kind)
    goal = toy.embedded(encoder_of(known), toy.stripes(M, "goal").pixels.flip(0))
    return known, Scaler.of([known.z]), torch.arange(10, 10 + M), goal


def encoder_of(known: Knowledge) -> Encoder:
    assert known.encoder is not None
    return known.encoder


def pixels_of(known: Knowledge) -> Tensor:
    assert known.images is not None
    return known.images.pixels


def match(known: Knowledge, scaler: Scaler, own: Tensor, z: Tensor, **fields: Any) -> feature_matching.Inversion:
    way = FeatureMatching(**fields)
    candidates = nearest_bases(scaler.apply(z), scaler.apply(known.z), own, way.bases)
    return way.invert(encoder_of(known), z, pixels_of(known), candidates, scaler, known.runtime)


def distances(known: Knowledge, scaler: Scaler, pixels: Tensor, z: Tensor) -> np.ndarray:
    """In float64, by hand."""
    gap = (toy.as_numpy(toy.embedded(encoder_of(known), pixels)) - toy.as_numpy(z)) / toy.as_numpy(scaler.scale)
    return np.sqrt((gap**2).sum(1))


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_features_of_another_image_are_reached(kind: str) -> None:
    known, scaler, own, z = problem(kind)
    before = distances(known, scaler, pixels_of(known)[own], z)
    found = match(known, scaler, own, z, bases=1, steps=200)
    assert before.min() > 1
    after = distances(known, scaler, found.pixels, z)
    assert (after < 0.03 * before).all()
    np.testing.assert_allclose(found.distance.numpy(), after, rtol=1e-3, atol=1e-5)
    assert found.pixels.dtype == torch.uint8 and torch.equal(found.base, own)


@pytest.mark.parametrize("beta", [0.03, 1.0, 30.0])
def test_minimum_with_beta_is_that_of_the_normal_equations(beta: float) -> None:
    """For z = A u the objective is a quadratic, and its minimum is inside [0, 1] here; what is delivered is rounded."""
    known = toy.pixel_knowledge(120)
    encoder = linear_encoder()
    grey = (pixels_of(known).float() * 0.5 + 64).to(torch.uint8)
    z = toy.embedded(encoder, grey)
    scaler, own, goal = Scaler.of([z]), torch.arange(10, 10 + M), z[30 : 30 + M]
    found = FeatureMatching(bases=1, beta=beta, steps=400, rate=0.02).invert(
        encoder, goal, grey, own[:, None], scaler, Runtime()
    )
    a = toy.as_numpy(encoder.body[1].weight) / toy.as_numpy(scaler.scale)[:, None]
    base = grey[own].flatten(1).double().numpy() / 255
    gap = toy.as_numpy(goal) / toy.as_numpy(scaler.scale) - base @ a.T
    d, p = a.shape
    step = np.linalg.solve(a.T @ a / d + beta / p * np.eye(p), a.T @ gap.T / d).T
    assert (base + step).min() > 0 and (base + step).max() < 1

    def value(move: np.ndarray) -> np.ndarray:
        return ((gap - move @ a.T) ** 2).mean(1) + beta * (move**2).mean(1)

    reached = found.pixels.flatten(1).numpy() / 255 - base
    assert (value(reached) < value(step) + 0.01 * value(0 * step)).all() and (value(step) < 0.9 * value(0 * step)).all()
    if beta > 10:  # else the valley is flat, and many images are as good
        np.testing.assert_allclose(reached, step, atol=1.5 / 255)
        assert np.abs(step).max() > 0.02, "there is something to find"


@pytest.mark.parametrize("epsilon", [1.0, 8.0, 8.7, None])
def test_ball_is_kept_in_whole_grey_levels(epsilon: float | None) -> None:
    known, scaler, own, z = problem()
    found = match(known, scaler, own, z, bases=3, steps=30, epsilon=epsilon)
    furthest = int((found.pixels.int() - pixels_of(known)[found.base].int()).abs().max())
    assert furthest > 30 if epsilon is None else furthest == int(epsilon)


def test_first_step_is_along_the_finite_difference_of_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    known, scaler, own, z = problem()
    seen: list[Tensor] = []

    class Spy(feature_matching.Adam):
        def step(self) -> None:
            assert self.leaf.grad is not None
            seen.append(torch.stack([self.leaf.clone(), self.leaf.grad]))
            super().step()

    monkeypatch.setattr(feature_matching, "Adam", Spy)
    match(known, scaler, own, z, bases=1, steps=8, beta=5.0)
    leaf, gradient = seen[5].double()  # away from the base, so that beta has a say
    encoder = encoder_of(known)
    base, goal = pixels_of(known)[own].double() / 255, scaler.apply(z).double()
    assert encoder.mean is not None and encoder.std is not None
    exact = encoder.body.double()

    def value(u: Tensor) -> float:
        with torch.no_grad():
            features = exact((u - encoder.mean.double()) / encoder.std.double())
        x = (features - scaler.mean) / scaler.scale
        return float((x - goal).square().mean(1).sum() + 5 * (u - base).square().flatten(1).mean(1).sum())

    for place in [(0, 0, 0, 0), (1, 2, 3, 4), (2, 1, 5, 5), (5, 0, 2, 1)]:
        h = torch.zeros_like(leaf)
        h[place] = 1e-4
        expected = (value(leaf + h) - value(leaf - h)) / 2e-4
        assert float(gradient[place]) == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("epsilon", [8.0, None])
def test_more_bases_are_never_worse(epsilon: float | None) -> None:
    known, scaler, own, _ = problem()
    z = known.z.amax(0) * torch.rand(M, 8, generator=toy.stream(1, "far"))
    single = match(known, scaler, own, z, bases=1, steps=20, epsilon=epsilon)
    several = match(known, scaler, own, z, bases=5, steps=20, epsilon=epsilon)
    assert bool((several.distance <= single.distance * (1 + 1e-4)).all())
    assert float(several.distance.mean()) < 0.98 * float(single.distance.mean())
    assert bool((several.base != own).any())


def test_candidates_are_the_own_row_and_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(50, 4, generator=toy.stream(0, "x"))
    goal, own = torch.randn(9, 4, generator=toy.stream(0, "g")), torch.arange(9) * 5
    goal[0] = x[0]  # its own row is the nearest: it must not come twice
    expected = []
    for wanted, row in zip(goal.numpy(), own.tolist(), strict=True):
        order = np.argsort(((x.numpy() - wanted) ** 2).sum(1)).tolist()
        order.remove(row)
        expected.append([row, *order[:3]])
    assert nearest_bases(goal, x, own, 4).tolist() == expected
    monkeypatch.setattr(feature_matching, "DISTANCES", 100)
    assert nearest_bases(goal, x, own, 4).tolist() == expected
    assert nearest_bases(goal, x, own, 1).tolist() == own[:, None].tolist()
    assert sorted(nearest_bases(goal, x, own, 99)[3].tolist()) == list(range(50))


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    known, scaler, _, _ = problem()
    own, z = torch.arange(20), known.z[40:60]
    seen: list[tuple[int, int]] = []
    whole = match(known, scaler, own, z, bases=3, steps=6, restarts=1)
    monkeypatch.setattr(carriers, "BLOCK_PIXELS", 8 * toy.SIDE**2)
    way = FeatureMatching(bases=3, steps=6, restarts=1)
    candidates = nearest_bases(scaler.apply(z), scaler.apply(known.z), own, 3)
    blocks = way.invert(
        encoder_of(known), z, pixels_of(known), candidates, scaler, known.runtime, lambda *at: seen.append(at)
    )
    assert torch.equal(whole.base, blocks.base) and whole.passes == blocks.passes
    assert int((whole.pixels.int() - blocks.pixels.int()).abs().max()) <= 1
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]
    assert way.planned * 20 <= whole.passes <= 2 * way.planned * 20


def test_progress_of_a_part() -> None:
    seen: list[tuple[int, int]] = []
    inner = part(part(lambda *at: seen.append(at), 0.5, 1), 0.5, 1)
    inner(0, 7), inner(7, 7)
    assert seen == [(750, 1000), (1000, 1000)]


def test_features_that_are_not_finite() -> None:
    known, scaler, own, z = problem()
    z[2, 3] = torch.inf
    with pytest.raises(AttackError, match=r"matching: finite features; got NaN or infinity; lower --inversion-rate"):
        match(known, scaler, own, z, bases=1, steps=2)


@pytest.mark.parametrize("shape", [(5, 3, 6, 6), (300, 3, 9, 8), (4, 3, 3, 20)])
def test_similarity_is_that_of_scikit_image_pair_by_pair(shape: tuple[int, ...]) -> None:
    draws = toy.stream(0, "pairs")
    one = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)
    other = (one.int() + torch.randint(-40, 41, shape, generator=draws)).clamp(0, 255).to(torch.uint8)
    other[0] = one[0]
    side = min(7, *(length if length % 2 else length - 1 for length in shape[2:]))
    expected = [
        skimage_ssim(a.numpy(), b.numpy(), channel_axis=0, data_range=255, win_size=side)
        for a, b in zip(one, other, strict=True)
    ]
    found = structural_similarity(one, other)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert float(found[0]) == pytest.approx(1) and float(found[1:].max()) < 0.999


WAYS = [
    {"inversion": "matching", "bases": 3, "inversion_steps": 20},
    {"inversion": "matching", "epsilon": 8, "beta": 0.1, "inversion_steps": 10, "inversion_restarts": 1},
    {"inversion": "decoder", "inversion_steps": 30},
    {"inversion": "decoder", "epsilon": 8, "decoder": "linear", "inversion_steps": 30},
]


@pytest.mark.parametrize("fields", WAYS, ids=str)
def test_ledger_is_what_numpy_finds(fields: dict[str, Any]) -> None:
    known, m = toy.pixel_knowledge(), 12
    made = Exact(carrier="pixels", steps=6, **fields).poison(known, m, 0)
    plain = Exact(steps=6).poison(known, m, 0)
    assert made.z is None and made.pixels is not None and plain.z is not None
    assert torch.equal(made.y, plain.y) and made.ledger.objective == plain.ledger.objective
    assert made.constraint == "pixels" and made.ledger.changed == sorted(set(made.base.tolist()))
    if fields["inversion"] == "decoder":
        assert torch.equal(made.base, plain.base)
    scaler, base = Scaler.of([known.z]), pixels_of(known)[made.base]
    moved = made.pixels.numpy().astype(float) - base.numpy().astype(float)
    goal = distances(known, scaler, base, plain.z)
    expected = {
        "feature_distance": (found := distances(known, scaler, made.pixels, plain.z)),
        "relative_distance": found / goal,
        "linf": np.abs(moved).max((1, 2, 3)),
        "l2": np.sqrt(((moved / 255) ** 2).sum((1, 2, 3))),
        "ssim": [
            skimage_ssim(a.numpy(), b.numpy(), channel_axis=0, data_range=255, win_size=5)
            for a, b in zip(made.pixels, base, strict=True)
        ],
    }
    assert set(made.ledger.per_row) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(made.ledger.per_row[name], values, rtol=2e-3, atol=1e-4)
        assert made.ledger.figures[f"median_{name}"] == pytest.approx(np.median(values), rel=2e-3, abs=1e-4)
    if "epsilon" in fields:
        assert made.limits == {"epsilon": 8} and np.abs(moved).max() <= 8
    assert all(len(f"{value:g}".lstrip("0.").replace(".", "")) <= 4 for value in made.ledger.per_row["l2"])


def test_features_are_made_inside_their_own_constraint() -> None:
    known = toy.pixel_knowledge()
    made = Exact(carrier="pixels", inversion="matching", constraint="ball", quantile=0.5, steps=4, inversion_steps=4)
    assert made.variant.startswith("pixels, [0, 1], by matching, constraint ball, quantile 0.5")
    inside = made.carry(known, Scaler.of([known.z]), torch.arange(5))
    y = known.y[:5]
    inside.project(y)
    ball = [Scaler.of([known.z[known.y == c]]).mean for c in y.tolist()]
    for row, centre, label in zip(inside.deliver(y), ball, y.tolist(), strict=True):
        radius = (known.z[known.y == label] - centre).norm(dim=1).quantile(0.5)
        assert float((row - centre).norm()) <= float(radius) * 1.0001
    assert made.poison(known, 5, 0).constraint == "pixels"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inversion": "matching"}, "it needs carrier pixels"),
        ({"carrier": "pixels", "bases": 2}, "bases is a field of inversion matching"),
        ({"carrier": "pixels", "inversion": "decoder", "beta": 1.0}, "beta is a field of inversion matching"),
        ({"carrier": "pixels", "inversion": "matching", "decoder": "linear"}, "decoder is a field of inversion dec"),
        ({"carrier": "pixels", "inversion_steps": 3}, "inversion_steps is a field of inversion matching or decoder"),
        ({"carrier": "pixels", "inversion": "decoder", "decoder_weight": 1}, "a field of decoder_loss feature"),
        ({"carrier": "pixels", "constraint": "none"}, "always inside the box"),
    ],
    ids=str,
)
def test_fields_that_would_be_ignored_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Exact.configure(**fields)


def test_features_alone_cannot_be_inverted() -> None:
    with pytest.raises(SpecError, match="exact with carrier pixels: images and an encoder"):
        Exact(carrier="pixels", inversion="decoder").poison(replace(toy.feature_knowledge(60)), 4, 0)
