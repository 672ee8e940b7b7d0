"""Folders of images: planted pixels, the two layouts, and every kind of bad folder."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foretaste.data import folders, load
from foretaste.errors import DataError


def picture(seed: int, height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray[Any, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def write(file: Path, pixels: np.ndarray[Any, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with two images each, written in another order than they are to be read."""
    for seed, name in ((3, "dog/b.png"), (0, "cat/1.bmp"), (2, "dog/a.png"), (1, "cat/2.ppm")):
        write(tmp_path / "pets" / name, picture(seed))
    return tmp_path / "pets"


def test_planted_pixels_arrive_in_order(root: Path) -> None:
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / ".thumbnails").mkdir()
    dataset = load(str(root))
    assert dataset.test is None
    assert dataset.train.name == "pets"
    assert dataset.train.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    for row in range(4):
        assert (dataset.train.pixels[row].numpy() == picture(row).transpose(2, 0, 1)).all()


def test_grey_palette_and_alpha_become_three_channels(tmp_path: Path) -> None:
    colour = picture(0)
    write(tmp_path / "a" / "grey.png", picture(1, channels=1))
    write(tmp_path / "a" / "alpha.png", np.dstack([colour, picture(2, channels=1)]))
    (tmp_path / "b").mkdir()
    Image.fromarray(picture(3)).quantize(8).save(tmp_path / "b" / "palette.png")
    pixels = load(str(tmp_path)).train.pixels.numpy()
    assert (pixels[0] == colour.transpose(2, 0, 1)).all()  # alpha dropped
    assert (pixels[1] == picture(1, channels=1)).all()  # each channel
    assert (pixels[2].transpose(1, 2, 0) == np.asarray(Image.open(tmp_path / "b/palette.png").convert("RGB"))).all()


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_folder_with_parts(tmp_path: Path, part: str) -> None:
    for seed, name in enumerate((f"{part}/x/0.png", f"{part}/y/0.png", "train/x/0.png", "train/y/0.png")):
        write(tmp_path / name, picture(seed))
    dataset = load(str(tmp_path))
    assert dataset.test is not None
    assert [int(image[0, 0, 0]) for image in dataset.test.pixels] == [int(picture(s)[0, 0, 0]) for s in (0, 1)]
    assert [int(image[0, 0, 0]) for image in dataset.train.pixels] == [int(picture(s)[0, 0, 0]) for s in (2, 3)]
    write(tmp_path / part / "z" / "0.png", picture(9))
    with pytest.raises(DataError, match=rf"{part}: the 2 classes of .*train; got also z"):
        load(str(tmp_path))
    write(tmp_path / "train" / "w" / "0.png", picture(9))
    with pytest.raises(DataError, match=rf"{part}: the 3 classes of .*train; got no w; also z"):
        load(str(tmp_path))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        write(tmp_path / name / "0.png", picture(0))
    assert load(str(tmp_path)).train.classes == ("bus", "train")


def test_sizes_that_differ_name_both(root: Path) -> None:
    write(root / "dog" / "z.png", picture(0, height=7))
    with pytest.raises(DataError, match=r"z\.png: an image of 6x5 \(height x width\) like .*1\.bmp; got 7x5; resize"):
        load(str(root))


def test_folders_without_images(tmp_path: Path, root: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="got an empty folder"):
        load(str(tmp_path / "empty"))
    (root / "fish").mkdir()
    with pytest.raises(DataError, match=r"fish: images \(.*got none"):
        load(str(root))
    write(tmp_path / "flat" / "0.png", picture(0))
    with pytest.raises(DataError, match="got files only"):
        load(str(tmp_path / "flat"))
    write(tmp_path / "single" / "cat" / "0.png", picture(0))
    with pytest.raises(DataError, match="one class only"):
        load(str(tmp_path / "single"))


def test_every_truncated_image_is_one_clear_error(root: Path) -> None:
    file = root / "dog" / "b.png"
    content = file.read_bytes()
    for cut in range(0, len(content) - 20, 5):  # the last 20 bytes are checksums, which no pixel needs
        file.write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"b\.png: an image that can be read"):
            load(str(root))


def test_images_that_cannot_be_read(root: Path) -> None:
    bad = root / "dog" / "c.png"
    # EPS, whose reader would start Ghostscript, hides behind the suffix; so does plain text.
    for content in (b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n"):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"c\.png: an image that can be read; got UnidentifiedImageError"):
            load(str(root))
    Image.fromarray(picture(0, channels=1).astype(np.uint16) * 257).save(bad)
    with pytest.raises(DataError, match="8 bits per channel; got Pillow's mode I;16"):
        load(str(root))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises width x height pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bombs(tmp_path: Path, side: int) -> None:
    write(tmp_path / "b" / "0.png", picture(0))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(bomb(side, side))
    with pytest.raises(DataError, match="DecompressionBomb"):
        load(str(tmp_path))


def test_too_many_pixels_in_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "SIZE_LIMIT", 4 * 6 * 5 * 3 - 1)
    with pytest.raises(DataError, match="at most 359 bytes in all; got 4 images of 6x5, 360 bytes"):
        load(str(root))
