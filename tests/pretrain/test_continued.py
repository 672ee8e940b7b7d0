from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from foretaste.encoders.base import Encoder
from foretaste.encoders.build import repeatable_initialisation
from foretaste.encoders.card import Card
from foretaste.encoders.resnet_small import resnet18_small
from foretaste.errors import DataError, EncoderError, SpecError
from foretaste.images import Images
from foretaste.pretrain.continued import continued
from foretaste.pretrain.simclr import SimCLR
from foretaste.pretrain.views import Views
from foretaste.runtime import Runtime, digest_tensors, stream
from tests.pretrain.test_simclr import naive_nt_xent

STILL = Views(scale=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0)
TINY = SimCLR(epochs=2, batch=8, hidden=16, projection=8, lr=0.05, warmup=0.0)


def noise(n: int = 20, side: int = 8) -> Images:
    pixels = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=stream(0, "noise"))
    return Images(pixels, torch.arange(n) % 2, ("a", "b"), "noise")


def small(**card: object) -> Encoder:
    with repeatable_initialisation(0):
        body = resnet18_small(2)
    facts = {"mean": (0.3, 0.4, 0.6), "std": (0.5, 0.2, 0.1), "input_size": 8, "source": "made here", "licence": "MIT"}
    return Encoder(body, Card(name="small", architecture="resnet18-small", d=16, command="make", **{**facts, **card}))


def test_a_new_encoder_comes_back_and_the_given_one_stays() -> None:
    encoder, images, before = small(), noise(), torch.get_rng_state()
    card = encoder.card
    first, same, other = (continued(encoder, images, TINY, seed, Runtime()) for seed in (0, 0, 1))
    assert encoder.sha256() == encoder.card.sha256 == card.sha256 and encoder.card == card
    assert not encoder.body.training and not any(weight.requires_grad for weight in encoder.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert first.sha256() == first.card.sha256 == same.sha256() != other.sha256()
    assert card.sha256 != first.sha256()
    assert not any(module.training for module in first.modules())
    assert not any(weight.requires_grad for weight in first.parameters())
    assert first.card.source.startswith("made here; then simclr on noise (20 images, sha256 ")
    assert first.card.source.endswith(f"2 epochs, seed 0, loss {float(first.card.source.split()[-1]):.3f}")
    unchanged = {"sha256", "source", "command"}
    assert first.card.model_dump(exclude=unchanged) == card.model_dump(exclude=unchanged)
    moved = [
        name for name, value in first.body.state_dict().items() if not value.equal(encoder.body.state_dict()[name])
    ]
    assert any("running_mean" in name for name in moved) and any("conv" in name for name in moved)


@pytest.mark.parametrize("own", [True, False], ids=["normalised", "raw"])
def test_one_step_is_gradient_descent_by_hand_behind_the_encoders_own_input(own: bool) -> None:
    encoder = small() if own else small(mean=None, std=None)
    images = noise(6, 16)  # the encoder's input is 8x8: it resizes them
    method = TINY.model_copy(update={"epochs": 1, "weight_decay": 0.0, "views": STILL})
    after = continued(encoder, images, method, 0, Runtime())

    x = images.pixels.numpy().reshape(6, 3, 8, 2, 8, 2).mean((3, 5)) / 255  # bilinear at half the size: means of four
    if own:
        mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (encoder.card.mean, encoder.card.std))
        x = (x - mean) / std
    network = method._network(encoder.body, 8, 0)  # the projection's first weights are not known otherwise
    z = network(torch.from_numpy(np.concatenate([x, x])).float())
    naive_nt_xent(z[:6], z[6:], method.temperature).backward()
    for name, weight in network[0].named_parameters():
        expected = weight - method.lr * weight.grad
        torch.testing.assert_close(after.body.state_dict()[name], expected.detach(), rtol=1e-3, atol=1e-5)
    for name, value in network[0].named_buffers():
        torch.testing.assert_close(after.body.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_the_loss_falls_from_where_the_encoder_was() -> None:
    losses: list[float] = []
    method = TINY.model_copy(update={"epochs": 30, "batch": 16, "views": STILL.model_copy(update={"flip": 0.5})})
    continued(small(), noise(32), method, 0, Runtime(), lambda done, total, loss: losses.append(loss))
    assert len(losses) == 60
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.3


def test_views_have_the_size_of_the_encoders_input() -> None:
    sizes: list[int] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(x.shape[-1])
            return self.layer(x.mean((2, 3)))

    for asked, own, expected in ((None, 10, 10), (None, None, 8), (12, None, 12), (10, 10, 10)):
        sizes.clear()
        encoder = Encoder(Watching(), Card(name="watching", architecture="tests", d=4, input_size=own))
        continued(encoder, noise(), TINY.model_copy(update={"size": asked}), 0, Runtime())
        assert set(sizes) == {expected}


def test_what_cannot_be_continued_is_a_clear_error() -> None:
    encoder = small()
    with pytest.raises(SpecError, match=r"size: 8, the encoder's own input size, or none; got 16; leave it out"):
        continued(encoder, noise(), TINY.model_copy(update={"size": 16}), 0, Runtime())
    frozen = Encoder(nn.Flatten(), Card(name="pixels", architecture="tests", d=192))
    with pytest.raises(EncoderError, match="pixels: an encoder with weights to train; got no parameter"):
        continued(frozen, noise(), TINY, 0, Runtime())
    flat = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 4)), Card(name="flat", architecture="tests", d=4))
    with pytest.raises(EncoderError, match="flat: an encoder that takes images of 8x8; got RuntimeError"):
        continued(flat, noise(), TINY, 0, Runtime())
    with pytest.raises(DataError, match="at least two images"):
        continued(encoder, noise(1), TINY, 0, Runtime())
    with pytest.raises(EncoderError, match="finite loss in epoch 1"):
        continued(encoder, noise(), TINY.model_copy(update={"lr": 1e30}), 0, Runtime())
    assert digest_tensors(encoder.body.state_dict()) == encoder.card.sha256
