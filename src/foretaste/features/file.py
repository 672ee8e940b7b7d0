"""Features straight from a file: any modality, no encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.data.arrays import CLASS_LIMIT, Part, to_labels
from foretaste.data.npz import keys, read_arrays
from foretaste.errors import DataError
from foretaste.images import digest_rows

Array = NDArray[Any] | Tensor
"""Of numpy or torch; lists of numbers do as well."""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Labelled features.

    Attributes:
        z: float32 [n, d], finite.
        y: int64 [n], indices into `classes`.
        classes: names, as the user spelled them (escape before showing).
        name: where the features came from.
        digest: sha256 over shape, features, labels and class names; made here.
    """

    z: Tensor
    y: Tensor
    classes: tuple[str, ...]
    name: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_rows(self.z, self.y, self.classes))

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        rows, d = self.z.shape
        return f"FeatureSet({self.name!r}, n={rows}, d={d}, classes={len(self.classes)}, {self.digest[:12]})"

    def take(self, rows: Tensor) -> FeatureSet:
        """The given rows (int64 [k]), in that order, with the same classes and name."""
        return FeatureSet(self.z[rows].contiguous(), self.y[rows].contiguous(), self.classes, self.name)


def read_features(path: Path, *, classes: int | None = None) -> FeatureSet:
    """Read `z` float [n, d] and `y` int [n], and class names from `classes` if the file has them.

    Args:
        path: an .npz file as `np.savez(path, z=z, y=y)` writes it.
        classes: C, for a validation or test file: the labels must lie in [0, C). None: as many as the file names, or
            as its greatest label says.

    Raises:
        DataError: not a whole .npz file, a pickle, a missing key, a wrong dtype or shape, NaN or infinity, rows that
            do not match, fewer than two rows, labels outside the classes, one class only, or constant features.
    """
    there = keys(path)
    if missing := [key for key in ("z", "y") if key not in there]:
        raise DataError(
            f"{path}: keys z (float [n, d]) and y (int [n])",
            got=f"no {' and no '.join(missing)} among {', '.join(there) or 'no keys at all'}",
            do="save with np.savez(path, z=features, y=labels)",
        )
    arrays = read_arrays(path, ["z", "y", "classes"] if "classes" in there else ["z", "y"])
    return features_of(arrays["z"], arrays["y"], arrays.get("classes"), str(path), path.name, classes=classes)


def features_of(
    z: Array,
    y: Array,
    names: NDArray[Any] | Sequence[str] | None = None,
    where: str = "features",
    name: str = "features",
    *,
    classes: int | None = None,
    keys: tuple[str, str] = ("z", "y"),
) -> FeatureSet:
    """Features in memory, copied and checked as those of a file are.

    Args:
        z: float [n, d], n >= 2, finite; numpy or torch.
        y: integers [n], at least two of them different.
        names: of the classes, by label; None: their numbers.
        where: what errors call the arrays.
        name: of the result.
        classes: C, for a validation or test part: the labels must lie in [0, C). None: as many as there are names, or
            as the greatest label says.
        keys: what errors call features and labels.

    Raises:
        DataError: no array of numbers, a wrong dtype or shape, NaN or infinity, rows that do not match, fewer than two
            rows, labels outside the classes, one class only, or constant features.

    >>> import numpy as np
    >>> features_of(np.eye(3, 4), np.array([0, 1, 1]), ["cat", "dog"])
    FeatureSet('features', n=3, d=4, classes=2, 1f9314cb7092)
    """
    x_key, y_key = keys
    z, y = _array(f"{where}: {x_key}", z), _array(f"{where}: {y_key}", y)
    rows = _features(where, z, x_key)
    labels = to_labels(Part(where, z, y, x_key, y_key), len(rows))
    known = _names(where, None if names is None else np.asarray(names), labels, classes)
    if int(labels.max()) >= len(known):
        row = int((labels >= len(known)).nonzero()[0])
        raise DataError(f"{where}: {y_key} in [0, {len(known) - 1}]", got=f"label {int(labels[row])} in row {row}")
    if int(labels.min()) == int(labels.max()):
        raise DataError(f"{where}: {y_key} of at least two classes", got=f"one class only (label {int(labels[0])})")
    return FeatureSet(rows, labels, known, name)


def check_same(train: FeatureSet, other: FeatureSet) -> None:
    """Both come from one encoder and one task, as far as shapes and names can tell.

    A file without class names goes with one that has them, as long as there are as many.

    Raises:
        DataError: another d, another number of classes, or other class names.
    """
    if train.z.shape[1] != other.z.shape[1]:
        raise DataError(
            f"{other.name}: features [n, {train.z.shape[1]}], as in {train.name}",
            got=f"[n, {other.z.shape[1]}]",
            do="compute both with one encoder",
        )
    unnamed = _numbers(len(train.classes))
    if len(train.classes) != len(other.classes) or (
        train.classes != other.classes and unnamed not in (train.classes, other.classes)
    ):
        raise DataError(
            f"{other.name}: the {len(train.classes)} classes of {train.name} ({_short(train.classes)})",
            got=f"{len(other.classes)} ({_short(other.classes)})",
            do="number the classes alike in both files",
        )


def _array(what: str, values: Array) -> NDArray[Any]:
    """A copy as an array of numpy, which has no bfloat16."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return np.array((values.float() if values.dtype == torch.bfloat16 else values).numpy())
    try:
        return np.array(values)
    except ValueError as error:  # rows of unequal length
        raise DataError(f"{what}: an array of numbers", got=str(error), do="give all rows one length") from None


def _features(path: str, z: NDArray[Any], key: str = "z") -> Tensor:
    if z.dtype.kind != "f" or z.ndim != 2 or z.shape[1] < 1:
        do = f"pass {key}.reshape(len({key}), -1)" if z.dtype.kind == "f" and z.ndim and len(z) else ""
        do = f"convert it with {key}.astype(numpy.float32)" if z.dtype.kind in "iub" and z.ndim == 2 else do
        raise DataError(f"{path}: {key} float [n, d], d >= 1", got=f"{z.dtype} {list(z.shape)}", do=do)
    if len(z) < 2:
        raise DataError(f"{path}: {key} with at least two rows", got=f"{len(z)} rows")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused below
        narrow = torch.from_numpy(np.require(z, np.float32, ["C", "W"]))
    if not all(bool(bound.isfinite()) for bound in narrow.aminmax()):
        row = int((~narrow.isfinite().all(1)).nonzero()[0])
        raise DataError(f"{path}: finite features within float32", got=f"NaN or infinity in row {row} of {key}")
    if bool((narrow == narrow[0]).all()):
        raise DataError(f"{path}: features that differ between rows", got=f"the same row of {key} throughout")
    return narrow


def _names(path: str, found: NDArray[Any] | None, y: Tensor, classes: int | None) -> tuple[str, ...]:
    if found is None:
        return _numbers(int(y.max()) + 1 if classes is None else classes)
    if found.ndim != 1 or found.dtype.kind not in "USiu" or not 2 <= len(found) <= CLASS_LIMIT:
        got = f"{found.dtype} {list(found.shape)}"
        raise DataError(f"{path}: classes, a list of 2 to {CLASS_LIMIT} names", got=got)
    if classes is not None and len(found) != classes:
        raise DataError(f"{path}: {classes} classes", got=f"{len(found)} names")
    return tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in found.tolist())


def _numbers(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
