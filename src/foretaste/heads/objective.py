"""Loss, gradient and curvature of the head: softmax regression with L2, in closed form and chunked over rows.

    F(W) = 1/N * sum_i w_i * CE(softmax(W [x_i; 1]), y_i) + ridge/2 * ||W||^2,      N = sum_i w_i

W is [C, d + 1], the bias is its last column and is regularised like the rest, so that F is strictly convex. Sums
over rows are float64 for the loss and the gradient, which decide where the optimum is; products with the Hessian
only steer the solver and are float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

CHUNK_BYTES = 8 * 2**20  # rows per chunk are chosen so that a chunk of float32 features stays in the cache


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
        size = max(256, CHUNK_BYTES // (4 * self.shape[1]))
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
            x = rows.x.double()
            log_p = torch.log_softmax(torch.addmm(weight[:, -1], x, weight[:, :-1].T), 1)  # [b, C]
            value -= _summed(log_p.gather(1, rows.y[:, None])[:, 0], rows)
            r = log_p.exp_()
            r[torch.arange(len(rows.y), device=r.device), rows.y] -= 1
            if rows.weight is not None:
                r *= rows.weight[:, None]
            gradient[:, :-1].addmm_(r.T, x)
            gradient[:, -1] += r.sum(0)
        value = value / self.total + self.ridge / 2 * weight.square().sum()
        return float(value), gradient / self.total + self.ridge * weight

    def curvature(self, weight: Tensor) -> Curvature:
        """The Hessian at W, ready for products."""
        return Curvature(self, weight)


class Curvature:
    """Hessian of F at one W; holds p [n, C] float32, so that a product costs about 4 n C d operations."""

    def __init__(self, objective: HeadObjective, weight: Tensor) -> None:
        self.objective = objective
        self._blocks: list[tuple[Rows, Tensor, Tensor]] = []
        narrow = weight.float()
        for rows in objective.chunks():
            p = torch.softmax(logits(rows.x, narrow), 1)
            self._blocks.append((rows, p, p if rows.weight is None else p * rows.weight[:, None].float()))

    def product(self, vector: Tensor) -> Tensor:
        """H V for V float64 [C, d + 1]: float32 products, float64 sums over chunks."""
        narrow = vector.float()
        out = torch.zeros_like(vector)
        for rows, p, weighted in self._blocks:
            s = logits(rows.x, narrow)  # [b, C]
            s -= (p * s).sum(1, keepdim=True)
            s *= weighted
            out[:, :-1] += s.T @ rows.x
            out[:, -1] += s.sum(0)
        return out / self.objective.total + self.objective.ridge * vector

    def blocks(self, most_rows: int) -> Tensor:
        """The C diagonal blocks of H, float64 [C, d + 1, d + 1], estimated from evenly spaced rows.

        A preconditioner needs the shape of the curvature, not its last digit, so `most_rows` rows are enough.
        """
        a, p, weighted, scale = self._sample(most_rows)
        spread = weighted * (1 - p)  # [k, C]
        blocks = torch.stack([(a * spread[:, c : c + 1]).T @ a for c in range(spread.shape[1])]).double() * scale
        blocks.diagonal(dim1=1, dim2=2).add_(self.objective.ridge)
        return blocks

    def dense(self, most_rows: int) -> Tensor:
        """All of H, float64 [C (d + 1), C (d + 1)], rows and columns in the order of W; from evenly spaced rows."""
        a, p, weighted, scale = self._sample(most_rows)
        classes, width = self.objective.shape
        root = (weighted / p.clamp(min=1e-30)).sqrt()  # of the row weight, [k, C]
        outer = ((p * root)[:, :, None] * a[:, None, :]).flatten(1)  # [k, C (d + 1)]
        hessian = -(outer.T @ outer).double()
        for c in range(classes):
            block = slice(c * width, (c + 1) * width)
            hessian[block, block] += (a * weighted[:, c : c + 1]).T @ a
        hessian *= scale
        hessian.diagonal().add_(self.objective.ridge)
        return hessian

    def _sample(self, most_rows: int) -> tuple[Tensor, Tensor, Tensor, float]:
        """Evenly spaced rows with bias [k, d + 1], p and w p there [k, C], and the factor that makes sums means."""
        count = sum(len(rows) for rows, _, _ in self._blocks)
        step = max(1, count // most_rows)
        x, p, weighted = (
            torch.cat([pick[::step] for pick in picks])
            for picks in zip(*((rows.x, p, w) for rows, p, w in self._blocks), strict=True)
        )
        a = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        return a, p, weighted, count / (len(a) * self.objective.total)


def logits(x: Tensor, weight: Tensor) -> Tensor:
    """[n, C] scores of rows x [n, d] under W [C, d + 1], in W's dtype."""
    return torch.addmm(weight[:, -1], x.to(weight.dtype), weight[:, :-1].T)


def _summed(values: Tensor, rows: Rows) -> Tensor:
    return (values if rows.weight is None else values * rows.weight).sum()
