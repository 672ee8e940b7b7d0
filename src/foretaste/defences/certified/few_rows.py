"""Hundreds of linear heads on a few rows each, fitted together: what the certified heads vote with.

A head on m rows of d features has its optimum among the combinations of its own rows, W = V' [x; 1] with V [m, C], so
with m << d everything happens in the Gram matrix of the rows, [m, m]. Heads of like size are one batch; rows that fill
a batch up have weight 0. Each head stops by its own gradient and is held still from then on, so that, to the rounding
of float64, it depends on its own rows alone: the certificates rest on that.
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
"""Entries of the Gram matrices (and of the padded rows) that are held at once: 64 MiB of float64."""
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

        m is the next multiple of 4 above the head's own size, so that no head's padding depends on another's rows.
        """
        starts = self.sizes.cumsum(0) - self.sizes
        widths = (self.sizes + 3) // 4 * 4
        for width in widths.unique().tolist():
            if not width:
                continue
            heads = (widths == width).nonzero()[:, 0]
            for part in heads.split(max(1, ENTRIES // (width * max(width, d + 1)))):
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
            x, mean, scale = _standardised(x, there)
        targets = torch.nn.functional.one_hot(y[rows], classes).double() * there[:, :, None]  # [b, m, C]
        if learner == "prototype":
            weight = _prototypes(x, targets, shrinkage)
        else:
            a = torch.cat([x, there[:, :, None].double()], 2)  # [b, m, d + 1]
            gram = a @ a.mT
            rule = _exact if learner == "exact" else _least_squares
            dual = rule(gram, targets, there, ridge, tolerance)
            weight = dual.mT @ a
        if mean is not None and scale is not None:
            weight[:, :, :-1] /= scale
            weight[:, :, -1] -= (weight[:, :, :-1] * mean).sum(2)
        found[heads] = weight
    return found


def _standardised(x: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `heads.scaler.Scaler`, per head: x in standard units, mean and scale [b, 1, d]."""
    count = there.sum(1)[:, None, None]
    mean = x.sum(1, keepdim=True) / count
    centred = (x - mean) * there[:, :, None]
    scale = (centred.square().sum(1, keepdim=True) / count).sqrt()
    constant = scale <= (1e-7 * mean.abs()).clamp(min=1e-30)
    scale = torch.where(constant, torch.ones_like(scale), scale)
    return centred / scale, mean, scale


def _prototypes(x: Tensor, targets: Tensor, shrinkage: float) -> Tensor:
    """Nearest class mean as scores m_c z - ||m_c||^2 / 2, [b, C, d + 1]."""
    counts = targets.sum(1)[:, :, None]  # [b, C, 1]
    middle = x.sum(1, keepdim=True) / counts.sum(1, keepdim=True)
    means = (targets.mT @ x + shrinkage * middle) / (counts + shrinkage).clamp(min=1e-30)
    bias = torch.where(counts > 0, -means.square().sum(2, keepdim=True) / 2, -torch.inf)
    return torch.cat([means, bias], 2)


def _least_squares(gram: Tensor, targets: Tensor, there: Tensor, ridge: float, tolerance: float) -> Tensor:
    """V of the closed form (G + ridge m I) V = Y, [b, m, C]."""
    count = there.sum(1)[:, None].double()
    return torch.cholesky_solve(targets, torch.linalg.cholesky(gram + torch.diag_embed(ridge * count.expand_as(there))))


def _exact(gram: Tensor, targets: Tensor, there: Tensor, ridge: float, tolerance: float) -> Tensor:
    """V of the softmax optimum, by Newton's method with conjugate gradients (Nocedal and Wright, section 7.1).

    In V [b, m, C] the gradient of F is A' r with r = (P - Y) / m + ridge V, and its Hessian A' (D G / m + ridge) with D
    the softmax's weights; both are self-adjoint in the inner product <u, v> = tr(u' G v), in which the iteration runs.
    """
    classes = targets.shape[2]
    share = there[:, :, None] / there.sum(1)[:, None, None].double()  # [b, m, 1], 1 / m or 0
    # At V = 0, D is (I - 1 1' / C) / C: with that, one matrix per head serves all classes.
    eye = torch.eye(gram.shape[1], dtype=gram.dtype)
    near = torch.linalg.inv(gram * share / classes + ridge * eye)
    dual, scores = torch.zeros_like(targets), torch.zeros_like(targets)
    loss, p, r = _at(dual, scores, targets, share, ridge)
    norms = _inner(r, gram @ r)
    start = norms.clamp(min=1e-24)
    limit = tolerance**2 * start
    running = norms > limit
    for _ in range(NEWTON):
        live = running.nonzero()[:, 0]
        if not len(live):
            break
        g, w = gram[live], share[live]
        # Solve roughly while far away (equation 7.3), and never beyond what the last step asks for.
        forcing = torch.maximum((norms[live] / start[live]).sqrt().clamp(max=0.09), 0.09 * limit[live] / norms[live])
        step, image = _newton_step(g, near[live], p[live], r[live], w, ridge, forcing)
        slope = _inner(r[live], image)
        length = torch.ones(len(live), 1, 1, dtype=gram.dtype)
        for _ in range(HALVINGS):
            moved, seen = dual[live] - length * step, scores[live] - length * image
            new_loss, new_p, new_r = _at(moved, seen, targets[live], w, ridge)
            new_norms = _inner(new_r, g @ new_r)
            better = new_loss <= loss[live] - 1e-4 * length[:, 0, 0] * slope
            better |= (new_loss <= loss[live] + 1e-12) & (new_norms < norms[live])  # flat to rounding
            if bool(better.all()):
                break
            length = torch.where(better[:, None, None], length, length / 2)
        kept = live[better]
        dual[kept], scores[kept], p[kept], r[kept] = moved[better], seen[better], new_p[better], new_r[better]
        loss[kept], norms[kept] = new_loss[better], new_norms[better]
        running[live] = better & (new_norms > limit[live])  # where nothing is better, rounding has the last word
    return dual


def _at(dual: Tensor, scores: Tensor, targets: Tensor, share: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """F [b], P and r, both [b, m, C], at V with G V = scores."""
    log_p = torch.log_softmax(scores, 2)
    loss = -(share * targets * log_p).sum((1, 2)) + ridge / 2 * _inner(dual, scores)
    p = log_p.exp()
    return loss, p, share * (p - targets) + ridge * dual


def _newton_step(
    gram: Tensor, near: Tensor, p: Tensor, r: Tensor, share: Tensor, ridge: float, forcing: Tensor
) -> tuple[Tensor, Tensor]:
    """H^-1 r and G times it, [b, m, C] each, to `forcing` of the residual, squared and in the norm of `near`, [b]."""
    weight = share * p
    step, image = torch.zeros_like(r), torch.zeros_like(r)
    rest, direction, along = r, torch.zeros_like(r), torch.zeros_like(r)
    first = before = torch.ones_like(forcing)
    for product in range(PRODUCTS):
        conditioned = near @ rest
        pushed = gram @ conditioned
        now = _inner(rest, pushed)
        if not product:
            first = before = now
        going = now > forcing * first  # a head that is done gets steps of 0
        if not bool(going.any()):
            break
        ratio = torch.where(going, now / before, 0.0)[:, None, None]
        direction, along = conditioned + ratio * direction, pushed + ratio * along
        turned = weight * along
        turned = turned - p * turned.sum(2, keepdim=True) + ridge * direction
        size = torch.where(going, now / _inner(turned, along), 0.0)[:, None, None]
        step, image, rest = step + size * direction, image + size * along, rest - size * turned
        before = now
    return step, image


def _inner(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum((1, 2))
