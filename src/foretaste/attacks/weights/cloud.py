"""The desired class's cloud: where the features of an ordinary image of that class lie.

A target that only points the right way can still lie outside of every class and be seen by a detector of outliers;
DRUPE (Tao et al., IEEE S&P 2024) has terms of the same purpose for triggered images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from foretaste.attacks.weights.ground import floored
from foretaste.heads.scaler import Scaler


@dataclass(frozen=True, eq=False)
class Cloud:
    """Mean and spread per feature of the references, and their own median distance from the mean.

    The distance is that of Mahalanobis with a diagonal covariance: fewer references than features know no other.
    """

    scaler: Scaler
    reach: float

    @classmethod
    def of(cls, z: Tensor) -> Self:
        """The cloud of references, float [m, d]; m >= 2."""
        scaler = floored(Scaler.of([z]))
        return cls(scaler, float(_distance(scaler, z).median()))

    def distance(self, z: Tensor) -> Tensor:
        """Squared distance from the mean, [n], in units of the median reference's: up to 1 is inside."""
        return _distance(self.scaler, z) / self.reach

    def excess(self, z: Tensor) -> Tensor:
        """How far beyond the median reference, [n], 0 inside: max(0, distance - 1)."""
        return (self.distance(z) - 1).relu()


def _distance(scaler: Scaler, z: Tensor) -> Tensor:
    return scaler.apply(z).square().mean(-1)
