"""Images from .npz files: layouts against planted pixels, digests, and every kind of bad file."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.data import Dataset, load, npz
from foretaste.errors import DataError
from foretaste.images import Images

CLASSES = ["cat", "<script>", "dög"]


def planted(n: int, seed: int = 0) -> dict[str, Any]:
    """Colour images NHWC whose channels, rows and columns all differ, and labels of three classes."""
    draws = np.random.default_rng(seed)
    return {"x": draws.integers(0, 256, (n, 5, 4, 3), dtype=np.uint8), "y": np.arange(n) % 3}


def arrays(**changes: Any) -> dict[str, Any]:
    train, test = planted(9), planted(6, seed=1)
    whole = {"x_train": train["x"], "y_train": train["y"], "x_test": test["x"], "y_test": test["y"], "classes": CLASSES}
    return {key: value for key, value in (whole | changes).items() if value is not None}


def saved(folder: Path, **changes: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays(**changes))
    return path


def naive_digest(images: Images) -> str:
    """The digest, byte by byte, without tensors."""
    head = f"torch.uint8 {list(images.pixels.shape)} {list(images.classes)}".encode()
    pixels = bytes(value for image in images.pixels.tolist() for plane in image for row in plane for value in row)
    labels = b"".join(label.to_bytes(8, "little") for label in images.labels.tolist())
    return hashlib.sha256(head + pixels + labels).hexdigest()


def check_planted(dataset: Dataset) -> None:
    for images, source in ((dataset.train, planted(9)), (dataset.test, planted(6, seed=1))):
        assert images is not None
        assert images.classes == tuple(CLASSES)
        assert images.labels.tolist() == source["y"].tolist()
        for n, h, w, c in np.ndindex(source["x"].shape):
            assert images.pixels[n, c, h, w] == source["x"][n, h, w, c]
        assert images.digest == naive_digest(images)


def test_planted_pixels_arrive_in_place_in_both_layouts(tmp_path: Path) -> None:
    check_planted(load(str(saved(tmp_path))))
    first = {key: arrays()[key].transpose(0, 3, 1, 2) for key in ("x_train", "x_test")}  # column-major in the file
    check_planted(load(str(saved(tmp_path, **first))))
    check_planted(load(str(saved(tmp_path, **{key: x.copy() for key, x in first.items()}))))


def test_digest_depends_on_content_alone(tmp_path: Path) -> None:
    digest = load(str(saved(tmp_path))).train.digest
    np.savez_compressed(tmp_path / "other.npz", **arrays(y_train=arrays()["y_train"].astype(">u2")), track=np.zeros(3))
    assert load(str(tmp_path / "other.npz")).train.digest == digest
    for key, value in (("x_train", arrays()["x_train"] ^ 1), ("y_train", 2 - arrays()["y_train"])):
        assert load(str(saved(tmp_path, **{key: value}))).train.digest != digest
    assert load(str(saved(tmp_path, classes=["cat", "dog", "cow"]))).train.digest != digest


@pytest.mark.parametrize("shape", [(9, 5, 4), (9, 5, 4, 1), (9, 1, 5, 4)])
def test_grey_images_get_three_equal_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    grey = np.random.default_rng(2).integers(0, 256, (9, 5, 4), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", x=grey.reshape(shape), y=np.arange(9, dtype=np.uint8) % 3)
    dataset = load(str(tmp_path / "grey.npz"))
    assert dataset.test is None
    assert dataset.train.classes == ("0", "1", "2")
    assert dataset.train.pixels.is_contiguous()
    for channel in range(3):
        assert (dataset.train.pixels[:, channel].numpy() == grey).all()


def test_a_training_part_alone_has_no_test_part(tmp_path: Path) -> None:
    dataset = load(str(saved(tmp_path, x_test=None, y_test=None)))
    assert len(dataset.train) == 9
    assert dataset.test is None


def test_extra_keys_are_not_even_read(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("note.npy", b"not an array")
    check_planted(load(str(path)))


X, Y = arrays()["x_train"], arrays()["y_train"]
BAD = {
    "no y_train": ({"y_train": None}, "no y_train among x_train, x_test, y_test, classes"),
    "no y_test": ({"y_test": None}, "no y_test among"),
    "other keys": ({"x_train": None, "y_train": None}, "no x and no y among"),
    "float in [0, 1]": ({"x_train": X / 255}, r"x_train: uint8 images.*float64 from 0.* to .*x \* 255"),
    "float in [0, 255]": ({"x_train": X.astype("f4")}, r"float32 from .*np\.rint\(x\)"),
    "normalised": ({"x_train": X / 255.0 - 0.5}, "undo the normalisation"),
    "NaN": ({"x_train": np.where(X < 9, np.nan, X)}, "with [1-9][0-9]* NaN"),
    "infinite": ({"x_train": np.where(X < 9, np.inf, X)}, "infinite values"),
    "int64 pixels": ({"x_train": X.astype(int)}, r"int64 from .*astype\(np\.uint8\)"),
    "bool pixels": ({"x_train": X > 9}, "bool"),
    "four channels": ({"x_train": np.repeat(X[..., :1], 4, 3)}, r"C 1 or 3; got shape \[9, 5, 4, 4\]"),
    "flat images": ({"x_train": X.reshape(9, -1)}, r"got shape \[9, 60\]"),
    "two layouts at once": ({"x_train": X[:, :3]}, r"\[9, 3, 4, 3\], which fits both layouts"),
    "no rows": ({"x_train": X[:0], "y_train": Y[:0]}, "at least one image"),
    "sizes differ": ({"x_test": arrays()["x_test"][:, :4]}, "one size; got 5x4 and 4x4"),
    "row counts differ": ({"y_train": Y[:-1]}, "each of the 9 rows of x_train; got 8 labels"),
    "float labels": ({"y_train": Y + 0.5}, "y_train: integer labels; got float64 from 0.5 to 2.5"),
    "NaN label": ({"y_train": np.where(Y == 1, np.nan, Y)}, "y_train: integer labels; got float64 with 3 NaN"),
    "text labels": ({"y_train": np.array(CLASSES)[Y]}, "integer labels; got <U8"),
    "one-hot labels": ({"y_train": np.eye(3, dtype=int)[Y]}, r"one label per row, \[9\]; got shape \[9, 3\]"),
    "label too high": ({"y_train": Y + 1}, r"y_train in \[0, 2\]; got label 3 in row 2 \(3 such rows\)"),
    "negative label": ({"y_test": arrays()["y_test"] - 1}, r"y_test in \[0, .*; got label -1 in row 0"),
    "label over 2^63": ({"y_train": Y.astype("u8") + 2**63}, "got label 9223372036854775808"),
    "huge label, no names": ({"y_train": Y + 10**9, "classes": None}, r"\[0, 65535\]; got label 1000000000"),
    "one class only": ({"y_train": Y * 0 + 2}, r"at least two classes; got one class only \(label 2\)"),
    "one name": ({"classes": ["cat"]}, "classes, a list of at least two names"),
    "names in a table": ({"classes": [CLASSES, CLASSES]}, r"classes, .*\[2, 3\]"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        load(str(path))
    assert str(caught.value).startswith(str(path))


class Runs:
    """Unpickling it runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=np.array([Runs()] * 9, dtype=object))
    with pytest.raises(DataError, match=r"x_train: numbers or text; got Python objects \(a pickle"):
        load(str(path))


