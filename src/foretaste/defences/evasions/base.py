"""What the stand-ins share: a threshold from clean rows, and a hinge above it with its gradient by autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows

Kind = TypeVar("Kind", bound=Filter)
INSIDE = 1e-4
"""How far under the threshold projections end, relative to it: rounding must not put a row above."""


class Surrogate(ABC, Generic[Kind]):
    """A filter's score as a differentiable function of one row, all else held at the clean rows.

    The filter itself scores rows among each other, poison included; here centroids, directions and heads are those of
    the clean rows that the attacker holds. Scores are the filter's own where it is given those rows alone, but for the
    soft votes of `knn`, in other units, and for `label-quality`, whose head has seen the rows.

    Attributes:
        threshold: the quantile of the clean rows' scores.
        block: rows whose graph is held at once.
    """

    block: int = 2**16

    def __init__(self, defence: Kind, rows: TrainingRows, quantile: float) -> None:
        self.defence, self.classes = defence, rows.classes
        self.learn(rows)
        with torch.no_grad():
            self.threshold = _quantile(self.score(rows.z, rows.y), quantile)

    @abstractmethod
    def learn(self, rows: TrainingRows) -> None:
        """Keep what the score needs of the clean rows."""

    @abstractmethod
    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """How suspicious rows z float [m, d] with labels y int64 [m] are, [m] in z's dtype; higher for more."""

    def penalty(self, z: Tensor, y: Tensor) -> tuple[float, Tensor]:
        """Mean of max(0, score - threshold), and its gradient with respect to z, [m, d]."""
        total, slopes = 0.0, []
        for rows, labels in zip(z.split(self.block), y.split(self.block), strict=True):
            with torch.enable_grad():
                leaf = rows.detach().clone().requires_grad_()
                excess = torch.relu(self.score(leaf, labels) - self.threshold).sum() / len(z)
                (slope,) = torch.autograd.grad(excess, leaf)
            total += float(excess.detach())
            slopes.append(slope)
        return total, torch.cat(slopes)

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """The nearest rows whose score is at most the threshold where there is a closed form, as here there is not."""
        return z


def _quantile(scores: Tensor, share: float) -> float:
    """The score of rank ceil(share n): at least that share of the rows is at or below it."""
    rank = max(1, -int(-share * len(scores) // 1))
    return float(scores.double().sort().values[min(rank, len(scores)) - 1])
