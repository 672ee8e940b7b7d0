"""The border: arrays in the layouts that people use become `Images`, or one clear error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.data.base import Dataset
from foretaste.errors import DataError
from foretaste.images import Images

CLASS_LIMIT = 2**16
"""Records keep labels as uint16."""


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a source as it was read, not yet checked.

    Attributes:
        where: what errors call it, e.g. the file.
        x: images, uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3.
        y: labels, integers [N].
        x_key: name of the images inside `where`.
        y_key: name of the labels inside `where`.
    """

    where: str
    x: NDArray[Any]
    y: NDArray[Any]
    x_key: str = "images"
    y_key: str = "labels"


def assemble(name: str, train: Part, test: Part | None = None, *, classes: Sequence[str] | None = None) -> Dataset:
    """Check both parts against each other and make the data set.

    Args:
        name: of the `Images`.
        train: rows of the source's training part, or of its only one.
        test: rows of its test part.
        classes: names by label; default: the numbers up to the greatest label.

    Raises:
        DataError: a dtype, shape, row count or label is wrong, or there is one class only.
    """
    parts = [train] if test is None else [train, test]
    pixels = [to_pixels(part.x, f"{part.where}: {part.x_key}") for part in parts]
    labels = [to_labels(part, len(x)) for part, x in zip(parts, pixels, strict=True)]
    if len({tuple(x.shape[2:]) for x in pixels}) > 1:
        sizes = " and ".join(f"{x.shape[2]}x{x.shape[3]}" for x in pixels)
        raise DataError(f"{train.where}: train and test images of one size", got=sizes, do="resize one part")
    if classes is None:
        classes = [str(label) for label in range(1 + max(int(y.max()) for y in labels))]
    for part, y in zip(parts, labels, strict=True):
        _check_range(part, y, len(classes))
    present = len(torch.unique(labels[0]))
    if present < 2:
        raise DataError(
            f"{train.where}: {train.y_key} of at least two classes", got=f"one class only (label {int(labels[0][0])})"
        )
    images = [Images(x, y, tuple(classes), name) for x, y in zip(pixels, labels, strict=True)]
    return Dataset(*images)


def to_pixels(x: NDArray[Any], where: str) -> Tensor:
    """Images [N, H, W], [N, H, W, C] or [N, C, H, W], uint8, C 1 or 3, to uint8 [N, 3, H, W].

    Raises:
        DataError: another dtype, no row, or a shape that is none of the three, or two of them at once.
    """
    if x.dtype != np.uint8:
        raise DataError(f"{where}: uint8 images, 0 to 255", got=_describe(x), do=_conversion(x))
    grey_or_colour = (1, 3)
    last = x.ndim == 4 and x.shape[3] in grey_or_colour
    first = x.ndim == 4 and x.shape[1] in grey_or_colour
    if x.ndim != 3 and last == first:
        got = f"shape {list(x.shape)}" + (", which fits both layouts" if last else "")
        raise DataError(f"{where}: images [N, H, W, C], [N, C, H, W] or [N, H, W] with C 1 or 3", got=got)
    if 0 in x.shape:
        raise DataError(f"{where}: at least one image with at least one pixel", got=f"shape {list(x.shape)}")
    tensor = torch.from_numpy(np.require(x, requirements="W"))
    tensor = tensor[:, None] if x.ndim == 3 else tensor.permute(0, 3, 1, 2) if last else tensor  # [N, C, H, W]
    return tensor.expand(-1, 3, -1, -1).contiguous()


def to_labels(part: Part, rows: int) -> Tensor:
    """Labels to int64 [N], non-negative and below `CLASS_LIMIT`.

    Raises:
        DataError: not integers, not one per image, or out of that range.
    """
    where, y = f"{part.where}: {part.y_key}", part.y
    if y.dtype.kind not in "iu":
        raise DataError(f"{where}: integer labels", got=_describe(y), do="save the index of each row's class")
    if y.ndim != 1:
        raise DataError(f"{where}: one label per row, [{rows}]", got=f"shape {list(y.shape)}", do="save y.reshape(-1)")
    if len(y) != rows:
        raise DataError(f"{where}: one label for each of the {rows} rows of {part.x_key}", got=f"{len(y)} labels")
    # Before the cast: a uint64 over 2^63 would come out negative.
    _check_range(part, y, CLASS_LIMIT)
    return torch.from_numpy(y.astype(np.int64))


def _check_range(part: Part, y: NDArray[Any] | Tensor, classes: int) -> None:
    wrong = (y < 0) | (y >= classes)
    if wrong.any():
        row = int(wrong.nonzero()[0][0])
        found = f"label {int(y[row])} in row {row} ({int(wrong.sum())} such rows)"
        raise DataError(f"{part.where}: {part.y_key} in [0, {classes - 1}]", got=found)


def _describe(x: NDArray[Any]) -> str:
    if x.dtype.kind not in "fiu" or not x.size:
        return f"{x.dtype} {list(x.shape)}"
    if not np.isfinite(x).all():
        return f"{x.dtype} with {int(np.isnan(x).sum())} NaN and {int(np.isinf(x).sum())} infinite values"
    return f"{x.dtype} from {x.min():g} to {x.max():g}"


def _conversion(x: NDArray[Any]) -> str:
    if x.dtype.kind not in "fiu" or not x.size or not np.isfinite(x).all():
        return "save uint8 images"
    low, high = x.min(), x.max()
    if x.dtype.kind == "f" and low >= 0 and high <= 1:
        return "save np.rint(x * 255).astype(np.uint8)"
    if low >= 0 and high <= 255:
        return "save np.rint(x).astype(np.uint8)"
    return "undo the normalisation, then save uint8 images"
