"""Adam uphill on one tensor."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1) with its usual moments, upwards along `leaf.grad`.

    The same numbers as torch.optim's; but the first of those in a process loads torch's compiler, which takes as long
    as a whole attack.
    """

    BETAS = (0.9, 0.999)

    def __init__(self, leaf: Tensor, rate: float) -> None:
        self.leaf, self.rate = leaf, rate
        self._first, self._second = torch.zeros_like(leaf), torch.zeros_like(leaf)
        self._steps = 0

    def step(self) -> None:
        """Move the leaf in place."""
        gradient = self.leaf.grad
        assert gradient is not None
        first, second = self.BETAS
        self._steps += 1
        self._first.lerp_(gradient, 1 - first)
        self._second.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (self._second / (1 - second**self._steps)).sqrt_().add_(1e-8)
        self.leaf.addcdiv_(self._first, size, value=self.rate / (1 - first**self._steps))
