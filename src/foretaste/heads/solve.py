"""Linear solves with the head's Hessian: preconditioned conjugate gradients (Hestenes and Stiefel 1952)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foretaste.heads.objective import Curvature

ROWS = 8192
"""Rows that a preconditioner is made from, or twice d + 1 where that is more."""
DENSE = 1500
"""Up to this many entries of W, all of H is factored."""
BLOCKS = 2**26
"""Up to this many entries (512 MiB), the class-diagonal blocks of H are factored one by one."""
LIFTS = 12
"""Times that the diagonal is raised, tenfold each, until a preconditioner can be factored: only NaN resists."""


@dataclass(frozen=True, eq=False)
class Solution:
    """H^-1 B.

    Attributes:
        value: float64 [C, d + 1].
        residual: ||H value - B|| / ||B||.
        iterations: products with H in float32.
    """

    value: Tensor
    residual: float
    iterations: int


class Preconditioner:
    """An approximate inverse of the Hessian, for matrices whose columns sum to zero.

    diag(p) - p p' maps the vector of ones to zero, so a shift of all classes by one u costs only the ridge:
    H (1 u') = ridge (1 u'). `solve` treats such shifts exactly and keeps them out of the iteration. In the rest, H is
    inverted as a whole where it is small, by its class-diagonal blocks where it is large, and by the mean of these
    blocks where they would not fit in memory or, with `cheap`, where that is as good: at W = 0 all are equal.
    """

    def __init__(self, curvature: Curvature, *, cheap: bool = False, rows: int = ROWS) -> None:
        classes, width = curvature.objective.shape
        rows = max(rows, 2 * width)
        self._whole = not cheap and classes * width <= DENSE
        if self._whole:
            parts = curvature.dense(rows)
        elif cheap or classes * width**2 > BLOCKS:
            parts = curvature.mean_block(rows)
        else:
            parts = curvature.blocks(rows)
        # Rows were sampled and multiplied in float32: keep the factors well away from singular.
        diagonal = parts.diagonal(dim1=1, dim2=2)
        lift = 1e-6 * diagonal.abs().mean(1, keepdim=True)
        for _ in range(LIFTS):
            diagonal.add_(lift)
            self._factors, failed = torch.linalg.cholesky_ex(parts)
            if not failed.any():
                break
            lift = 10 * lift
        else:
            raise torch.linalg.LinAlgError("the Hessian is not finite")  # type: ignore[attr-defined]

    def __call__(self, residual: Tensor) -> Tensor:
        """Approximately H^-1 R for R float64 [C, d + 1] whose columns sum to zero."""
        if self._whole:
            out = _factored(self._factors, residual.reshape(1, -1, 1)).reshape(residual.shape)
        elif len(self._factors) == 1:
            out = _factored(self._factors[0], residual.T).T
        else:
            out = _factored(self._factors, residual[:, :, None])[:, :, 0]
        return out - out.mean(0)

    @staticmethod
    def price(curvature: Curvature) -> float:
        """What making a full one costs, in products with H: operations, half as fast again in larger matrices."""
        classes, width = curvature.objective.shape
        count = sum(len(part) for part in curvature.objective.parts)
        side = classes * width if classes * width <= DENSE else width
        return min(count, max(ROWS, 2 * width)) * side / (3 * count)


def _factored(factors: Tensor, right: Tensor) -> Tensor:
    """(L L')^-1 R: the bits of `torch.cholesky_solve`, which copies L first, and so takes several times as long."""
    once = torch.linalg.solve_triangular(factors, right, upper=False)
    both: Tensor = torch.linalg.solve_triangular(factors.mT, once, upper=True)
    return both


def solve(
    curvature: Curvature,
    right: Tensor,
    preconditioner: Preconditioner | None,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    most: int = 500,
    exact: bool = True,
) -> Solution:
    """H^-1 B for B float64 [C, d + 1].

    Args:
        curvature: H at the point in question; its objective's ridge must be > 0.
        right: B.
        preconditioner: of this or of a nearby H; None: without, which is fastest where none is at hand and the
            tolerance is loose or the rows are few: making one then costs more than all the products it saves.
        start: a nearby solution (warm start).
        tolerance: on the relative residual.
        most: products with H in float32.
        exact: judge the residual by a product in float64, and go on from there where it is too large (iterative
            refinement). Without it, the residual is what the float32 iteration sees, which ends near 1e-6.
    """
    shift = right.mean(0, keepdim=True)  # B = 1 u' + rest
    rest = right - shift
    constant = (shift / curvature.objective.ridge).expand_as(right)
    whole = float(right.norm())
    x, residual, iterations = torch.zeros_like(rest), rest, 0
    if start is not None:
        x = start - start.mean(0, keepdim=True)
        residual = rest - curvature.product(x, exact=exact)
    bound = max(tolerance * float(rest.norm()), 1e-15 * whole)
    while (size := float(residual.norm())) > bound and iterations < most:
        # On an ill-conditioned H, a float32 iteration cannot be trusted for more than about four digits at a time.
        goal = max(0.9 * bound, 1e-4 * size) if exact else bound
        step, seen, used = _iterate(curvature, residual, preconditioner, goal, most - iterations)
        new = rest - curvature.product(x + step, exact=True) if exact else seen
        iterations += used
        if float(new.norm()) >= size:
            break
        x, residual = x + step, new
        if not exact:
            break
    return Solution(x + constant, float(residual.norm()) / max(whole, 1e-300), iterations)


def _iterate(
    curvature: Curvature, residual: Tensor, preconditioner: Preconditioner | None, goal: float, most: int
) -> tuple[Tensor, Tensor, int]:
    """Conjugate gradients from 0 until the residual is below `goal`: solution, residual, products with H."""
    x, direction, before, used = torch.zeros_like(residual), torch.zeros_like(residual), 1.0, 0
    while float(residual.norm()) > goal and used < most:
        conditioned = preconditioner(residual) if preconditioner else residual - residual.mean(0)
        now = float((residual * conditioned).sum())
        direction = conditioned + (now / before) * direction
        image = curvature.product(direction)
        bend = float((direction * image).sum())
        used += 1
        if not (bend > 0 and now > 0):  # rounding has the last word
            break
        x = x + (now / bend) * direction
        residual = residual - (now / bend) * image
        before = now
    return x, residual, used
