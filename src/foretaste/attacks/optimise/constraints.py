"""Where poisoned features may lie. A constraint is a set with one verb: `project`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from foretaste.attacks.surrogates import FilterSurrogate
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
    """Within radii [C] (Euclidean) of the clean centroid [C, d] of the label that the row carries; both float64."""

    centroids: Tensor
    radii: Tensor

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """Pull rows outside the ball back along the ray to its centre."""
        centre = self.centroids[y]
        offset = z.double() - centre
        norm = offset.norm(dim=1)
        # A hair inside, so that rounding to float32 cannot put a row on the wrong side of the referee.
        limit = self.radii[y] * (1 - 1e-6) - torch.finfo(torch.float32).eps * centre.norm(dim=1)
        shrink = limit.clamp(min=0) / norm.clamp(min=1e-300)
        return torch.where((shrink < 1)[:, None], (centre + offset * shrink[:, None]).to(z), z)


@dataclass(frozen=True, eq=False)
class Unseen:
    """Features of another constraint that also stay under a filter's threshold, where the filter has a projection.

    Projections in turn, the constraint's last: that one was promised. Where both sets are convex this ends in both
    (von Neumann); with a sphere inside a box or ball one round is enough, since its centre is in either.
    """

    inner: Constraint
    surrogate: FilterSurrogate
    rounds: int = 5

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """Features inside the constraint, and under the threshold or near it."""
        for _ in range(self.rounds):
            z = self.inner.project(self.surrogate.project(z, y), y)
        return z


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
    rows = [z[y == c].double() for c in range(classes)]
    centroids = torch.stack([own.mean(0) for own in rows])
    distances = [(own - centre).norm(dim=1) for own, centre in zip(rows, centroids, strict=True)]
    return Ball(centroids, torch.stack([own.quantile(quantile) for own in distances]))
