"""What every probe does: fit on labelled features, then predict."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from foretaste.encoders.base import Encoder
from foretaste.errors import DataError
from foretaste.method import Method
from foretaste.runtime import Runtime


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A probe after fitting.

    Attributes:
        predict: what the probe was fitted on to classes int64 [k] on the CPU: float [k, d] in the encoder's units, or
            uint8 [k, 3, H, W] for a probe on images.
        figures: numbers about the fit, e.g. its residual.
    """

    predict: Callable[[Tensor], Tensor]
    figures: dict[str, float] = field(default_factory=dict)


class Probe(Method):
    """A classifier on features, fitted by the victim on rows that may hold poison."""

    @abstractmethod
    def fit(self, z: Tensor, y: Tensor, classes: int, seed: int, runtime: Runtime) -> FittedProbe:
        """Fit on all rows. The same arguments give the same predictions.

        Args:
            z: float32 [n, d], n >= 1, in the encoder's own units.
            y: int64 [n] in [0, classes).
            classes: C; a class may have no row.
            seed: of the named stream `probe`, for the probes that draw.
            runtime: where to compute.

        Raises:
            DataError: no row, or labels that do not fit.
        """


class ImageProbe(Method):
    """A classifier on images that starts from the victim's encoder and may change a copy of it."""

    @abstractmethod
    def planned(self, rows: int) -> int:
        """About what `fit` costs: images forward and backward through the encoder."""

    @abstractmethod
    def fit(
        self, encoder: Encoder, pixels: Tensor, y: Tensor, classes: int, seed: int, runtime: Runtime
    ) -> FittedProbe:
        """Fit on all rows; `predict` of the result takes uint8 [k, 3, H, W]. The same arguments give the same classes.

        Args:
            encoder: never changed.
            pixels: uint8 [n, 3, H, W], n >= 1.
            y: int64 [n] in [0, classes).
            classes: C; a class may have no row.
            seed: of the named stream `probe`.
            runtime: where to compute.

        Raises:
            DataError: no row, or labels that do not fit.
            SpecError: training diverged.
        """


def check_rows(z: Tensor, y: Tensor, classes: int) -> None:
    """Raise DataError unless z is [n, d] and y [n] in [0, classes), n >= 1."""
    if z.ndim != 2 or len(z) != len(y) or not len(y):
        raise DataError("probe: features [n, d] with n labels, n >= 1", got=f"{list(z.shape)} and {list(y.shape)}")
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise DataError(f"probe: labels in [0, {classes - 1}]", got=f"{int(y.min())} to {int(y.max())}")
