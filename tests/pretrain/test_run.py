from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from foretaste import pretrain
from foretaste.data import SplitSpec, load, whole
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import EncoderError, SpecError
from foretaste.images import Images
from foretaste.pretrain.run import run
from foretaste.pretrain.simclr import SimCLR
from foretaste.runtime import Runtime, digest_tensors, stream

TINY = SimCLR(epochs=2, batch=8, hidden=16, projection=8)


def noise(side: int = 8) -> Images:
    pixels = torch.randint(0, 256, (20, 3, side, side), dtype=torch.uint8, generator=stream(0, "noise"))
    return Images(pixels, torch.arange(20) % 2, ("a", "b"), "noise")


def test_every_method_of_the_table_is_there_under_its_name() -> None:
    for name in pretrain.METHODS:
        assert pretrain.find(name).name == name
    with pytest.raises(SpecError, match="one of simclr; got 'byol'"):
        pretrain.find("byol")


def test_the_file_is_an_encoder_with_the_card_and_the_trained_features(tmp_path: Path) -> None:
    out, images = tmp_path / "tiny.safetensors", noise()
    card = run(images, "resnet18-small", 2, TINY, 3, Runtime(), out, command="make it", licence="CC0-1.0")
    encoder = build(EncoderSpec(reference=str(out)))
    assert encoder.card == card
    assert card.model_dump(include={"name", "architecture", "options", "d", "input_size", "licence", "command"}) == {
        "name": "tiny",
        "architecture": "resnet18-small",
        "options": {"width": 2},
        "d": 16,
        "input_size": 8,
        "licence": "CC0-1.0",
        "command": "make it",
    }
    assert card.sha256 == digest_tensors(encoder.body.state_dict())
    assert images.digest[:12] in card.source
    np.testing.assert_allclose(card.mean, (images.pixels.numpy() / 255).mean((0, 2, 3)), atol=1e-4)
    # The seed decides the first weights too, and the run is the method's own.
    start = build(EncoderSpec(reference="resnet18-small", width=2), seed=3).body
    assert card.sha256 == digest_tensors(TINY.train(images, start, 3, Runtime()).state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.safetensors", "tiny.safetensors.card.json"]


def test_a_killed_run_continues_and_its_checkpoint_goes_at_the_end(tmp_path: Path) -> None:
    def stop(done: int, total: int, loss: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "tiny.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(noise(), "resnet18-small", 2, TINY, 0, Runtime(), out, stop)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.checkpoint.safetensors"]
    seen: list[int] = []
    card = run(noise(), "resnet18-small", 2, TINY, 0, Runtime(), out, lambda done, total, loss: seen.append(done))
    assert seen == [3, 4]
    assert card == run(noise(), "resnet18-small", 2, TINY, 0, Runtime(), out, overwrite=True)
    assert not (tmp_path / "tiny.checkpoint.safetensors").exists()


def test_timm_models_train_at_the_size_that_is_asked_for(tmp_path: Path) -> None:
    method = TINY.model_copy(update={"size": 32, "epochs": 1})
    card = run(noise(16), "timm:test_resnet", None, method, 0, Runtime(), tmp_path / "timm.safetensors")
    assert (card.architecture, card.input_size) == ("timm:test_resnet", 32)
    assert build(EncoderSpec(reference=str(tmp_path / "timm.safetensors"))).card == card


def test_bad_requests_are_refused_before_training(tmp_path: Path) -> None:
    out = tmp_path / "tiny.safetensors"
    with pytest.raises(SpecError, match=r"ends in .safetensors; got 'tiny.pt'"):
        run(noise(), "resnet18-small", 2, TINY, 0, Runtime(), tmp_path / "tiny.pt")
    with pytest.raises(EncoderError, match="width"):
        run(noise(), "timm:test_resnet", 2, TINY, 0, Runtime(), out)
    out.touch()
    with pytest.raises(SpecError, match="got one that exists"):
        run(noise(), "resnet18-small", 2, TINY, 0, Runtime(), out)


def test_the_embedded_encoder_has_not_seen_the_test_digits_and_beats_random_weights() -> None:
    assets = resources.files("foretaste.encoders") / "assets"
    assert len((assets / "digits-simclr.safetensors").read_bytes()) < 1_000_000
    card = json.loads((assets / "digits-simclr.safetensors.card.json").read_text())
    assert card["command"].startswith("foretaste pretrain --data digits --arch resnet18-small ")
    rest, test = whole(load("digits"), SplitSpec())
    assert f"({len(rest)} images, sha256 {rest.digest[:12]})" in card["source"], "made from other rows: make it again"

    trained = build(EncoderSpec(reference="digits-simclr"), (8, 8))
    assert trained.sha256() == card["sha256"]
    card = trained.card
    told = EncoderSpec(reference="resnet18-small", width=8, mean=card.mean, std=card.std, input_size=card.input_size)
    scores = []
    for encoder in (trained, build(told, (8, 8))):
        with torch.no_grad():
            z = [encoder(images.pixels / 255).numpy() for images in (rest, test)]
        probe = KNeighborsClassifier(5, metric="cosine").fit(z[0], rest.labels)
        scores.append(probe.score(z[1], test.labels))
    assert scores[0] > 0.95
    assert scores[0] > scores[1] + 0.1
