"""`exact` on pixels: the chain rule through the encoder, the ball in whole grey levels, and harm after rounding."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.exact import Exact
from foretaste.attacks.labelled.label_flip import LabelFlip
from foretaste.attacks.optimise import carriers
from foretaste.attacks.optimise.carriers import PixelCarrier
from foretaste.attacks.optimise.stackelberg import Stackelberg
from foretaste.heads.objective import Rows
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime
from tests.attacks import attacks_fixture as toy

LABELS = torch.tensor([1, 2, 0, 2])


def carrier(known: Knowledge, m: int = 4, epsilon: float | None = None) -> PixelCarrier:
    assert known.images is not None and known.encoder is not None
    return PixelCarrier(known.images.pixels[:m], known.encoder, Scaler.of([known.z]), epsilon, known.runtime)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_gradient_through_pixels_is_the_finite_difference_of_refitted_heads(kind: str) -> None:
    """In float64 from the pixel to the leader's loss; a few pixels of each image."""
    known = toy.pixel_knowledge(60, kind)
    scaler = Scaler.of([known.z])
    x, own = scaler.apply(known.z), scaler.apply(known.validation_z)
    moving = carrier(known)
    objective = Stackelberg(Rows(x, known.y), Rows(own, known.validation_y), 3, toy.RIDGE, "margin", 1e-10, 1e-7)
    with torch.no_grad():
        now = objective.evaluate(moving.features(), LABELS)
        assert now.gradient is not None
        moving.pull(now.gradient)
    found = moving.leaf.grad
    assert found is not None and known.encoder is not None

    exact = copy.deepcopy(known.encoder.body).double()
    mean, std = known.encoder.mean, known.encoder.std
    assert mean is not None and std is not None
    labels = torch.cat([known.y, LABELS])

    def value(pixels: Tensor) -> float:
        with torch.no_grad():
            z = exact((pixels - mean.double()) / std.double())
        rows = torch.cat([x.double(), (z - scaler.mean) / scaler.scale])
        head = toy.naive_head(rows, labels, 3, start)
        return float(toy.naive_leader("margin", head, own, known.validation_y))

    start = objective.head
    pixels = moving.leaf.detach().double()
    assert now.value == pytest.approx(value(pixels), rel=1e-5)
    h, size = 1e-3, float(found.abs().max())
    for place in [(0, 0, 0, 0), (0, 2, 3, 4), (1, 1, 2, 5), (2, 0, 5, 5), (3, 1, 0, 3), (3, 2, 4, 1)]:
        step = torch.zeros_like(pixels)
        step[place] = h
        expected = (value(pixels + step) - value(pixels - step)) / (2 * h)
        assert float(found[place]) == pytest.approx(expected, rel=1e-2, abs=5e-3 * size)


