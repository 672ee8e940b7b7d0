"""`Images`: a whole data set as one immutable value. uint8 stays uint8 until the batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from foretaste.errors import DataError


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images.

    Attributes:
        pixels: uint8 [N, 3, H, W]; an array of numpy is copied into a tensor.
        labels: int64 [N], indices into `classes`; likewise.
        classes: names, as the user spelled them (escape before showing).
        name: where the images came from.
        digest: sha256 over shape, pixels, labels and class names; made here.

    Raises:
        DataError: a shape, dtype or label breaks the contract above.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        for key in ("pixels", "labels"):
            if isinstance(array := getattr(self, key), np.ndarray):
                kind = np.int64 if key == "labels" and array.dtype.kind in "iu" else array.dtype
                object.__setattr__(self, key, torch.from_numpy(np.array(array, dtype=kind)))
        object.__setattr__(self, "classes", tuple(self.classes))
        shape = tuple(self.pixels.shape)
        if self.pixels.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or 0 in shape[2:]:
            raise DataError(f"{self.name}: pixels uint8 [N, 3, H, W]", got=f"{self.pixels.dtype} {list(shape)}")
        if self.labels.dtype != torch.int64 or tuple(self.labels.shape) != shape[:1]:
            found = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise DataError(f"{self.name}: labels int64 [{shape[0]}]", got=found)
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            found = f"{int(self.labels.min())} to {int(self.labels.max())}"
            raise DataError(f"{self.name}: labels in [0, {len(self.classes) - 1}]", got=found)
        object.__setattr__(self, "digest", digest_rows(self.pixels, self.labels, self.classes))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = "x".join(str(side) for side in self.pixels.shape[2:])
        return f"Images({self.name!r}, n={len(self)}, {size}, classes={len(self.classes)}, {self.digest[:12]})"

    def take(self, rows: Tensor) -> Images:
        """The given rows (int64 [k]), in that order, with the same classes and name."""
        return Images(self.pixels[rows].contiguous(), self.labels[rows].contiguous(), self.classes, self.name)


def digest_rows(values: Tensor, labels: Tensor, classes: tuple[str, ...]) -> str:
    """sha256 of rows (any dtype, [N, ...]) with labels [N] and class names."""
    sha = hashlib.sha256(f"{values.dtype} {list(values.shape)} {list(classes)}".encode())
    for tensor in (values, labels):
        sha.update(tensor.detach().cpu().contiguous().numpy().data)
    return sha.hexdigest()
