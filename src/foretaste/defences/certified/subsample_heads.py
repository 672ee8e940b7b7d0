"""Hundreds of linear heads on a few rows each, fitted together: what the certified heads vote with.

The optimum of a head on m rows of d features lies in the span of its own rows [x; 1], so with m <= d it is found in
m coordinates instead of d + 1 (QR). Heads of like size are one batch; rows that fill a batch up have weight 0. Each
head stops by its own gradient and is held still from then on, so that, to the rounding of float64, it depends on its
own rows alone: the certificates rest on that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Learner = Literal["exact", "ridge", "prototype"]
Standardise = Literal["none", "partition", "clean"]

ENTRIES = 2**23
"""Entries of the padded rows that are held at once: 64 MiB of float64."""
NEWTON, PRODUCTS, HALVINGS = 50, 60, 20
"""Bounds on Newton steps, on products with the Hessian in each, and on halvings of a step."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Which rows each head is fitted on.

    Attributes:
        rows: int64 [M], places of rows, one head after the other; a row may be in several heads.
        sizes: int64 [P], how many of them each head has; 0 is allowed.
    """

    rows: Tensor
    sizes: Tensor

    def batches(self, d: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Heads of like size: (heads int64 [b], rows int64 [b, m], bool [b, m] where there is a row).

        m is the next multiple of 8 above the head's own size, so that no head's padding depends on another's rows.
        """
        starts = self.sizes.cumsum(0) - self.sizes
        widths = (self.sizes + 7) // 8 * 8
        for width in widths.unique().tolist():
            if not width:
                continue
            heads = (widths == width).nonzero()[:, 0]
            for part in heads.split(max(1, ENTRIES // (width * (d + 1)))):
                place = torch.arange(width).expand(len(part), -1)
                there = place < self.sizes[part][:, None]
                yield part, self.rows[torch.where(there, starts[part][:, None] + place, starts[part][:, None])], there


def fit_heads(
    z: Tensor,
    y: Tensor,
    classes: int,
    groups: Groups,
    learner: Learner,
    *,
    ridge: float,
    shrinkage: float = 0.0,
    standardise: bool = False,
    tolerance: float = 1e-6,
) -> Tensor:
    """All heads, float64 [P, C, d + 1], bias last; scores are W [z; 1]. A head without rows is 0.

    Args:
        z: float [n, d].
        y: int64 [n] in [0, classes).
        classes: C; a head may lack rows of a class.
        groups: the rows of each head.
        learner: `exact`, softmax regression as in `heads.objective`; `ridge`, least squares on one-hot labels with the
            same penalty; `prototype`, nearest class mean, where a class without rows never wins.
        ridge: L2 weight > 0 of `exact` and `ridge`.
        shrinkage: of `prototype`: as many rows at the mean of the head's rows are added to each class.
        standardise: each feature by mean and deviation of the head's own rows, as `heads.scaler` does.
        tolerance: of `exact`, on the gradient norm relative to W = 0.
    """
    d = z.shape[1]
    found = torch.zeros(len(groups.sizes), classes, d + 1, dtype=torch.float64)
    for heads, rows, there in groups.batches(d):
        x = z[rows].double() * there[:, :, None]  # [b, m, d]
        mean = scale = None
        if standardise:
            x, mean, scale = standardised(x, there)
        targets = torch.nn.functional.one_hot(y[rows], classes).double() * there[:, :, None]  # [b, m, C]
        if learner == "prototype":
            weight = prototypes(x, targets, shrinkage)
        else:
            a = torch.cat([x, there[:, :, None].double()], 2)  # [b, m, d + 1]
            few, basis = coordinates(a)
            rule = exact if learner == "exact" else least_squares
            value = rule(few, targets, there, ridge, tolerance)
            weight = (value if basis is None else basis @ value).mT
        if mean is not None and scale is not None:
            weight[:, :, :-1] /= scale
            weight[:, :, -1] -= (weight[:, :, :-1] * mean).sum(2)
        found[heads] = weight
    return found


def standardised(x: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `heads.scaler.Scaler`, per head: x in standard units, mean and scale [b, 1, d]."""
    count = there.sum(1)[:, None, None]
    mean = x.sum(1, keepdim=True) / count
    centred = (x - mean) * there[:, :, None]
    scale = (centred.square().sum(1, keepdim=True) / count).clamp(min=1e-80).sqrt()  # at 0 a root has no slope
    constant = scale <= (1e-7 * mean.abs()).clamp(min=1e-30)
    scale = torch.where(constant, torch.ones_like(scale), scale)
    return centred / scale, mean, scale


def prototypes(x: Tensor, targets: Tensor, shrinkage: float) -> Tensor:
    """Nearest class mean as scores m_c z - ||m_c||^2 / 2, [b, C, d + 1]."""
    counts = targets.sum(1)[:, :, None]  # [b, C, 1]
    middle = x.sum(1, keepdim=True) / counts.sum(1, keepdim=True)
    means = (targets.mT @ x + shrinkage * middle) / (counts + shrinkage).clamp(min=1e-30)
    bias = torch.where(counts > 0, -means.square().sum(2, keepdim=True) / 2, -torch.inf)
    return torch.cat([means, bias], 2)


def coordinates(a: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rows [b, m, d + 1] in as few coordinates as they need, [b, m, q], and the basis [b, d + 1, q]; None: the same."""
    if a.shape[1] >= a.shape[2]:
        return a, None
    basis, triangle = torch.linalg.qr(a.mT)
    return triangle.mT, basis


def least_squares(x: Tensor, targets: Tensor, there: Tensor, ridge: float, tolerance: float) -> Tensor:
    """V of the closed form (X'X + ridge m I) V = X'Y, [b, q, C]."""
    count = there.sum(1)[:, None].double()
    normal = x.mT @ x + torch.diag_embed(ridge * count.expand(-1, x.shape[2]))
    return torch.cholesky_solve(x.mT @ targets, torch.linalg.cholesky(normal))


def exact(x: Tensor, targets: Tensor, there: Tensor, ridge: float, tolerance: float) -> Tensor:
    """V [b, q, C] of the softmax optimum, by Newton's method with conjugate gradients (Nocedal and Wright, 7.1)."""
    classes = targets.shape[2]
    share = there[:, :, None] / there.sum(1)[:, None, None].double()  # [b, m, 1], 1 / m or 0
    near = preconditioner(x, share, ridge, classes)
    value = torch.zeros(len(x), x.shape[2], classes, dtype=x.dtype)
    loss, p, gradient = _at(x, value, targets, share, ridge)
    norms = gradient.square().sum((1, 2))
    start = norms.clamp(min=1e-24)
    limit = tolerance**2 * start
    running = norms > limit
    for _ in range(NEWTON):
        live = running.nonzero()[:, 0]
        if not len(live):
            break
        rows, y, w = x[live], targets[live], share[live]
        # Solve roughly while far away (equation 7.3), and never beyond what the last step asks for.
        forcing = torch.maximum((norms[live] / start[live]).sqrt().clamp(max=0.25), 0.09 * limit[live] / norms[live])
        # In float32, which only steers; what decides, and where the optimum is, stays in float64.
        step = newton_step(
            rows.float(), near[live].float(), p[live].float(), gradient[live].float(), w.float(), forcing.float(), ridge
        ).double()
        slope = (gradient[live] * step).sum((1, 2))
        length = torch.ones(len(live), 1, 1, dtype=x.dtype)
        for _ in range(HALVINGS):
            moved = value[live] - length * step
            new_loss, new_p, new_gradient = _at(rows, moved, y, w, ridge)
            new_norms = new_gradient.square().sum((1, 2))
            better = new_loss <= loss[live] - 1e-4 * length[:, 0, 0] * slope
            better |= (new_loss <= loss[live] + 1e-12) & (new_norms < norms[live])  # flat to rounding
            if bool(better.all()):
                break
            length = torch.where(better[:, None, None], length, length / 2)
        kept = live[better]
        value[kept], p[kept], gradient[kept] = moved[better], new_p[better], new_gradient[better]
        loss[kept], norms[kept] = new_loss[better], new_norms[better]
        running[live] = better & (new_norms > limit[live])  # where nothing is better, rounding has the last word
    return value


def preconditioner(x: Tensor, share: Tensor, ridge: float, classes: int) -> Tensor:
    """The preconditioner of `exact`: the inverse, [b, q, q], of a Hessian that serves all classes.

    At V = 0 the softmax's weights are (I - 1 1' / C) / C: with that, one matrix per head is enough.
    """
    near = x.mT @ (x * share / classes)
    near.diagonal(dim1=1, dim2=2).add_(ridge)
    return torch.cholesky_inverse(torch.linalg.cholesky(near))


def _at(x: Tensor, value: Tensor, targets: Tensor, share: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """F [b], P [b, m, C] and dF/dV [b, q, C]."""
    log_p = torch.log_softmax(x @ value, 2)
    loss = -(share * targets * log_p).sum((1, 2)) + ridge / 2 * value.square().sum((1, 2))
    p = log_p.exp()
    return loss, p, x.mT @ (share * (p - targets)) + ridge * value


def newton_step(
    x: Tensor, near: Tensor, p: Tensor, gradient: Tensor, share: Tensor, forcing: Tensor, ridge: float
) -> Tensor:
    """H^-1 of the gradient [b, q, C], to `forcing` [b] of the residual, squared and in the norm of `near`."""
    weight = share * p
    step, direction, rest = torch.zeros_like(gradient), torch.zeros_like(gradient), gradient
    first = before = torch.ones_like(forcing)
    for product in range(PRODUCTS):
        conditioned = near @ rest
        now = (rest * conditioned).sum((1, 2))
        if not product:
            first = before = now
        going = now > forcing * first  # a head that is done gets steps of 0
        if not bool(going.any()):
            break
        direction = conditioned + torch.where(going, now / before, 0.0)[:, None, None] * direction
        scores = x @ direction
        turned = weight * scores
        image = x.mT @ (turned - p * turned.sum(2, keepdim=True)) + ridge * direction
        size = torch.where(going, now / (direction * image).sum((1, 2)), 0.0)[:, None, None]
        step, rest, before = step + size * direction, rest - size * image, now
    return step
