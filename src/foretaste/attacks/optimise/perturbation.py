"""Noise on rows that moves by the sign of the gradient: of each row's own, or shared by the rows of a class."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.attacks.optimise.carriers import FeatureCarrier, PixelCarrier


class SignPerturbation:
    """Sign steps of a carrier's leaf, row by row, or the same for all rows of a class.

    Args:
        carrier: at the clean rows; its projection keeps the noise inside its bound.
        y: int64 [m].
        reach: bound of the noise in the leaf's unit.
        classes: C for noise of the class; None for noise of the row.
    """

    def __init__(self, carrier: FeatureCarrier | PixelCarrier, y: Tensor, reach: float, classes: int | None) -> None:
        self.carrier, self.y, self.reach = carrier, y, reach
        self._clean = self._shared = self._counts = None
        if classes is not None:
            self._clean = carrier.leaf.clone()
            self._shared = carrier.leaf.new_zeros(classes, *carrier.leaf.shape[1:])
            shape = (-1, *[1] * (carrier.leaf.ndim - 1))
            self._counts = torch.bincount(y, minlength=classes).clamp(min=1).view(shape)

    def step(self, size: float) -> None:
        """Against the sign of the leaf's gradient, so that the loss falls (Huang et al., ICLR 2021, section 3)."""
        gradient = self.carrier.leaf.grad
        assert gradient is not None
        if self._shared is None or self._counts is None:
            self.carrier.leaf.sub_(gradient.sign(), alpha=size)
            self.carrier.project(self.y)
            return
        mean = torch.zeros_like(self._shared).index_add_(0, self.y, gradient.sign()) / self._counts
        self._shared.sub_(mean, alpha=size).clamp_(-self.reach, self.reach)
        self._place(self._shared)

    def settle(self, levels: float) -> None:
        """Shared noise in whole grey levels, or rounding row by row would make it differ within a class."""
        if self._shared is not None and levels > 1:
            self._place((self._shared * levels).round() / levels)

    def _place(self, shared: Tensor) -> None:
        assert self._clean is not None
        self.carrier.leaf.copy_(self._clean + shared[self.y])
        self.carrier.project(self.y)
