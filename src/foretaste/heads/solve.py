"""Linear solves with the head's Hessian: preconditioned conjugate gradients (Hestenes and Stiefel 1952)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foretaste.heads.objective import Curvature

PRECONDITIONER_ROWS = 8192
DENSE = 1500
"""Up to this many entries of W, factoring all of H costs less than the iterations it saves."""


@dataclass(frozen=True, eq=False)
class Solution:
    """H^-1 B.

    Attributes:
        value: float64 [C, d + 1].
        residual: ||H value - B|| / ||B||, as the iteration sees it.
        iterations: products with H.
    """

    value: Tensor
    residual: float
    iterations: int


class Preconditioner:
    """An approximate inverse of the Hessian, for matrices whose columns sum to zero.

    diag(p) - p p' maps the vector of ones to zero, so a shift of all classes by one u costs only the ridge:
    H (1 u') = ridge (1 u'). `solve` treats such shifts exactly and keeps them out of the iteration. In the rest, H is
    inverted as a whole where it is small, and by its class-diagonal blocks where it is large.
    """

    def __init__(self, curvature: Curvature, most_rows: int = PRECONDITIONER_ROWS) -> None:
        classes, width = curvature.objective.shape
        rows = max(most_rows, 2 * width)
        self._whole = classes * width <= DENSE
        parts = curvature.dense(rows)[None] if self._whole else curvature.blocks(rows)
        # Rows were sampled and multiplied in float32: keep the factors well away from singular.
        parts.diagonal(dim1=1, dim2=2).add_(1e-6 * parts.diagonal(dim1=1, dim2=2).mean(1, keepdim=True))
        self._factors = torch.linalg.cholesky(parts)

    def __call__(self, residual: Tensor) -> Tensor:
        """Approximately H^-1 R for R float64 [C, d + 1] whose columns sum to zero."""
        right = residual.reshape(1, -1, 1) if self._whole else residual[:, :, None]
        out = torch.cholesky_solve(right, self._factors).reshape(residual.shape)
        return out - out.mean(0)


def solve(
    curvature: Curvature,
    right: Tensor,
    preconditioner: Preconditioner,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    most: int = 500,
) -> Solution:
    """H^-1 B for B float64 [C, d + 1].

    Args:
        curvature: H at the point in question; its objective's ridge must be > 0.
        right: B.
        preconditioner: of this or of a nearby H.
        start: a nearby solution (warm start).
        tolerance: on the relative residual.
        most: products with H.
    """
    shift = right.mean(0, keepdim=True)  # B = 1 u' + rest
    rest = right - shift
    size = float(rest.norm())
    constant = (shift / curvature.objective.ridge).expand_as(right)
    if size <= 1e-14 * float(right.norm()):
        return Solution(constant.clone(), 0.0, 0)
    x = torch.zeros_like(rest) if start is None else start - start.mean(0, keepdim=True)
    residual = rest.clone() if start is None else rest - curvature.product(x)
    iterations = 0 if start is None else 1
    direction, before = torch.zeros_like(rest), 1.0
    while float(residual.norm()) > tolerance * size and iterations < most:
        conditioned = preconditioner(residual)
        now = float((residual * conditioned).sum())
        direction = conditioned + (now / before) * direction
        image = curvature.product(direction)
        step = now / float((direction * image).sum())
        x = x + step * direction
        residual = residual - step * image
        before, iterations = now, iterations + 1
    return Solution(x + constant, float(residual.norm()) / float(right.norm()), iterations)
