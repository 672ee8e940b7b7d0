"""Base learners of certified heads as differentiable functions of the rows that they are fitted on.

At the optimum W* of a strictly convex F(W, X) the implicit function theorem gives dW*/dX = -H^-1 d2F/dWdX, with H the
Hessian in W. So W* is found without a graph, and its gradient g is sent back as -H^-1 g through dF/dW(W*, X), which has
one (as in Amos and Kolter, OptNet, ICML 2017, section 3). All heads of a batch are solved together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foretaste.defences.certified.base import CertifiedHead
from foretaste.defences.certified.subsample_heads import (
    coordinates,
    exact,
    least_squares,
    newton_step,
    preconditioner,
    prototypes,
    standardised,
)

FIT, SOLVE = 1e-5, 1e-6
"""Tolerances: gradient norm of a fit relative to W = 0, and squared residual of a solve with its Hessian."""


def differentiable_heads(head: CertifiedHead, x: Tensor, targets: Tensor, there: Tensor) -> Tensor:
    """Heads [b, C, d + 1], bias last, in x's units and with a graph to x; see `subsample_heads.fit_heads`.

    Args:
        head: which learner, with its fields.
        x: float64 [b, m, d], the rows of each head as the head's view has them.
        targets: one-hot labels float64 [b, m, C], 0 where there is no row.
        there: bool [b, m], where there is a row.
    """
    x, mean, scale = x * there[:, :, None], None, None
    if head.standardise == "partition":
        x, mean, scale = standardised(x, there)
    if head.head == "prototype":
        weight = prototypes(x, targets, head.shrinkage)
    else:
        rows = torch.cat([x, there[:, :, None].double()], 2)  # [b, m, d + 1]
        weight = _optimum(head, rows, targets, there).mT
    if mean is not None and scale is not None:
        slopes = weight[:, :, :-1] / scale
        weight = torch.cat([slopes, weight[:, :, -1:] - (slopes * mean).sum(2, keepdim=True)], 2)
    return weight


def _optimum(head: CertifiedHead, rows: Tensor, targets: Tensor, there: Tensor) -> Tensor:
    """W* [b, d + 1, C] of `exact` or `ridge` on rows [b, m, d + 1]."""
    ridge, convex = head.ridge, head.head == "exact"
    with torch.no_grad():
        few, basis = coordinates(rows.detach())
        value = (exact if convex else least_squares)(few, targets, there, ridge, FIT)
        weight = value if basis is None else basis @ value
    if not rows.requires_grad:
        return weight
    count = there.sum(1)[:, None, None].double()
    share = there[:, :, None] / count if convex else there[:, :, None].double()
    scores = rows @ weight
    residual = (torch.softmax(scores, 2) if convex else scores) - targets
    own = torch.full_like(count, ridge) if convex else ridge * count  # [b, 1, 1], the weight of ||W||^2 / 2 in F

    def inverse(slope: Tensor) -> Tensor:
        """H^-1 of [b, d + 1, C]; across the rows' span H is `own` times the identity."""
        inside = slope if basis is None else basis.mT @ slope
        if convex:
            p, near = torch.softmax(few @ value, 2), preconditioner(few, share, ridge, targets.shape[2])
            solved = newton_step(few, near, p, inside, share, torch.full_like(count[:, 0, 0], SOLVE), ridge)
        else:
            normal = few.mT @ few + torch.diag_embed(own[:, :, 0] * torch.ones_like(few[:, 0]))
            solved = torch.cholesky_solve(inside, torch.linalg.cholesky(normal))
        return solved if basis is None else basis @ solved + (slope - basis @ inside) / own

    found: Tensor = _Implicit.apply(rows.mT @ (share * residual) + own * weight, weight, inverse)
    return found


class _Implicit(torch.autograd.Function):
    """W* as a function of dF/dW(W*, .), which is 0 there."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, weight: Tensor, inverse: Callable[[Tensor], Tensor]) -> Tensor:
        """W*, whatever rounding has left of the slope."""
        ctx.inverse = inverse
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """-H^-1 of the gradient."""
        return -ctx.inverse(gradients[0]), None, None
