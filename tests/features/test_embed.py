"""`embed` against one image at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.encoders.resnet_small import resnet18_small
from foretaste.errors import EncoderError
from foretaste.features import embed as module
from foretaste.features.embed import embed
from foretaste.runtime import Runtime, stream

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
BF16 = Runtime(precision="bfloat16", channels_last=True)


def card(d: int, **facts: object) -> Card:
    return Card(name="test", architecture="test", d=d, **facts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    body = resnet18_small(4)
    draws = stream(0, "weights")
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.2)
    return Encoder(body, card(32, mean=MEAN, std=STD, input_size=8))


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(0, 256, (37, 3, 12, 12), dtype=torch.uint8, generator=stream(0, "pixels"))


class Flat(nn.Module):
    """The pixels themselves, with a chance to interfere."""

    def __init__(self, act: Callable[[Tensor], Tensor] = lambda z: z) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x.flatten(1))


def test_batches_give_what_single_images_give(encoder: Encoder, pixels: Tensor) -> None:
    z = embed(encoder, pixels, Runtime(), batch=8)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    for row, image in enumerate(pixels):
        x = nn.functional.interpolate((image / 255)[None], size=(8, 8), mode="bilinear", align_corners=False)
        torch.testing.assert_close(z[row], encoder.body((x - mean) / std)[0], rtol=1e-4, atol=1e-5)


def test_every_row_lands_in_its_place_across_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 3)
    pixels = torch.randint(0, 256, (29, 3, 2, 2), dtype=torch.uint8, generator=stream(1, "pixels"))
    seen: list[tuple[int, int]] = []
    z = embed(Encoder(Flat(), card(12)), pixels, Runtime(), batch=4, progress=lambda *step: seen.append(step))
    assert torch.equal(z, pixels.flatten(1) / 255)
    assert seen == [(min(done, 29), 29) for done in range(4, 33, 4)]


@pytest.mark.parametrize("runtime", [Runtime(), Runtime(channels_last=True), BF16], ids=str)
def test_same_bytes_again_and_the_encoder_untouched(encoder: Encoder, pixels: Tensor, runtime: Runtime) -> None:
    before, strides = encoder.sha256(), [p.stride() for p in encoder.parameters()]
    first, second = (embed(encoder, pixels, runtime, batch=16) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32 and first.device.type == "cpu"
    assert encoder.sha256() == before and [p.stride() for p in encoder.parameters()] == strides


def test_bfloat16_is_near_float32_and_really_used(encoder: Encoder, pixels: Tensor) -> None:
    exact, rough = embed(encoder, pixels, Runtime()), embed(encoder, pixels, BF16)
    gap = ((rough - exact).norm() / exact.norm()).item()
    assert 1e-5 < gap < 0.03, "bfloat16 keeps 8 bits: a relative step of 0.4 % per operation"
    assert nn.functional.cosine_similarity(exact, rough).mean() > 0.999


def test_features_take_part_in_autograd(encoder: Encoder, pixels: Tensor) -> None:
    weight = torch.ones(32, requires_grad=True)
    z = embed(encoder, pixels, Runtime())
    (z @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, z.sum(0))


def test_no_image_gives_no_row(encoder: Encoder, pixels: Tensor) -> None:
    assert embed(encoder, pixels[:0], Runtime()).shape == (0, 32)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_name_the_image(bad: float) -> None:
    def spoil(z: Tensor) -> Tensor:
        z[z[:, 0] > 0.9, 5] = bad
        return z

    pixels = torch.zeros(9, 3, 2, 2, dtype=torch.uint8)
    pixels[7] = 255
    with pytest.raises(EncoderError, match="image 7 of 9 in float32"):
        embed(Encoder(Flat(spoil), card(12)), pixels, Runtime(), batch=4)


def test_a_wrong_width_or_a_failing_network_is_an_encoder_error(pixels: Tensor) -> None:
    with pytest.raises(EncoderError, match=r"features \[37, 5\]; got \[37, 432\]"):
        embed(Encoder(Flat(), card(5)), pixels, Runtime())
    with pytest.raises(EncoderError, match=r"images \[37, 3, 12, 12\]; got .*mat1 and mat2"):
        embed(Encoder(Flat(nn.Linear(7, 5)), card(5)), pixels, Runtime())