def test_a_file_that_is_not_there_or_not_an_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got nothing there"):
        load(str(tmp_path / "no.npz"))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match="got a folder"):
        load(str(tmp_path / "folder.npz"))
    for content in (b"", b"PK\x03\x04", b"\x80\x04K\x01."):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.npz: a whole \.npz file; got BadZipFile"):
            load(str(tmp_path / "bad.npz"))


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_every_truncation_and_flipped_byte_is_one_clear_error(tmp_path: Path, pack: Any) -> None:
    """A flipped byte of the zip's own bookkeeping may be harmless, but never gives other data or another error."""
    pack(tmp_path / "good.npz", **arrays())
    good, digest = (tmp_path / "good.npz").read_bytes(), load(str(tmp_path / "good.npz")).train.digest
    bad = tmp_path / "bad.npz"
    for cut in range(0, len(good), 97):
        bad.write_bytes(good[:cut])
        with pytest.raises(DataError, match="whole"):
            load(str(bad))
    survived = 0
    for place in range(0, len(good), 7):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        try:
            dataset = load(str(bad))
        except DataError as error:
            assert str(error).startswith(str(bad))
        else:
            assert dataset.train.digest == digest or "classes" not in npz.keys(bad) or "x_test" not in npz.keys(bad)
            survived += 1
    assert survived < len(good) / 7 / 2


