"""Standardisation of features, fitted on the rows that the head is fitted on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

CHUNK = 2**19
"""Entries of the features that are widened to float64 at once."""


@dataclass(frozen=True, eq=False)
class Scaler:
    """Mean and standard deviation per feature, float64 [d]; a constant feature keeps its unit."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, parts: Iterable[Tensor]) -> Self:
        """Moments of all rows of all parts (float [n_i, d]) together, in float64 and without a copy of the rows."""
        parts = list(parts)
        n = sum(len(part) for part in parts)
        mean = torch.stack([_summed(part, None) for part in parts]).sum(0) / n
        variance = torch.stack([_summed(part, mean) for part in parts]).sum(0) / n
        scale = variance.clamp(min=0).sqrt()
        # Relative to the feature's own size: float32 rounding of a constant is not a spread.
        constant = scale <= (1e-7 * mean.abs()).clamp(min=1e-30)
        return cls(mean, torch.where(constant, torch.ones_like(scale), scale))

    def apply(self, z: Tensor) -> Tensor:
        """Features [n, d] to standard units, same dtype."""
        return (z - self.mean.to(z)).div_(self.scale.to(z))

    def apply_(self, z: Tensor) -> Tensor:
        """As `apply`, overwriting `z`, for sets that fit in memory only once."""
        return z.sub_(self.mean.to(z)).div_(self.scale.to(z))

    def undo(self, x: Tensor) -> Tensor:
        """Standard units [n, d] back to the features' own."""
        return x * self.scale.to(x) + self.mean.to(x)


def _summed(rows: Tensor, mean: Tensor | None) -> Tensor:
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for block in rows.split(max(1, CHUNK // rows.shape[1])):
        exact = block.double()
        total += exact.sum(0) if mean is None else (exact - mean).square_().sum(0)
    return total
