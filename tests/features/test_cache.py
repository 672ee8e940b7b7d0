"""The cache: the same bytes or a recomputation, never anything else."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.features import cache as module
from foretaste.features.cache import FeatureCache, cached_embed, feature_key
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.runtime import Runtime, stream

CARD = Card(name="test", architecture="test", d=6, input_size=4)


class Linear(nn.Module):
    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift, self.calls = shift, 0
        self.weight = nn.Parameter(torch.randn(48, 6, generator=stream(0, "weights")))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += len(x)
        return x.flatten(1) @ self.weight + self.shift


def make_images(seed: int = 0) -> Images:
    draws = stream(seed, "images")
    pixels = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8, generator=draws)
    return Images(pixels, torch.arange(20) % 2, ("a", "b"), "test")


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def entries(cache: FeatureCache) -> list[Path]:
    return sorted(cache.folder.glob("*.npy"))


def test_a_hit_gives_identical_bytes_and_skips_the_encoder(cache: FeatureCache) -> None:
    images, body = make_images(), Linear()
    encoder = Encoder(body, CARD)
    plain = embed(encoder, images.pixels, Runtime())
    first = cached_embed(encoder, images, Runtime(), cache)
    body.calls = 0
    second = cached_embed(encoder, images, Runtime(), cache)
    assert body.calls == 2, "the two images that are asked again"
    assert torch.equal(first, plain) and torch.equal(second, plain)
    assert torch.equal(torch.from_numpy(np.load(entries(cache)[0])), plain), "an entry is a plain .npy file"
    assert torch.equal(cached_embed(encoder, images, Runtime(), None), plain)


def test_writing_to_a_hit_does_not_reach_the_disk(cache: FeatureCache) -> None:
    encoder, images = Encoder(Linear(), CARD), make_images()
    cached_embed(encoder, images, Runtime(), cache)
    (path,) = entries(cache)
    content = path.read_bytes()
    cached_embed(encoder, images, Runtime(), cache).zero_()
    assert path.read_bytes() == content


def test_the_key_changes_with_every_component(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, images, runtime = Encoder(Linear(), CARD), make_images(), Runtime()
    other = Linear()
    other.weight.data[47, 5] += 1e-6
    black = Images(torch.zeros_like(images.pixels), images.labels, images.classes, images.name)
    normalised = CARD.model_copy(update={"mean": (0.5,) * 3, "std": (1.0,) * 3})
    keys = [
        feature_key(encoder, images, runtime, "plain"),
        feature_key(Encoder(other, CARD), images, runtime, "plain"),
        feature_key(Encoder(Linear(), normalised), images, runtime, "plain"),
        feature_key(encoder, make_images(1), runtime, "plain"),
        feature_key(encoder, black, runtime, "plain"),
        feature_key(encoder, images, runtime, "flip"),
        feature_key(encoder, images, replace(runtime, precision="bfloat16"), "plain"),
        feature_key(encoder, images, replace(runtime, channels_last=True), "plain"),
    ]
    for package in (module, torch):
        with monkeypatch.context() as patch:
            patch.setattr(package, "__version__", "0.0.0")
            keys.append(feature_key(encoder, images, runtime, "plain"))
    assert len(set(keys)) == len(keys)
    again = Encoder(Linear(), CARD.model_copy(update={"name": "renamed", "source": "elsewhere"}))
    assert feature_key(again, make_images(), replace(runtime, reason="other"), "plain") == keys[0]


@pytest.mark.parametrize("runtime", [Runtime(), Runtime(precision="bfloat16")], ids=str)
def test_an_edited_forward_meets_no_old_features(cache: FeatureCache, runtime: Runtime) -> None:
    before, after, images = Encoder(Linear(), CARD), Encoder(Linear(shift=1.0), CARD), make_images()
    old = cached_embed(before, images, runtime, cache)
    assert feature_key(before, images, runtime, "plain") == feature_key(after, images, runtime, "plain")
    torch.testing.assert_close(cached_embed(after, images, runtime, cache), old + 1, rtol=0.01, atol=0.05)


def test_rounding_is_not_an_edit(cache: FeatureCache) -> None:
    images = make_images()
    old = cached_embed(Encoder(Linear(), CARD), images, Runtime(), cache)
    assert torch.equal(cached_embed(Encoder(Linear(shift=1e-6), CARD), images, Runtime(), cache), old)


def test_any_damage_is_detected_and_repaired(cache: FeatureCache) -> None:
    encoder, images = Encoder(Linear(), CARD), make_images()
    plain = cached_embed(encoder, images, Runtime(), cache).clone()
    (path,) = entries(cache)
    whole = path.read_bytes()
    damaged = [whole[:length] for length in (0, 1, 31, 32, 33, 128, len(whole) - 1)] + [whole + b"\0", b"\x93NUMPY"]
    damaged += [whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
    for content in damaged:
        path.write_bytes(content)
        assert cache.get(path.stem, len(images)) is None
    assert torch.equal(cached_embed(encoder, images, Runtime(), cache), plain)
    assert path.read_bytes() == whole


def test_an_entry_under_another_name_or_of_another_length_is_not_used(cache: FeatureCache) -> None:
    z = torch.randn(5, 3, generator=stream(0, "z"))
    cache.put("a", z)
    (cache.folder / "a.npy").rename(cache.folder / "b.npy")
    assert cache.get("b", 5) is None
    cache.put("a", z)
    assert cache.get("a", 6) is None
    kept = cache.get("a", 5)
    assert kept is not None and torch.equal(kept, z)


def write_and_read(folder: Path, seed: int, results: multiprocessing.Queue[str]) -> None:
    torch.set_num_threads(1)
    cache = FeatureCache(folder)
    wrong = 0
    for number in range(40):
        key = f"key{number % 3}"
        z = torch.full((300, 50), float(number % 3))
        if (number + seed) % 2:
            cache.put(key, z)
        found = cache.get(key, 300)
        wrong += found is not None and not torch.equal(found, z)
        if number % 10 == 9:
            cache.clear()
    results.put(f"{wrong} wrong {cache.problem}".strip())


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()
    workers = [context.Process(target=write_and_read, args=(tmp_path, seed, results)) for seed in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    # An entry that the other process clears in the middle of writing is a miss with a reason, never wrong rows.
    assert all(line.startswith("0 wrong") for line in found)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not list(tmp_path.glob("*.tmp"))


def test_the_least_recently_used_entry_goes_first(cache: FeatureCache) -> None:
    z = torch.zeros(100, 10)  # 4,000 bytes, 4,160 with header and digest
    cache.limit = 3 * 4160 + 200
    for age, key in enumerate("abc"):
        cache.put(key, z + age)
        os.utime(cache.folder / f"{key}.npy", (1000 + age, 1000 + age))
    assert cache.get("a", 100) is not None  # touched: now the most recently used
    cache.put("d", z)
    assert [path.stem for path in entries(cache)] == ["a", "c", "d"]
    assert sum(path.stat().st_size for path in entries(cache)) <= cache.limit


def test_an_entry_over_the_limit_is_not_kept_and_evicts_nothing(cache: FeatureCache) -> None:
    cache.limit = 5000
    cache.put("small", torch.zeros(100, 10))
    cache.put("large", torch.zeros(1000, 10))
    assert [path.stem for path in entries(cache)] == ["small"]
    assert "limit of 5000" in cache.problem


def test_clear_returns_the_bytes_and_takes_what_killed_processes_left(cache: FeatureCache) -> None:
    assert cache.clear() == 0
    cache.put("a", torch.zeros(10, 10))
    (cache.folder / "left.tmp").write_bytes(b"12345")
    assert cache.clear() == (400 + 128 + 32) + 5
    assert not list(cache.folder.iterdir())


def test_unfinished_files_go_when_they_are_old(cache: FeatureCache) -> None:
    cache.put("a", torch.zeros(10, 10))
    old, new = cache.folder / "old.tmp", cache.folder / "new.tmp"
    for path in (old, new):
        path.write_bytes(b"x")
    long_ago = time.time() - 2 * module.STALE_SECONDS
    os.utime(old, (long_ago, long_ago))
    cache.put("b", torch.zeros(10, 10))
    assert not old.exists() and new.exists()


def test_a_disk_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, images = Encoder(Linear(), CARD), make_images()
    plain = embed(encoder, images.pixels, Runtime())
    (tmp_path / "file").write_text("in the way")
    cache = FeatureCache(tmp_path / "file" / "features")
    assert torch.equal(cached_embed(encoder, images, Runtime(), cache), plain)
    assert "could not be kept" in cache.problem

    def full(*args: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    cache = FeatureCache(tmp_path / "features")
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        assert torch.equal(cached_embed(encoder, images, Runtime(), cache), plain)
    assert "No space left on device" in cache.problem
    assert not list(cache.folder.iterdir()), "nothing half-written stays"
    cached_embed(encoder, images, Runtime(), cache)
    assert cache.problem == "" and len(entries(cache)) == 1


def test_the_default_folder_is_that_of_the_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path))
    assert FeatureCache().folder == tmp_path / "features"
    assert FeatureCache().limit == 4 * 1024**3