def member(shape: tuple[int, ...], body: bytes, dtype: str = "|u1") -> bytes:
    """An array file with a header that says what it likes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + body


@pytest.mark.parametrize("body", [b"", bytes(100), bytes(9 * 60 + 1)])
@pytest.mark.parametrize("shape", [(9, 5, 4, 3), (10**9, 32, 32, 3), (-9, 5, -4, 3), (2**40, 2**40, 1, 3)])
def test_a_header_that_does_not_fit_its_content(tmp_path: Path, shape: tuple[int, ...], body: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("x.npy", member(shape, body))
        archive.writestr("y.npy", member((9,), bytes(range(9))))
    with pytest.raises(DataError, match="as its header says"):
        load(str(tmp_path / "lies.npz"))


def test_a_later_format_of_array_file_is_refused(tmp_path: Path) -> None:
    """Its header may claim 4 GB of text."""
    with zipfile.ZipFile(tmp_path / "v2.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}")
        archive.writestr("y.npy", member((9,), bytes(9)))
    with pytest.raises(DataError, match=r"format 1\.0; got format 2\.0"):
        load(str(tmp_path / "v2.npz"))


def test_bombs_are_refused_from_the_directory_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", **arrays(x_train=np.zeros((400, 50, 50, 3), np.uint8)))
    with pytest.raises(DataError, match=r"at most 2,000,000 bytes in all; got 3,000,128 bytes"):
        npz.read_arrays(tmp_path / "bomb.npz", ["x_train"], limit=2_000_000)
    monkeypatch.setattr(npz, "RATIO_FREE", 2**20)
    with pytest.raises(DataError, match=r"x_train packed at most 200 to 1; got 3,000,128 bytes .* \(a zip bomb\)"):
        load(str(tmp_path / "bomb.npz"))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", member((9, 5, 4, 3), bytes(540)))
        archive.writestr("y.npy", member((9,), bytes(9)))
    with pytest.raises(DataError, match="zip compression 12"):
        load(str(tmp_path / "bomb.npz"))


def test_a_bomb_whose_directory_lies_takes_little_memory(tmp_path: Path) -> None:
    """64 MB of zeros in LZMA behind 16 KB of noise, while the directory and the header admit 1 MB."""
    size, admitted = 64 * 2**20, member((2**20,), b"")
    noise = np.random.default_rng(0).bytes(2**14)  # zipfile's smallest read must not get past it
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", admitted + noise + bytes(size - len(noise)))
    content = (tmp_path / "bomb.npz").read_bytes()
    honest, lie = ((len(admitted) + rest).to_bytes(4, "little") for rest in (size, 2**20))
    assert content.count(honest) == 2
    (tmp_path / "bomb.npz").write_bytes(content.replace(honest, lie))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="CRC"):
            npz.read_arrays(tmp_path / "bomb.npz", ["x"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * 2**20


def test_read_arrays_equals_numpy(tmp_path: Path) -> None:
    """What numpy writes comes back, whatever its dtype and memory order."""
    values = {
        "z": np.random.default_rng(0).normal(size=(50, 7)).astype("f4"),
        "order": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        "big": np.arange(5, dtype=">i4"),
        "names": np.array(CLASSES),
        "scalar": np.array(3),
        "none": np.zeros((0, 4)),
    }
    np.savez_compressed(tmp_path / "all.npz", **values)
    assert npz.keys(tmp_path / "all.npz") == list(values)
    found = npz.read_arrays(tmp_path / "all.npz", list(values))
    for key, value in values.items():
        assert found[key].dtype == value.dtype
        assert found[key].shape == value.shape
        assert (found[key] == value).all()
    with pytest.raises(DataError, match="keys z, y; got no y among z, order"):
        npz.read_arrays(tmp_path / "all.npz", ["z", "y"])


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "train", "test", "classes", "per_class"),
    [
        ("cifar10_jpeg_10k2k", 10_000, 2_000, 10, (1000, 1000)),
        ("gtsrb_32", 5_696, 1_408, 43, (32, 320)),
        ("pacs_32", 7_993, 1_998, 7, None),
        ("mnist_10k2k_32", 10_000, 2_000, 10, (1000, 1000)),
    ],
)
def test_real_data_have_the_rows_that_their_manifest_says(
    shared: Path, name: str, train: int, test: int, classes: int, per_class: tuple[int, int] | None
) -> None:
    dataset = load(str(shared / "data" / f"{name}.npz"))
    assert dataset.test is not None
    assert (len(dataset.train), len(dataset.test)) == (train, test)
    assert dataset.train.pixels.shape[1:] == (3, 32, 32)
    assert len(dataset.train.classes) == classes
    for images in (dataset.train, dataset.test):
        assert len(torch.unique(images.labels)) == classes
    if per_class:
        # The manifest's range for traffic signs is over both parts together or one: the smallest and largest class.
        counts = [dataset.train.labels.tolist().count(label) for label in range(classes)]
        assert per_class[0] <= min(counts)
        assert max(counts) <= per_class[1]
