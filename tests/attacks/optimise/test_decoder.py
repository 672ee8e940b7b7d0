"""The decoder: planted images come back, the cache is used and distrusted, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.exact import Exact
from foretaste.attacks.optimise import decoder as module
from foretaste.attacks.optimise.decoder import Decoded, Decoder, Network
from foretaste.attacks.optimise.inversion import Inversion
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.errors import AttackError, EncoderError, SpecError
from foretaste.features.cache import FeatureCache
from foretaste.heads.scaler import Scaler
from foretaste.images import Images
from foretaste.runtime import Runtime, digest_tensors
from tests.attacks import attacks_fixture as toy

SIDE, CODES = 8, 5


@pytest.fixture(autouse=True)
def no_decoder_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_trained", {})


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Decoder]:
    """Every training from now on."""
    seen: list[Decoder] = []
    train = Decoder._train

    def spy(self: Decoder, *arguments: Any) -> tuple[float, float]:
        seen.append(self)
        return train(self, *arguments)

    monkeypatch.setattr(Decoder, "_train", spy)
    return seen


def planted(n: int = 400) -> tuple[Encoder, Images, Tensor]:
    """Images that are linear in 5 codes, and an encoder that reads those codes off: it can be inverted exactly."""
    patterns = torch.randn(CODES, 3, SIDE // 2, SIDE // 2, generator=toy.stream(0, "patterns"))
    patterns = nn.functional.interpolate(patterns, scale_factor=2, mode="bilinear").flatten(1)
    codes = torch.rand(n, CODES, generator=toy.stream(0, "codes")) - 0.5
    pixels = (0.5 + 0.2 * codes @ patterns).clamp(0, 1).mul(255).round().to(torch.uint8).view(n, 3, SIDE, SIDE)
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, CODES, bias=False))
    with torch.no_grad():
        body[1].weight.copy_(torch.linalg.pinv(0.2 * patterns).T)
    encoder = Encoder(body, Card(name="codes", architecture="tests", d=CODES))
    images = Images(pixels, torch.zeros(n, dtype=torch.int64), ("a", "b"), "planted")
    return encoder, images, toy.embedded(encoder, pixels)


def train(way: Decoder, cache: FeatureCache | None = None) -> Decoded:
    encoder, images, z = planted()
    return way.trained(encoder, images, z, Scaler.of([z]), Runtime(), cache or FeatureCache())


def invert(way: Decoder, **fields: Any) -> tuple[Inversion, Images, Tensor]:
    encoder, images, z = planted()
    base = torch.arange(7)
    found = way.invert(encoder, z[100:107], images, z, base, Scaler.of([z]), Runtime(), **fields)
    return found, images, z


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({"architecture": "linear", "steps": 400, "rate": 0.01}, 0.05),
        ({"architecture": "linear", "loss": "feature", "steps": 400, "rate": 0.01}, 0.05),
        ({"steps": 400}, 0.3),
    ],
    ids=str,
)
def test_planted_images_come_back(fields: dict[str, Any], share: float) -> None:
    way = Decoder(**fields)
    made = train(way)
    assert made.error < share * made.mean_error
    found, images, z = invert(way)
    real = images.pixels[100:107].numpy() / 255
    mean = images.pixels.numpy().mean(0) / 255
    error, mean_error = (np.sqrt(((guess - real) ** 2).mean()) for guess in (found.pixels.numpy() / 255, mean))
    assert error < 1.3 * share * mean_error
    assert found.figures == {"decoder_error": made.error, "mean_image_error": made.mean_error}
    assert made.mean_error == pytest.approx(mean_error, rel=0.3)
    encoder = planted()[0]
    gap = (toy.embedded(encoder, found.pixels) - z[100:107]) / Scaler.of([z]).scale
    np.testing.assert_allclose(found.distance.numpy(), gap.norm(dim=1), rtol=1e-3)
    assert found.pixels.dtype == torch.uint8 and torch.equal(found.base, torch.arange(7))


def test_errors_are_those_of_rows_that_training_never_saw() -> None:
    """With features shuffled between images there is nothing to learn, though 36 of them can be learnt by heart."""
    encoder, images, z = planted(40)
    shuffled = z[torch.randperm(40, generator=toy.stream(0, "shuffle"))]
    made = Decoder(steps=150).trained(encoder, images, shuffled, Scaler.of([z]), Runtime(), FeatureCache())
    assert made.error > 0.95 * made.mean_error


def test_feature_loss_brings_features_closer() -> None:
    pixel, feature = (
        invert(Decoder(steps=150, loss=loss, weight=0.3))[0].distance.mean() for loss in ("pixel", "feature")
    )
    assert float(feature) < 0.9 * float(pixel)


def test_decoded_images_are_clipped_to_the_ball() -> None:
    way = Decoder(architecture="linear", steps=60)
    free, images, _ = invert(way)
    near, _, _ = invert(way, epsilon=8.7)
    base = images.pixels[near.base].int()
    expected = free.pixels.int().clamp(base - 8, base + 8)
    assert torch.equal(near.pixels.int(), expected) and int((free.pixels.int() - base).abs().max()) > 40


@pytest.mark.parametrize("size", [(3, 6, 6), (3, 32, 32), (3, 9, 17), (3, 4, 4), (3, 2, 3)])
def test_every_size_of_image(size: tuple[int, ...]) -> None:
    for kind in ("convolutional", "linear"):
        assert Network(kind, 5, size)(torch.randn(2, 5)).shape == (2, *size)


def test_trained_once_and_read_from_the_file_afterwards(
    trainings: list[Decoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, cache = Decoder(architecture="linear", steps=20), FeatureCache(tmp_path)
    first = train(way, cache)
    assert train(way, cache) is first and len(trainings) == 1
    module._trained.clear()
    again = train(way, cache)
    assert len(trainings) == 1
    assert digest_tensors(first.network.state_dict()) == digest_tensors(again.network.state_dict())
    assert (first.error, first.mean_error) == (again.error, again.mean_error)
    train(Decoder(architecture="linear", steps=21), cache)
    assert len(trainings) == 2, "other fields, another decoder"
    assert len(list(tmp_path.glob("*.safetensors"))) == 2 and not list(tmp_path.glob("*.tmp"))
    for steps in range(1, 8):
        train(Decoder(architecture="linear", steps=steps), cache)
    assert len(module._trained) == module.KEPT
    assert cache.clear() > 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "flipped", "other tensors", "no errors"])
def test_a_damaged_file_is_trained_anew(damage: str, trainings: list[Decoder], tmp_path: Path) -> None:
    way, cache = Decoder(architecture="linear", steps=20), FeatureCache(tmp_path)
    first = train(way, cache)
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-20])
    elif damage == "flipped":
        path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    else:
        state = dict(first.network.state_dict())
        cache.put_tensors(path.stem, state if damage == "no errors" else {"weight": torch.ones(3)})
    module._trained.clear()
    again = train(way, cache)
    assert len(trainings) == 2 and path.read_bytes() == content
    assert digest_tensors(first.network.state_dict()) == digest_tensors(again.network.state_dict())


def test_a_folder_that_cannot_be_written_makes_it_slower_and_not_wrong(tmp_path: Path) -> None:
    way, blocked = Decoder(architecture="linear", steps=5), tmp_path / "file"
    blocked.write_text("")
    cache = FeatureCache(blocked)
    assert train(way, cache).error > 0 and "could not be kept" in cache.problem


def test_same_seed_same_bytes_and_nothing_global_moves() -> None:
    known, state = toy.pixel_knowledge(), torch.get_rng_state()
    before = toy.fingerprint(known)
    attack = Exact(carrier="pixels", inversion="decoder", decoder_loss="feature", steps=3, inversion_steps=4)
    made = []
    for seed in (0, 0, 1):
        module._trained.clear()
        poisoning = attack.poison(known, 9, seed)
        made.append((toy.fingerprint_of(poisoning), poisoning.ledger.model_dump_json()))
    assert made[0] == made[1] and made[0][0] != made[2][0]
    assert toy.fingerprint(known) == before and torch.equal(torch.get_rng_state(), state)
    assert not any(weight.requires_grad for weight in encoder_of(known).parameters())


def encoder_of(known: Knowledge) -> Encoder:
    assert known.encoder is not None
    return known.encoder


def test_what_does_not_fit_is_said() -> None:
    encoder, images, z = planted(60)
    scaler, cache, base = Scaler.of([z]), FeatureCache(), torch.arange(3)
    wide = torch.cat([z, z], 1)
    way = Decoder(steps=2)
    message = r"decoder: features \[n, 5\] of encoder codes, one row per image; got \[{}\]; pass the features"
    with pytest.raises(EncoderError, match=message.format("3, 10")):
        way.invert(encoder, wide[:3], images, z, base, scaler, Runtime())
    with pytest.raises(EncoderError, match=message.format("60, 10")):
        way.trained(encoder, images, wide, scaler, Runtime(), cache)
    with pytest.raises(EncoderError, match=message.format("59, 5")):
        way.trained(encoder, images, z[:59], scaler, Runtime(), cache)
    few = images.take(torch.arange(19))
    with pytest.raises(SpecError, match="decoder: at least 20 training images; got 19; pass more, or --inversion mat"):
        way.trained(encoder, few, z[:19], scaler, Runtime(), cache)
    with pytest.raises(AttackError, match="decoder: a finite loss; got nan; lower --inversion-rate"):
        Decoder(steps=3, rate=1e30).trained(encoder, images, z, scaler, Runtime(), cache)
