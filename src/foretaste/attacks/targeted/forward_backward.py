"""Forward-backward splitting: a gradient step on one part of an objective, an exact one on the rest, poison by poison.

Goldstein, Studer, Baraniuk, "A Field Guide to Forward-Backward Splitting with a FASTA Implementation", 2014
(arXiv 1411.3406), sections 3.3 and 4: the solver that Poison Frogs names, with its adaptive steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 10
"""Values that a step may not exceed the highest of (non-monotone line search, the Field Guide's default)."""


class ForwardBackward:
    """Minimise h(u) + stay/2 ||u - base||^2 over each poison u, h by gradient steps and the rest by its proximal map.

    Steps are Barzilai and Borwein's, each poison's own. A step after which the poison's value exceeds those of the last
    `WINDOW` accepted ones is taken back and halved.

    Args:
        leaf: float32 [m, ...], at the base.
        rate: how far the first step moves the entry of each poison that it moves most; its sign does not matter.
        stay: weight of staying near the base, at least 0.
        base: float32 [m, ...]; default: where the leaf is.
    """

    def __init__(self, leaf: Tensor, rate: float, stay: float, base: Tensor | None = None) -> None:
        self.leaf, self.rate, self.stay = leaf, abs(rate), stay
        self._base = leaf.clone() if base is None else base
        self._at, self._slope = leaf, torch.empty(0)  # where each poison was accepted last, and h's gradient there
        self._size = self._recent = torch.empty(0)  # [m] and [WINDOW, m]

    def step(self, rows: Tensor | None = None) -> None:
        """Move the leaf in place, given the objective of each poison there."""
        slope = self.leaf.grad
        assert slope is not None
        assert rows is not None
        if not len(self._size):
            self._size = self.rate / slope.abs().flatten(1).amax(1).clamp(min=1e-30)
            self._recent, self._at, self._slope = rows.expand(WINDOW, -1), self.leaf.clone(), slope.clone()
        else:
            worse = rows > self._recent.amax(0)  # [m]
            self._size = torch.where(worse, self._size / 2, self._spectral(slope))
            self._recent = torch.cat([self._recent[1:], torch.where(worse, self._recent[-1], rows)[None]])
            back = self._wide(worse)
            self._at = torch.where(back, self._at, self.leaf)
            self._slope = torch.where(back, self._slope, slope)
        size = self._wide(self._size)
        ahead, weight = self._at - size * self._slope, size * self.stay
        self.leaf.copy_((ahead + weight * self._base) / (1 + weight))

    def _spectral(self, slope: Tensor) -> Tensor:
        """The adaptive step of Barzilai and Borwein [m]: the Field Guide's equations (31) and (32)."""
        moved, turned = ((a - b).flatten(1) for a, b in ((self.leaf, self._at), (slope, self._slope)))
        product = (moved * turned).sum(1)
        long = moved.square().sum(1) / product
        short = product / turned.square().sum(1)
        found = torch.where(2 * short > long, short, long - short / 2)
        return torch.where((product > 0) & found.isfinite(), found, self._size)

    def _wide(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (self.leaf.ndim - 1))