@pytest.mark.parametrize("room", [0, 10_000, 2**40])
def test_graphs_kept_or_computed_again_give_the_same_gradient(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    known, m = toy.pixel_knowledge(), 20
    monkeypatch.setattr(carriers, "BLOCK_PIXELS", 8 * toy.SIDE**2)
    monkeypatch.setattr(carriers, "GRAPH_BYTES", room)
    moving = carrier(known, m)
    pull = torch.randn(m, 8, generator=toy.stream(0, "pull"))
    leaf = moving.leaf.clone().requires_grad_()
    assert known.encoder is not None
    x = moving.scaler.apply(known.encoder(leaf))
    (expected,) = torch.autograd.grad((x * pull).sum(), leaf)
    for turn in (1, 2):
        with torch.no_grad():
            torch.testing.assert_close(moving.features(), x.detach())
            moving.pull(pull)
        assert moving.leaf.grad is not None
        torch.testing.assert_close(moving.leaf.grad, expected, rtol=1e-4, atol=1e-6)
        again = {0: m, 2**40: 0}.get(room)  # images whose activations were not held
        if again is None:
            assert turn * m < moving.passes < 2 * turn * m, "a part fits"
        else:
            assert moving.passes == turn * (m + again)


def test_large_images_go_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    known = toy.pixel_knowledge()
    assert known.encoder is not None
    known.encoder.body.register_forward_hook(lambda _m, rows, _o: seen.append(len(rows[0])))
    carrier(known, 200).features()
    assert seen == [128, 72]
    seen.clear()
    known.encoder.card = known.encoder.card.model_copy(update={"input_size": 224})
    monkeypatch.setattr(type(known.encoder), "forward", lambda self, images: self.body(images).float())
    carrier(known, 20).features()
    assert seen == [8, 8, 4]


@pytest.mark.parametrize("epsilon", [1.0, 8.0, 8.7, 255.0, None])
def test_ball_is_kept_in_whole_grey_levels(epsilon: float | None) -> None:
    known = toy.pixel_knowledge()
    made = Exact(carrier="pixels", epsilon=epsilon, steps=12).poison(known, 15, 0)
    assert made.pixels is not None and made.z is None and known.images is not None
    assert made.pixels.dtype == torch.uint8 and made.pixels.shape == (15, 3, toy.SIDE, toy.SIDE)
    distance = (made.pixels.int() - known.images.pixels[made.base].int()).abs()
    assert made.constraint == "pixels"
    if epsilon is None:
        assert made.limits == {} and int(distance.max()) > 100
    else:
        limit = int(epsilon)
        assert made.limits == {"epsilon": limit} and 0.5 * min(limit, 100) <= int(distance.max()) <= limit


def test_delivery_rounds_to_the_nearest_level_and_never_leaves_the_ball() -> None:
    moving = carrier(toy.pixel_knowledge(), 4, 8.7)
    base = (moving.leaf * 255).round().int()
    assert torch.equal(moving.deliver(LABELS), base.to(torch.uint8)), "what is not moved comes back as it was"
    moving.leaf += torch.where(torch.rand(base.shape, generator=toy.stream(0, "side")) < 0.5, -9.0, 9.0) / 255
    moving.project(LABELS)
    delivered = moving.deliver(LABELS).int()
    assert int((delivered - base).abs().max()) == 8 and int(delivered.min()) >= 0 and int(delivered.max()) <= 255
    kept = moving.leaf.clone()
    moving.project(LABELS)
    assert torch.equal(moving.leaf, kept)
    for part, level in ((2.4, 2), (2.6, 3)):
        moving.leaf.copy_((base + part) / 255).clamp_(0, 1)
        assert torch.equal(moving.deliver(LABELS).int(), (base + level).clamp(max=255))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scikit_learn_loses_on_embedded_grey_levels(precision: str) -> None:
    known = toy.pixel_knowledge(runtime=Runtime(precision=precision, channels_last=precision == "bfloat16"))
    assert known.encoder is not None and known.images is not None
    before = toy.fingerprint(known)
    fresh = toy.stripes(3000, "test")
    test = toy.embedded(known.encoder, fresh.pixels), fresh.labels
    m = 12
    made = Exact(carrier="pixels").poison(known, m, 0)
    assert made.pixels is not None
    assert max(made.ledger.objective) > made.ledger.objective[0] + 0.05
    clean = toy.judge(known, None, None, test)
    flip = LabelFlip().poison(known, m, 0)
    assert flip.pixels is not None
    flipped = toy.judge(known, toy.embedded(known.encoder, flip.pixels), flip.y, test)
    harmed = toy.judge(known, toy.embedded(known.encoder, made.pixels), made.y, test)
    assert clean > 0.7 and harmed < clean - 0.08 and harmed < flipped - 0.05
    assert toy.fingerprint(known) == before and known.encoder.sha256() == known.encoder.card.sha256
    assert not any(weight.requires_grad or weight.grad is not None for weight in known.encoder.parameters())
    assert made.ledger.passes == 61 * m and Exact(carrier="pixels").planned(m)[0] == 60 * m


def test_seed_decides_the_bytes() -> None:
    known = toy.pixel_knowledge()
    attack = Exact(carrier="pixels", steps=4)
    first, second, other = (toy.fingerprint_of(attack.poison(known, 9, seed)) for seed in (0, 0, 1))
    assert first == second != other


def test_images_may_repeat() -> None:
    """More poison than training images: bases come round again, and each copy moves on its own."""
    known = toy.pixel_knowledge(30)
    made = Exact(carrier="pixels", steps=3, epsilon=4).poison(replace(known), 70, 0)
    assert made.pixels is not None and len(made.pixels) == 70 and set(made.base.tolist()) == set(range(30))


def test_a_carrier_that_is_gone_leaves_no_graph_behind() -> None:
    known = toy.pixel_knowledge()
    assert known.images is not None and known.encoder is not None
    carrier = PixelCarrier(known.images.pixels[:8], known.encoder, Scaler.of([known.z]), None, known.runtime)
    carrier.features()
    gone = weakref.ref(carrier)
    del carrier
    assert gone() is None
