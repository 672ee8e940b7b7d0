"""Small problems for the head, and its objective a second time: float64 numpy, one row and one class at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from foretaste.heads.objective import HeadObjective, Rows
from foretaste.runtime import generator

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Rows x [n, d] with labels, weights and an L2 weight."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: int
    ridge: float = 1e-2
    weights: Array | None = None

    def objective(self, *cuts: int) -> HeadObjective:
        """The same problem in the library's terms, cut into parts before these rows."""
        x, y = torch.as_tensor(self.x), torch.as_tensor(self.y)
        w = None if self.weights is None else torch.as_tensor(self.weights)
        edges = [0, *cuts, len(y)]
        pieces = [slice(a, b) for a, b in pairwise(edges)]
        parts = tuple(Rows(x[piece], y[piece], None if w is None else w[piece]) for piece in pieces)
        return HeadObjective(parts, self.classes, self.ridge)

    def head(self, size: float = 0.5) -> Array:
        """Some W [C, d + 1]."""
        return size * generator(5, "head").normal(size=(self.classes, self.x.shape[1] + 1))

    @property
    def rows(self) -> tuple[Array, Array]:
        """Rows with bias [n, d + 1], and their weights as shares of 1 [n]."""
        a = np.concatenate([self.x.astype(np.float64), np.ones((len(self.y), 1))], 1)
        w = np.ones(len(a)) if self.weights is None else self.weights
        return a, w / w.sum()


def problem(
    n: int = 60,
    d: int = 4,
    classes: int = 3,
    *,
    seed: int = 0,
    distance: float = 1.0,
    weighted: bool = False,
    **more: Any,
) -> Problem:
    """Gaussian classes; rows in random order."""
    random = generator(seed, "problem")
    centres = distance * random.normal(size=(classes, d))
    y = random.integers(0, classes, n)
    x = (centres[y] + random.normal(size=(n, d))).astype(np.float32)
    weights = random.uniform(0.1, 3.0, n) if weighted else None
    return Problem(x, y, classes, weights=weights, **more)


def probabilities(head: Array, row: Array) -> Array:
    """softmax(W a) [C] of one row with bias [d + 1]."""
    scores = head @ row
    exponential = np.exp(scores - scores.max())
    return exponential / exponential.sum()


def naive_loss(p: Problem, head: Array) -> float:
    a, share = p.rows
    terms = [-w * np.log(probabilities(head, row)[label]) for row, label, w in zip(a, p.y, share, strict=True)]
    return float(sum(terms) + p.ridge / 2 * (head**2).sum())


def naive_gradient(p: Problem, head: Array) -> Array:
    a, share = p.rows
    out = p.ridge * head
    for row, label, w in zip(a, p.y, share, strict=True):
        for c in range(p.classes):
            out[c] += w * (probabilities(head, row)[c] - (c == label)) * row
    return out


def naive_hessian(p: Problem, head: Array) -> Array:
    """[C (d + 1), C (d + 1)], rows and columns in the order of W."""
    a, share = p.rows
    width = a.shape[1]
    out = p.ridge * np.eye(p.classes * width)
    for row, w in zip(a, share, strict=True):
        q = probabilities(head, row)
        for c in range(p.classes):
            for k in range(p.classes):
                block = w * q[c] * ((c == k) - q[k]) * np.outer(row, row)
                out[c * width : (c + 1) * width, k * width : (k + 1) * width] += block
    return out


def best_head(p: Problem) -> Array:
    """The optimum by scipy's L-BFGS in float64, polished by full Newton steps with a dense Hessian."""
    a, share = p.rows
    hot = np.eye(p.classes)[p.y]

    def soft(head: Array) -> Array:
        scores = a @ head.T
        exponential = np.exp(scores - scores.max(1, keepdims=True))
        return exponential / exponential.sum(1, keepdims=True)

    def value(flat: Array) -> tuple[float, Array]:
        head = flat.reshape(p.classes, -1)
        q = soft(head)
        right = np.clip(q[np.arange(len(a)), p.y], 1e-300, None)
        loss = -(share * np.log(right)).sum() + p.ridge / 2 * (head**2).sum()
        return float(loss), (((q - hot) * share[:, None]).T @ a + p.ridge * head).ravel()

    start = np.zeros(p.classes * a.shape[1])
    found = minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9})
    flat: Array = found.x
    for _ in range(3):
        flat = flat - np.linalg.solve(naive_hessian(p, flat.reshape(p.classes, -1)), value(flat)[1])
    return flat.reshape(p.classes, -1)
