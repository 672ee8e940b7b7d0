"""What a filter of training rows is given and what it gives back: a score per row. Thresholds are the referee's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from foretaste.errors import DataError
from foretaste.method import Method
from foretaste.runtime import stream_seed

Reference = Literal["all", "clean"]


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """All that a filter may see: the head's training rows, some of which may be poison, and nothing about which.

    Attributes:
        z: float32 [n, d], n >= 1, features in the encoder's own units.
        y: int64 [n] in [0, classes), the labels that the rows carry.
        classes: C; a class may have no row.
        ridge: L2 weight of the head, see `heads.objective`.
        clean_z, clean_y: the defender's own rows, known to be clean, [k, d] and [k]; None where there are none.

    Raises:
        DataError: no row, shapes or labels that do not fit, or features that are not finite.
    """

    z: Tensor
    y: Tensor
    classes: int
    ridge: float = 1e-3
    clean_z: Tensor | None = None
    clean_y: Tensor | None = None

    def __post_init__(self) -> None:
        _check("training rows", self.z, self.y, self.classes)
        if (self.clean_z is None) != (self.clean_y is None):
            raise DataError("filter: features and labels of clean rows", got="one of them", do="pass both, or none")
        if self.clean_z is not None and self.clean_y is not None:
            _check("clean rows", self.clean_z, self.clean_y, self.classes)
            if self.clean_z.shape[1] != self.z.shape[1]:
                raise DataError(f"filter: clean rows with {self.z.shape[1]} features", got=f"{self.clean_z.shape[1]}")

    def __len__(self) -> int:
        return len(self.y)

    def clean(self, name: str) -> tuple[Tensor, Tensor]:
        """The defender's own rows (z [k, d], y [k]) for the filter `name`, which cannot do without.

        Raises:
            DataError: there are none.
        """
        if self.clean_z is None or self.clean_y is None:
            raise DataError(
                f"{name}: clean rows of the defender's own", got="none", do="keep a share of the data as the clean part"
            )
        return self.clean_z, self.clean_y

    def by_label(self) -> Iterator[tuple[int, Tensor]]:
        """Each label that has rows, with their places int64 [n_c]."""
        for label in self.y.unique().tolist():
            yield label, (self.y == label).nonzero()[:, 0]


class Filter(Method):
    """A defence that scores the training rows of the head, blind to the attack."""

    @abstractmethod
    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """How suspicious each row is: finite float64 [n] on the CPU, higher is more suspicious.

        Only the order counts across rows; units are the filter's own. The same arguments give the same bytes.

        Args:
            rows: what is scored; never changed.
            seed: of the named stream `defence`, for the filters that draw.

        Raises:
            DataError: clean rows are needed and absent, or there are too few rows or classes.
        """


def centroids(rows: TrainingRows, reference: Reference, name: str) -> Tensor:
    """Mean row of each label, float64 [C, d]; NaN for a label that no training row carries.

    Args:
        rows: the training rows.
        reference: `all`, the training rows themselves; `clean`, the defender's own.
        name: of the filter, for the message.

    Raises:
        DataError: `clean`, and there is no clean row at all or none of a label that training rows carry.
    """
    z, y = (rows.z, rows.y) if reference == "all" else rows.clean(name)
    held = torch.zeros(rows.classes, rows.z.shape[1], dtype=torch.float64).index_add_(0, y, z.double())
    counts = torch.bincount(y, minlength=rows.classes)  # [C]
    carried = torch.bincount(rows.y, minlength=rows.classes) > 0
    if missing := (carried & (counts == 0)).nonzero()[:, 0].tolist():
        raise DataError(
            f"{name}: a clean row of every class", got=f"none of class {missing[0]}", do="pass reference=all"
        )
    return torch.where(carried[:, None], held / counts[:, None], torch.nan)


def random_state(seed: int) -> int:
    """The stream `defence` as scikit-learn takes it, in [0, 2^32)."""
    return stream_seed(seed, "defence") % 2**32


def _check(what: str, z: Tensor, y: Tensor, classes: int) -> None:
    if z.ndim != 2 or y.ndim != 1 or len(z) != len(y) or not len(y):
        raise DataError(f"filter: {what} [n, d] with n labels, n >= 1", got=f"{list(z.shape)} and {list(y.shape)}")
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise DataError(f"filter: labels of {what} in [0, {classes - 1}]", got=f"{int(y.min())} to {int(y.max())}")
    if not bool(z.isfinite().all()):
        raise DataError(f"filter: finite features of {what}", got="NaN or infinity", do="look at the encoder's output")
