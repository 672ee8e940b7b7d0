"""Features, and what is trained on them, on disk under a name made of everything that decides them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from foretaste.encoders.base import Encoder
from foretaste.encoders.weights import read_state_dict
from foretaste.errors import WeightsError
from foretaste.features.embed import Progress, embed, quiet
from foretaste.images import Images
from foretaste.runtime import Runtime, cache_folder, digest_tensors
from foretaste.version import __version__

DIGEST_BYTES = 32
ROUNDING = {"float32": 2e-3, "bfloat16": 3e-2}
"""Relative change of features that another batch size, number of threads or kernel can make."""
ENTRIES = ("*.npy", "*.safetensors")
STALE_SECONDS = 3600
"""An unfinished file of this age was left by a killed process."""


class FeatureCache:
    """A folder of feature arrays, bounded in size; the least recently used go first.

    An entry is a `.npy` file followed by the sha256 of its key and content, or a `.safetensors` file with its sha256 in
    the metadata, so that one rename puts both in place.
    Processes may share the folder: they write whole files or none, and may pass the limit by what they write at the
    same moment. A cache that cannot be written makes an audit slower and never wrong or broken.

    Args:
        folder: made when the first entry is written; default: `features` in the cache folder of this machine.
        limit: bytes that all entries may take together.

    Attributes:
        problem: why the last entry was not kept; empty while all is well.
    """

    def __init__(self, folder: Path | None = None, limit: int = 4 * 2**30) -> None:
        self.folder = cache_folder() / "features" if folder is None else folder
        self.limit = limit
        self.problem = ""

    def get(self, key: str, rows: int) -> Tensor | None:
        """The entry as float32 [rows, d], memory-mapped (writes stay in memory), or None: absent or damaged."""
        path = self.folder / f"{key}.npy"
        try:
            raw = np.memmap(path, dtype=np.uint8, mode="r")
            if _digest(key, raw[:-DIGEST_BYTES]) != raw[-DIGEST_BYTES:].tobytes():
                return None
            array = np.lib.format.open_memmap(path, mode="c")
            os.utime(path)  # used just now
        except (OSError, ValueError):
            return None
        fits = array.dtype == np.float32 and array.ndim == 2 and len(array) == rows
        return torch.from_numpy(array) if fits else None

    def put(self, key: str, z: Tensor) -> None:
        """Keep float32 [n, d]; where that is impossible, say why in `problem`."""

        def write(file: IO[bytes]) -> None:
            np.save(file, z.numpy(), allow_pickle=False)
            file.flush()
            file.write(_digest(key, np.memmap(file.name, dtype=np.uint8, mode="r")))

        self._write(self.folder / f"{key}.npy", z.numel() * 4 + 256, write)

    def get_tensors(self, key: str) -> dict[str, Tensor] | None:
        """The entry that `put_tensors` kept, or None: absent or damaged."""
        path = self.folder / f"{key}.safetensors"
        try:
            file = read_state_dict(path)
            os.utime(path)
        except (OSError, WeightsError):
            return None
        return file.tensors if file.metadata.get(key) == digest_tensors(file.tensors) else None

    def put_tensors(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep named tensors, such as a network trained on features; where that is impossible, say why in `problem`."""
        content = save(dict(tensors), {key: digest_tensors(tensors)})
        self._write(self.folder / f"{key}.safetensors", len(content), lambda file: file.write(content))

    def _write(self, path: Path, size: int, write: Callable[[IO[bytes]], object]) -> None:
        """A whole file or none."""
        if size > self.limit:
            self.problem = f"{size} bytes of features, more than the cache's limit of {self.limit}"
            return
        temporary = ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(size)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".tmp", delete=False) as file:
                temporary = file.name
                write(file)
            Path(temporary).replace(path)
        except OSError as error:
            self.problem = f"features could not be kept in {self.folder}: {error.strerror or error}"
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            return
        self.problem = ""

    def clear(self) -> int:
        """Delete every entry and what killed processes left; returns the bytes that this freed."""
        return sum(_delete(path, size) for _, size, path in self._files(*ENTRIES, "*.tmp"))

    def _make_room(self, size: int) -> None:
        """Delete the least recently used entries until `size` more bytes fit."""
        for used, length, path in self._files("*.tmp"):
            if time.time() - used > STALE_SECONDS:
                _delete(path, length)
        entries = self._files(*ENTRIES)
        total = size + sum(length for _, length, _ in entries)
        for _, length, path in entries:
            if total <= self.limit:
                break
            _delete(path, length)
            total -= length

    def _files(self, *patterns: str) -> list[tuple[float, int, Path]]:
        """(last use, bytes, path), the least recently used first; files that vanish meanwhile are left out."""
        found = []
        for path in (path for pattern in patterns for path in self.folder.glob(pattern)):
            with suppress(OSError):
                facts = path.stat()
                found.append((facts.st_mtime_ns / 1e9, facts.st_size, path))
        return sorted(found)


def cached_embed(
    encoder: Encoder,
    images: Images,
    runtime: Runtime,
    cache: FeatureCache | None,
    view: str = "plain",
    progress: Progress = quiet,
) -> Tensor:
    """`embed`, or what it gave before.

    Args:
        encoder: d features per image.
        images: n rows.
        runtime: decides the features through its device, precision and memory format.
        cache: None: compute.
        view: name of what was done to the images before, e.g. an augmentation with its strength.
        progress: called after each batch that is computed.

    Returns:
        float32 [n, d] on the CPU.
    """
    if cache is None:
        return embed(encoder, images.pixels, runtime, progress=progress)
    key = feature_key(encoder, images, runtime, view)
    z = cache.get(key, len(images))
    if z is None or not _still_answers(encoder, images, runtime, z):
        z = embed(encoder, images.pixels, runtime, progress=progress)
        cache.put(key, z)
    return z


def feature_key(encoder: Encoder, images: Images, runtime: Runtime, view: str) -> str:
    """sha256 of everything that decides the features and can be written down."""
    parts = {
        "encoder": encoder.sha256(),
        "card": encoder.card.model_dump(mode="json", include={"architecture", "options", "input_size", "mean", "std"}),
        "images": images.digest,
        "view": view,
        "device": torch.device(runtime.device).type,
        "precision": runtime.precision,
        "channels_last": runtime.channels_last,
        "foretaste": __version__,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _still_answers(encoder: Encoder, images: Images, runtime: Runtime, z: Tensor) -> bool:
    """Does the encoder still give these features for the first two images, to within rounding?

    Weights and card do not say what the user's own `forward` does: features from before an edit of that code must not
    be used after it. Batch size and threads move the last bits, so bytes cannot be compared.
    """
    answer = embed(encoder, images.pixels[:2], runtime)
    gap = z[:2] - answer if z.shape[1] == answer.shape[1] else answer
    return float(gap.norm()) <= ROUNDING[runtime.precision] * float(answer.norm())


def _digest(key: str, content: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    sha = hashlib.sha256(key.encode())
    sha.update(content.data)
    return sha.digest()


def _delete(path: Path, size: int) -> int:
    """Bytes freed: all or, where another process was first or the folder is read-only, none."""
    try:
        path.unlink()
    except OSError:
        return 0
    return size
