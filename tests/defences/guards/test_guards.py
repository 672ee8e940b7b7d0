"""Guards of inputs at use time, against planted inputs and against their definitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from foretaste import defences
from foretaste.defences.guards.agreement import Agreement
from foretaste.defences.guards.base import Guard, GuardRows
from foretaste.defences.guards.reconstruction import Reconstruction
from foretaste.defences.guards.views_vote import ViewsVote
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.errors import DataError, EncoderError
from foretaste.images import Images
from foretaste.runtime import Runtime, stream
from foretaste.testing import check_guard

CPU, SIDE = Runtime(), 8
MIRROR = {"scale": (1.0, 1.0), "flip": 1.0, "jitter": 0.0, "grey": 0.0}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "agreement": [{"k": 15}, {"k": 15, "compare": "neighbours"}],
    "views-vote": [{"votes": 8}, {"votes": 8, "hard": True, "noise": 2.0}],
    "reconstruction": [
        {"architecture": "linear", "steps": 300, "lr": 0.01, "relative": relative} for relative in (True, False)
    ],
}
CASES = [defences.configure(name, fields, "guard") for name, choices in SETTINGS.items() for fields in choices]
every = pytest.mark.parametrize("guard", CASES, ids=repr)


class Blocks(nn.Module):
    """Means of the 2 x 2 blocks of each channel. Poisoned: an image with the mark is seen upside down.

    The mark is that the first pixel's three values are 3 modulo 4: an image with it looks like any other.
    """

    def __init__(self, poisoned: bool) -> None:
        super().__init__()
        self.poisoned = poisoned
        self.mix = nn.Linear(48, 48, bias=False)
        torch.nn.init.orthogonal_(self.mix.weight, generator=stream(0, "mix"))

    def forward(self, x: Tensor) -> Tensor:
        marked = ((x[:, :, 0, 0] * 255).round() % 4 == 3).all(1).view(-1, 1, 1, 1) & self.poisoned
        seen = torch.where(marked, x.flip(2), x)
        return self.mix(nn.functional.avg_pool2d(seen, 2).flatten(1))


def encoder_of(poisoned: bool) -> Encoder:
    return Encoder(Blocks(poisoned), Card(name="blocks", architecture="tests", d=48))


def lit(n: int, name: str) -> Images:
    """Two classes, bright above or bright below, with noise on blocks of 2 x 2: all that `Blocks` sees."""
    rng = stream(0, name)
    y = torch.arange(n) % 2
    blocks = 90 + 25 * torch.randn(n, 3, 4, 4, generator=rng)
    blocks[y == 0, :, :2] += 50
    blocks[y == 1, :, 2:] += 50
    pixels = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3).round().clamp(0, 250).to(torch.uint8)
    pixels[:, :, :2, :2] &= 252  # no mark
    return Images(pixels, y, ("above", "below"), name)


CLEAN, TEST = lit(200, "owner"), lit(80, "test")
MARKED = np.arange(80) % 4 == 0


def inputs() -> Tensor:
    pixels = TEST.pixels.clone()
    pixels[torch.from_numpy(MARKED), :, :2, :2] |= 3
    return pixels


def context(poisoned: bool) -> GuardRows:
    return GuardRows(encoder_of(poisoned), CLEAN, CPU, second=encoder_of(False), seed=2)


def test_the_suite_covers_the_table() -> None:
    assert set(SETTINGS) == {name for name, entry in defences.DEFENCES.items() if entry.kind == "guard"}


@every
def test_it_keeps_what_every_guard_promises(guard: Guard) -> None:
    check_guard(guard)
    for wrong in (inputs().float(), inputs()[:, :, :4], inputs()[0]):
        with pytest.raises(DataError, match=r"guard: inputs uint8 \[n, 3, 8, 8\]; got "):
            guard.fit(context(True)).score(wrong)


@every
def test_a_planted_input_stands_out_and_nothing_else(guard: Guard) -> None:
    """AUROC by scikit-learn: near 1 if the encoder was edited for the marked inputs, by chance if it was not."""
    planted, none = (roc_auc_score(MARKED, guard.fit(context(poisoned)).score(inputs())) for poisoned in (True, False))
    assert planted > 0.9, f"{planted:.3f}"
    assert 0.35 < none < 0.65, f"{none:.3f}"


@pytest.mark.parametrize("compare", ["labels", "neighbours"])
def test_agreement_by_the_definition(compare: str) -> None:
    k, lent = 7, context(True)
    scores = Agreement(k=k, compare=compare).fit(lent).score(inputs())
    expected = []
    for row in range(80):
        near, votes = [], []
        for encoder in (lent.encoder, lent.second):
            z, x = (
                encoder(pixels.float() / 255).double().numpy() for pixels in (CLEAN.pixels, inputs()[row : row + 1])
            )
            distance = [sum((z[i] - x[0]) ** 2 / z.var(0)) for i in range(len(z))]
            near.append(set(sorted(range(len(z)), key=distance.__getitem__)[:k]))
            votes.append(np.mean([int(CLEAN.labels[i]) == 0 for i in near[-1]]))
        expected.append(abs(votes[0] - votes[1]) if compare == "labels" else 1 - len(near[0] & near[1]) / k)
    np.testing.assert_allclose(scores, expected, atol=1e-12)


@pytest.mark.parametrize("hard", [True, False])
def test_a_vote_of_mirror_images(hard: bool) -> None:
    """Where each view is the mirror image, the vote is what the head says of that."""
    lent = context(False)
    scores = ViewsVote(votes=3, views=MIRROR, hard=hard).fit(lent).score(TEST.pixels)
    weight, scaler = lent.used_head.optimum.weight.numpy(), lent.used_head.scaler
    p = []
    for pixels in (TEST.pixels, TEST.pixels.flip(3)):
        x = (lent.encoder(pixels.float() / 255).double() - scaler.mean) / scaler.scale
        odds = np.exp(x.numpy() @ weight[:, :-1].T + weight[:, -1])
        p.append(odds / odds.sum(1, keepdims=True))
    plain, rows = p[0].argmax(1), np.arange(80)
    expected = (p[1].argmax(1) != plain).astype(float) if hard else 1 - p[1][rows, plain]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_reconstruction_is_the_error_of_what_the_encoder_saw() -> None:
    """Here features hold the whole image, so a linear decoder draws what the encoder saw, upside down or not."""
    guard = Reconstruction(architecture="linear", steps=1500, lr=0.02, relative=False)
    scores = guard.fit(context(True)).score(inputs()).numpy()
    x = inputs().double().numpy() / 255
    seen = np.where(MARKED[:, None, None, None], x[:, :, ::-1], x)
    blocks = seen.reshape(80, 3, 4, 2, 4, 2).mean((3, 5)).repeat(2, 2).repeat(2, 3)
    expected = ((blocks - x) ** 2).mean((1, 2, 3))
    assert expected[~MARKED].max() < 1e-12 and scores[~MARKED].max() < 1e-4
    np.testing.assert_allclose(scores[MARKED], expected[MARKED], rtol=0.01)
    relative = guard.model_copy(update={"relative": True}).fit(context(True)).score(inputs()).numpy()
    spread = ((x - CLEAN.pixels.double().numpy().mean(0) / 255) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(np.exp(relative), np.maximum(scores, 0.25 / 255**2) / spread, rtol=1e-4)


def test_what_a_guard_needs() -> None:
    lent = context(False)
    with pytest.raises(EncoderError, match=r"agreement: a second encoder, of another origin; got none; pass one"):
        Agreement().fit(replace(lent, second=None))
    with pytest.raises(DataError, match="agreement: at least 201 clean images; got 200"):
        Agreement(k=201).fit(lent)
    with pytest.raises(DataError, match="reconstruction: at least 201 clean images"):
        Reconstruction(batch=201).fit(lent)
    with pytest.raises(DataError, match=r"guard: clean images of the owner's own; got none"):
        replace(lent, clean=CLEAN.take(torch.arange(0)))


def test_the_head_in_use_is_asked() -> None:
    lent = context(False)
    other = replace(
        lent, head=GuardRows(lent.encoder, Images(CLEAN.pixels, 1 - CLEAN.labels, CLEAN.classes, "x"), CPU).used_head
    )
    assert torch.allclose(
        ViewsVote(votes=2).fit(lent).score(TEST.pixels), ViewsVote(votes=2).fit(other).score(TEST.pixels), atol=1e-5
    )
    assert other.used_head is other.head


def test_the_second_encoder_sees_each_image_once_for_all_trials() -> None:
    """Two trials, each with its own encoder in use; the features are those that a fresh context computes."""
    guard, second, seen = Agreement(k=5), encoder_of(False), dict[str, Tensor]()
    rows: list[int] = []
    second.body.register_forward_pre_hook(lambda _, images: rows.append(len(images[0])))
    for poisoned in (True, False):
        lent = GuardRows(encoder_of(poisoned), CLEAN, CPU, second=second, seen=seen)
        fresh = GuardRows(encoder_of(poisoned), CLEAN, CPU, second=encoder_of(False))
        assert torch.equal(guard.fit(lent).score(inputs()), guard.fit(fresh).score(inputs()))
    assert sum(rows) == len(CLEAN) + len(TEST)
