"""Where poisoned features may lie. A constraint is a set with one verb: `project`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from foretaste.errors import BudgetError

FeatureConstraint = Literal["none", "box", "ball"]


class Constraint(Protocol):
    """A set of features that depends on the label."""

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """The nearest allowed features [m, d] for labels [m]."""
        ...


@dataclass(frozen=True)
class Everywhere:
    """No constraint."""

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """Features as they are."""
        return z


@dataclass(frozen=True, eq=False)
class Box:
    """Each feature within the range of the clean rows, low and high [d]."""

    low: Tensor
    high: Tensor

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """Clip each feature."""
        return z.clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class Ball:
    """Within radii [C] (Euclidean) of the clean centroid [C, d] of the label that the row carries."""

    centroids: Tensor
    radii: Tensor

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """Pull rows outside the ball back along the ray to its centre."""
        offset = z - self.centroids[y]
        norm = offset.norm(dim=1, keepdim=True)
        # A hair inside, so that float32 rounding cannot put a row on the wrong side of the referee.
        limit = self.radii[y][:, None] * (1 - 1e-6)
        shrink = torch.clamp(limit / norm.clamp(min=1e-30), max=1)
        return self.centroids[y] + offset * shrink


def feature_constraint(kind: FeatureConstraint, z: Tensor, y: Tensor, classes: int, quantile: float) -> Constraint:
    """The constraint set that clean rows z [n, d] with labels y [n] define.

    Args:
        kind: none, box, or ball.
        z: clean features, in the units in which poison is made.
        y: clean labels.
        classes: C.
        quantile: in (0, 1]; a ball holds this share of its class's clean rows.

    Raises:
        BudgetError: a class has no clean row, so its ball is not defined.
    """
    if kind == "none":
        return Everywhere()
    if kind == "box":
        return Box(z.amin(0), z.amax(0))
    counts = torch.bincount(y, minlength=classes)
    if bool((counts == 0).any()):
        missing = (counts == 0).nonzero()[:, 0].tolist()
        raise BudgetError("constraint ball: at least one clean row of each class", got=f"none of class {missing}")
    centroids = torch.zeros(classes, z.shape[1], dtype=z.dtype).index_add_(0, y, z) / counts[:, None]
    distance = (z - centroids[y]).norm(dim=1)
    radii = torch.stack([distance[y == c].quantile(quantile) for c in range(classes)])
    return Ball(centroids, radii)
