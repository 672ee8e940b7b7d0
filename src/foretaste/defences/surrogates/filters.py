"""What surrogates of filters share: a threshold from clean rows, and a hinge above it with its gradient by autograd."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows

Kind = TypeVar("Kind", bound=Filter)
INSIDE = 1e-4
"""How far under the threshold projections end, relative to it: rounding must not put a row above."""


class FilterSurrogate(ABC, Generic[Kind]):
    """A filter's score as a differentiable function of one row, all else held at rows that the attacker holds.

    The filter itself scores rows among each other, poison included. Here centroids, directions and neighbours are those
    of the clean rows; heads may be those of clean rows and poison, see `among`. The order of scores is the filter's own
    where it is given those rows alone, but for the soft votes of `knn` and for `label-quality`, whose head has seen the
    rows. `flagged` asks the filter itself.

    Attributes:
        threshold: the quantile of the clean rows' scores.
        spread: the threshold less their median.
        block: rows whose graph is held at once.
    """

    block: int = 2**16
    follows: bool = False
    """Whether what is learnt is learnt anew with poison among the rows."""

    def __init__(self, defence: Kind, rows: TrainingRows, quantile: float) -> None:
        self.defence, self.classes, self.rows, self.quantile = defence, rows.classes, rows, quantile
        self._settle(rows)

    def _settle(self, rows: TrainingRows) -> None:
        self.learn(rows)
        with torch.no_grad():
            scores = self.score(self.rows.z, self.rows.y)
        self.threshold = _quantile(scores, self.quantile)
        self.spread = max(self.threshold - _quantile(scores, 0.5), 1e-12)

    def among(self, z: Tensor, y: Tensor) -> Self:
        """The surrogate that has learnt with these rows among its own; the same object where that changes nothing."""
        if not self.follows:
            return self
        found = copy.copy(self)
        found._settle(self._with(z, y))
        return found

    def flagged(self, z: Tensor, y: Tensor) -> Tensor:
        """The filter's own scores, and the quantile of those that the clean rows then have."""
        scores = self.defence.score(self._with(z, y))
        clean, poison = scores.split([len(self.rows), len(y)])
        seen: Tensor = poison > _quantile(clean, self.quantile)
        return seen

    def _with(self, z: Tensor, y: Tensor) -> TrainingRows:
        rows = self.rows
        return replace(rows, z=torch.cat([rows.z, z.to(rows.z)]), y=torch.cat([rows.y, y]))

    @abstractmethod
    def learn(self, rows: TrainingRows) -> None:
        """Keep what the score needs of the clean rows."""

    @abstractmethod
    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """How suspicious rows z float [m, d] with labels y int64 [m] are, [m] in z's dtype; higher for more."""

    def penalty(self, z: Tensor, y: Tensor) -> tuple[float, Tensor]:
        """Mean of max(0, score - threshold), and its gradient with respect to z, [m, d]."""
        excess, slopes = self._each(z, y, lambda score: torch.relu(score - self.threshold) / len(z))
        return float(excess.sum()), slopes

    def left(self, z: Tensor, y: Tensor, softness: float) -> tuple[Tensor, Tensor]:
        """sigmoid((threshold - score) / (softness * spread)) and its gradient, see `FilterSurrogate`."""
        width = softness * self.spread
        return self._each(z, y, lambda score: torch.sigmoid((self.threshold - score) / width))

    def _each(self, z: Tensor, y: Tensor, value_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """A function of each row's score, [m], and the gradient of each in its own row, [m, d]."""
        values, slopes = [], []
        for rows, labels in zip(z.split(self.block), y.split(self.block), strict=True):
            with torch.enable_grad():
                leaf = rows.detach().clone().requires_grad_()
                value = value_of(self.score(leaf, labels))
                (slope,) = torch.autograd.grad(value.sum(), leaf)
            values.append(value.detach())
            slopes.append(slope)
        return torch.cat(values), torch.cat(slopes)

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """The nearest rows whose score is at most the threshold where there is a closed form, as here there is not."""
        return z


def _quantile(scores: Tensor, share: float) -> float:
    """The score of rank ceil(share n): at least that share of the rows is at or below it."""
    rank = max(1, -int(-share * len(scores) // 1))
    return float(scores.double().sort().values[min(rank, len(scores)) - 1])
