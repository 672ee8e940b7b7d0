"""Feature files: what is read is what was written, and each bad file is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.errors import DataError
from foretaste.features.file import FeatureSet, check_same, read_features

Z = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
Y = np.arange(12) % 3


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("label", [np.uint8, np.int32, np.int64, np.uint64])
def test_what_was_written_is_read(tmp_path: Path, kind: type, label: type) -> None:
    found = read_features(save(tmp_path / "f.npz", z=Z.astype(kind), y=Y.astype(label), other=np.zeros(3)))
    assert (found.z.dtype, found.y.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(found.z, Z.astype(kind).astype(np.float32))
    np.testing.assert_array_equal(found.y, Y)
    assert found.classes == ("0", "1", "2") and found.name == "f.npz" and len(found) == 12


def test_layout_and_packing_do_not_matter(tmp_path: Path) -> None:
    plain = read_features(save(tmp_path / "f.npz", z=Z, y=Y))
    np.savez_compressed(tmp_path / "packed.npz", z=np.asfortranarray(Z), y=Y)
    assert read_features(tmp_path / "packed.npz").digest == plain.digest


def test_class_names(tmp_path: Path) -> None:
    path = save(tmp_path / "f.npz", z=Z, y=Y, classes=np.array(["<b>", "ä", "c"]))
    assert read_features(path, classes=3).classes == ("<b>", "ä", "c")
    with pytest.raises(DataError, match="4 classes; got 3 names"):
        read_features(path, classes=4)
    assert read_features(save(tmp_path / "g.npz", z=Z, y=Y), classes=5).classes == ("0", "1", "2", "3", "4")


def changed(at: tuple[int, int], value: float, kind: type = np.float32) -> np.ndarray:
    z = Z.astype(kind)
    z[at] = value
    return z


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no z": ({"x": Z, "y": Y}, "keys z .* and y .*got no z among x, y"),
    "no y": ({"z": Z}, "got no y among z"),
    "nothing": ({}, "got no z and no y among no keys at all"),
    "integers": ({"z": Z.astype(int), "y": Y}, r"z float \[n, d\], d >= 1; got int64 \[12, 5\]"),
    "complex": ({"z": Z.astype(complex), "y": Y}, "got complex128"),
    "flat": ({"z": Z.ravel(), "y": Y}, r"got float32 \[60\]"),
    "no column": ({"z": Z[:, :0], "y": Y}, r"got float32 \[12, 0\]"),
    "one row": ({"z": Z[:1], "y": Y[:1]}, "at least two rows; got 1 rows"),
    "no row": ({"z": Z[:0], "y": Y[:0]}, "at least two rows; got 0 rows"),
    "NaN": ({"z": changed((7, 2), np.nan), "y": Y}, "NaN or infinity in row 7 of z"),
    "infinite": ({"z": changed((3, 0), -np.inf), "y": Y}, "NaN or infinity in row 3 of z"),
    "beyond float32": ({"z": changed((4, 4), 1e300, np.float64), "y": Y}, "NaN or infinity in row 4 of z"),
    "other rows": ({"z": Z, "y": Y[:11]}, "one label for each of the 12 rows of z; got 11 labels"),
    "float labels": ({"z": Z, "y": Y.astype(float)}, "y: integer labels; got float64"),
    "bool labels": ({"z": Z, "y": Y > 0}, "y: integer labels; got bool"),
    "column of labels": ({"z": Z, "y": Y[:, None]}, r"got shape \[12, 1\]"),
    "negative label": ({"z": Z, "y": Y - 1}, "got label -1 in row 0"),
    "huge label": ({"z": Z, "y": np.where(Y == 2, 2**64 - 1, Y.astype(np.uint64))}, "got label 1844674407370955"),
    "one class": ({"z": Z, "y": np.full(12, 2)}, r"one class only \(label 2\)"),
    "constant": ({"z": np.ones_like(Z), "y": Y}, "features that differ between rows"),
    "pickle": ({"z": Z.astype(object), "y": Y}, "pickle"),
    "names in a square": ({"z": Z, "y": Y, "classes": np.array([["a", "b"]])}, "classes, a list"),
    "too few names": ({"z": Z, "y": Y, "classes": np.array(["a", "b"])}, r"y in \[0, 1\]; got label 2 in row 2"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=list(BAD))
def test_a_bad_file_is_one_clear_error(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        read_features(path)
    assert str(path) in str(caught.value)


def test_labels_outside_the_given_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"y in \[0, 1\]; got label 2 in row 2"):
        read_features(save(tmp_path / "f.npz", z=Z, y=Y), classes=2)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-40], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not a zip"]
)
def test_a_truncated_or_foreign_file(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = save(tmp_path / "f.npz", z=Z, y=Y)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"f\.npz"):
        read_features(path)
    with pytest.raises(DataError, match="nothing there"):
        read_features(tmp_path / "absent.npz")


def test_one_constant_feature_is_fine(tmp_path: Path) -> None:
    z = Z.copy()
    z[:, 1] = 4
    assert read_features(save(tmp_path / "f.npz", z=z, y=Y)).z[:, 1].eq(4).all()


def test_take_keeps_order_and_names() -> None:
    whole = FeatureSet(torch.from_numpy(Z), torch.from_numpy(Y), ("a", "b", "c"), "f")
    part = whole.take(torch.tensor([5, 1, 5]))
    np.testing.assert_array_equal(part.z, Z[[5, 1, 5]])
    np.testing.assert_array_equal(part.y, Y[[5, 1, 5]])
    assert (part.classes, part.name) == (whole.classes, "f")
    assert part.digest != whole.digest and whole.take(torch.arange(12)).digest == whole.digest


def test_two_files_must_agree() -> None:
    def make(d: int, *classes: str) -> FeatureSet:
        return FeatureSet(torch.zeros(2, d), torch.tensor([0, 1]), classes, f"{d}{len(classes)}")

    check_same(make(3, "a", "b"), make(3, "a", "b"))
    check_same(make(3, "a", "b"), make(3, "0", "1"))
    check_same(make(3, "0", "1"), make(3, "a", "b"))
    for other, message in (
        (make(4, "a", "b"), r"features \[n, 3\].*got \[n, 4\]"),
        (make(3, "b", "a"), r"2 classes of 32 \(a, b\); got 2 \(b, a\)"),
        (make(3, "0", "1", "2"), "2 classes.*got 3"),
    ):
        with pytest.raises(DataError, match=message):
            check_same(make(3, "a", "b"), other)
