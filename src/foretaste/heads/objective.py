"""Loss, gradient and curvature of the head: softmax regression with L2, in closed form and chunked over rows.

    F(W) = 1/N * sum_i w_i * CE(softmax(W [x_i; 1]), y_i) + ridge/2 * ||W||^2,      N = sum_i w_i

W is [C, d + 1], the bias is its last column and is regularised like the rest, so that F is strictly convex. Sums
over rows are float64 for the loss and the gradient, which decide where the optimum is; products with the Hessian
only steer the solver and are float32, unless asked for exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from foretaste.runtime import stream

CHUNK_BYTES = {"cpu": 2**22}
"""Float32 features per chunk: on a CPU what stays in its caches, also when widened to float64."""
STACK = 4
"""Equal pieces of a chunk that are multiplied as a batch: few classes are too little work in one product to share among
cores. Fixed, so that the bits of a result do not depend on the number of threads."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A block of training rows.

    Attributes:
        x: float32 [n, d], in the units the head works in.
        y: int64 [n].
        weight: float [n], how often a row counts; None: once.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class HeadObjective:
    """The head's training problem over one or more blocks of rows (clean rows, poison), which are never copied.

    Attributes:
        parts: blocks of rows with the same d; at least one row in all.
        classes: C.
        ridge: L2 weight, > 0 for a unique optimum; 0 is allowed for a bare loss.
    """

    parts: tuple[Rows, ...]
    classes: int
    ridge: float

    @cached_property
    def total(self) -> float:
        """N, the sum of the row weights."""
        return float(sum(len(p) if p.weight is None else float(p.weight.double().sum()) for p in self.parts))

    @property
    def shape(self) -> tuple[int, int]:
        """Of W: (C, d + 1)."""
        return self.classes, self.parts[0].x.shape[1] + 1

    def zeros(self) -> Tensor:
        """W = 0, float64 [C, d + 1]."""
        return torch.zeros(self.shape, dtype=torch.float64, device=self.parts[0].x.device)

    def chunks(self) -> Iterator[Rows]:
        """The rows in pieces of a bounded size, as views."""
        size = max(64, CHUNK_BYTES.get(self.parts[0].x.device.type, 2**28) // (4 * STACK * sum(self.shape))) * STACK
        for part in self.parts:
            for start in range(0, len(part), size):
                rows = slice(start, start + size)
                yield Rows(part.x[rows], part.y[rows], None if part.weight is None else part.weight[rows])

    def loss(self, weight: Tensor) -> float:
        """F(W); W is float64 [C, d + 1]."""
        value = torch.zeros((), dtype=torch.float64, device=weight.device)
        for rows in self.chunks():
            value += _summed(torch.nn.functional.cross_entropy(logits(rows.x, weight), rows.y, reduction="none"), rows)
        return float(value) / self.total + self.ridge / 2 * float(weight.square().sum())

    def loss_and_gradient(self, weight: Tensor) -> tuple[float, Tensor]:
        """F(W) and dF/dW, float64 [C, d + 1]."""
        value = torch.zeros((), dtype=torch.float64, device=weight.device)
        gradient = torch.zeros_like(weight)
        for rows in self.chunks():
            x = _stacked(rows.x.double())  # [k, b, d]
            y = rows.y.view(len(x), 1, -1)
            log_p = torch.log_softmax(_scores(x, weight), 1)  # [k, C, b]
            value -= _summed(log_p.gather(1, y).flatten(), rows)
            r = log_p.exp_()
            r.scatter_add_(1, y, -torch.ones_like(r[:, :1]))
            if rows.weight is not None:
                r *= rows.weight.view(y.shape)
            _accumulate(gradient, r, x)
        value = value / self.total + self.ridge / 2 * weight.square().sum()
        return float(value), gradient / self.total + self.ridge * weight

    def curvature(self, weight: Tensor) -> Curvature:
        """The Hessian at W, ready for products."""
        return Curvature(self, weight)


class Curvature:
    """Hessian of F at one W; holds p [n, C] in float32, so that a product costs about 4 n C d operations."""

    def __init__(self, objective: HeadObjective, weight: Tensor) -> None:
        self.objective, self.weight = objective, weight
        self._blocks: list[tuple[Rows, Tensor, Tensor]] = []
        narrow = weight.float()
        for rows in objective.chunks():
            p = torch.softmax(_scores(_stacked(rows.x), narrow), 1)  # [k, C, b]
            self._blocks.append((rows, p, _weighted(p, rows)))

    def product(self, vector: Tensor, *, exact: bool = False) -> Tensor:
        """H V for V float64 [C, d + 1]: float32 products and float64 sums over chunks, or all of it in float64."""
        near = vector if exact else vector.float()
        out = torch.zeros_like(vector)
        for rows, p, weighted in self._blocks:
            x = _stacked(rows.x.to(near.dtype))  # [k, b, d]
            if exact:
                p = torch.softmax(_scores(x, self.weight), 1)
                weighted = _weighted(p, rows)
            s = _scores(x, near)  # [k, C, b]
            s -= (p * s).sum(1, keepdim=True)
            s *= weighted
            _accumulate(out, s, x)
        return out / self.objective.total + self.objective.ridge * vector

    def mean_block(self, most_rows: int) -> Tensor:
        """Mean of the C diagonal blocks of H, float64 [1, d + 1, d + 1], estimated from random rows."""
        a, p, weighted, scale = self._sample(most_rows)
        spread = (weighted * (1 - p)).mean(1, keepdim=True)  # [k, 1]
        return self._finish(((a * spread).T @ a)[None], scale)

    def blocks(self, most_rows: int) -> Tensor:
        """The C diagonal blocks of H, float64 [C, d + 1, d + 1], estimated from random rows.

        A preconditioner needs the shape of the curvature, not its last digit, so `most_rows` rows are enough.
        """
        a, p, weighted, scale = self._sample(most_rows)
        spread = weighted * (1 - p)  # [k, C]
        return self._finish(torch.stack([(a * column[:, None]).T @ a for column in spread.unbind(1)]), scale)

    def dense(self, most_rows: int) -> Tensor:
        """All of H, float64 [1, C (d + 1), C (d + 1)], rows and columns in the order of W; from random rows."""
        a, p, weighted, scale = self._sample(most_rows)
        classes, width = self.objective.shape
        root = (weighted / p.clamp(min=1e-30)).sqrt()  # of the row weight, [k, C]
        outer = ((p * root)[:, :, None] * a[:, None, :]).flatten(1)  # [k, C (d + 1)]
        hessian = -(outer.T @ outer)
        for c in range(classes):
            block = slice(c * width, (c + 1) * width)
            hessian[block, block] += (a * weighted[:, c : c + 1]).T @ a
        return self._finish(hessian[None], scale)

    def _finish(self, sums: Tensor, scale: float) -> Tensor:
        """Sums over rows [.., m, m] to means, with the ridge."""
        out = sums.double().mul_(scale)
        out.diagonal(dim1=-2, dim2=-1).add_(self.objective.ridge)
        return out

    def _sample(self, most_rows: int) -> tuple[Tensor, Tensor, Tensor, float]:
        """Random rows with bias [k, d + 1], p and w p there [k, C], and the factor that makes sums means.

        Random and not evenly spaced: labels often come in cycles.
        """
        count = sum(len(part) for part in self.objective.parts)
        random = stream(0, "preconditioner")
        picks = []
        for rows, p, weighted in self._blocks:
            kept = (torch.rand(len(rows), generator=random).mul_(count) < most_rows).to(p.device)
            picks.append((rows.x[kept], *(q.transpose(0, 1).flatten(1)[:, kept].T for q in (p, weighted))))
        x, p, weighted = (torch.cat(pick) for pick in zip(*picks, strict=True))
        a = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        return a, p, weighted, count / (len(a) * self.objective.total)


def logits(x: Tensor, weight: Tensor) -> Tensor:
    """[n, C] scores of rows x [n, d] under W [C, d + 1], in W's dtype."""
    return torch.addmm(weight[:, -1], x.to(weight.dtype), weight[:, :-1].T)


def _stacked(x: Tensor) -> Tensor:
    """A chunk's rows [n, d] as [k, n / k, d]: k is 1 where STACK does not divide n, as in a last chunk."""
    return x.view(STACK if len(x) % STACK == 0 else 1, -1, x.shape[1])


def _scores(x: Tensor, weight: Tensor) -> Tensor:
    """As `logits`, but [k, C, b] of x [k, b, d]: with the long side last, the products of so few classes run faster."""
    slopes = weight[:, :-1].contiguous().expand(len(x), -1, -1)
    return torch.bmm(slopes, x.transpose(1, 2)).add_(weight[:, -1:])


def _accumulate(out: Tensor, r: Tensor, x: Tensor) -> None:
    """Add the sum over rows of r [k, C, b] times [x; 1] [k, b, d + 1] to out [C, d + 1]."""
    out[:, :-1] += torch.bmm(r, x).sum(0)
    out[:, -1] += r.sum((0, 2))


def _weighted(p: Tensor, rows: Rows) -> Tensor:
    """P [k, C, b] times the row weights."""
    return p if rows.weight is None else p * rows.weight.to(p.dtype).view(len(p), 1, -1)


def _summed(values: Tensor, rows: Rows) -> Tensor:
    return (values if rows.weight is None else values * rows.weight).sum()
