"""The Stackelberg objective with the follower solved exactly: value and total gradient with respect to the poison.

Follower: the head W*(x) = argmin F(W, x) on clean and poisoned rows. Leader: L(W*), a loss on the attacker's own
validation rows, to be maximised. F is strictly convex, so the implicit function theorem gives the gradient exactly:

    U = H^-1 dL/dW,      dL/dx_j = -1/(n+m) * ( U_x' r_j + W_x' (diag(p_j) - p_j p_j') U [x_j; 1] ),

with r_j = p_j - onehot(c_j) and W_x, U_x the columns without the bias. Contrast TGDA (Lu, Kamath, Yu, TMLR 2022),
which takes a few follower steps and inverts H^2 by 16 steps of conjugate gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from foretaste.attacks.optimise.projected_ascent import Better, Evaluation
from foretaste.heads.fit import Optimum, minimise
from foretaste.heads.objective import HeadObjective, Rows, logits
from foretaste.heads.solve import Solution, solve

STALE = 20
"""Products with the Hessian in one evaluation, beyond which its preconditioner is made anew."""

Leader = Literal["cross-entropy", "margin"]


@dataclass(frozen=True, eq=False)
class Followed:
    """The follower's answer to one poison, and how the leader fares.

    Attributes:
        value: L(W*).
        weight: W*, float64 [C, d + 1].
        u: U = H^-1 dL/dW, alike; None where no gradient is wanted.
        total: N, what all rows weigh.
        residuals: of the fit and of the solve.
    """

    value: float
    weight: Tensor
    u: Tensor | None
    total: float
    residuals: dict[str, float]


class Stackelberg:
    """The objective over fixed clean rows; keeps the last W* and U as warm starts, so calls cost a few products each.

    Args:
        clean: the victim's rows in standard units, never copied; weighted where they stand for more rows.
        validation: the attacker's rows in the same units.
        classes: C.
        ridge: of the victim's head.
        leader: cross-entropy, or margin (see `leader_loss`).
        fit_tolerance: gradient norm at which the follower counts as solved, relative to W = 0.
        solve_tolerance: relative residual of U.
    """

    better: ClassVar[Better] = "higher"

    def __init__(
        self,
        clean: Rows,
        validation: Rows,
        classes: int,
        ridge: float,
        leader: Leader = "cross-entropy",
        fit_tolerance: float = 1e-4,
        solve_tolerance: float = 1e-3,
    ) -> None:
        self.clean, self.validation, self.classes, self.ridge = clean, validation, classes, ridge
        self.leader, self.fit_tolerance, self.solve_tolerance = leader, fit_tolerance, solve_tolerance
        self._optimum: Optimum | None = None
        self._solution: Solution | None = None
        self._products = 0

    @property
    def head(self) -> Tensor:
        """W* of the last call (or of the clean rows), float64 [C, d + 1]."""
        if self._optimum is None:
            self._optimum = minimise(
                HeadObjective((self.clean,), self.classes, self.ridge), tolerance=self.fit_tolerance
            )
        return self._optimum.weight

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """Value and gradient at poisoned rows x float32 [m, d] (standard units) with labels y int64 [m]."""
        found = self.follow(Rows(x, y), gradient=gradient)
        pull = None if found.u is None else -poison_gradient(found.weight, found.u, x, y) / found.total
        return Evaluation(found.value, pull, found.residuals)

    def follow(self, poison: Rows, *, gradient: bool = True) -> Followed:
        """Fit the head to the clean rows and the poison; without a gradient U is left out."""
        objective = HeadObjective((self.clean, poison), self.classes, self.ridge)
        start = self.head
        stale = self._products > STALE
        kept = self._optimum.preconditioner if self._optimum and not stale else None
        self._optimum = optimum = minimise(objective, start=start, preconditioner=kept, tolerance=self.fit_tolerance)
        value, slope = leader_loss(self.leader, self.validation, optimum.weight, self.classes)
        self._products = optimum.products
        if not gradient:
            return Followed(value, optimum.weight, None, objective.total, {"fit": optimum.gradient_ratio})
        self._solution = solution = solve(
            objective.curvature(optimum.weight),
            slope,
            optimum.preconditioner,
            start=None if self._solution is None else self._solution.value,
            tolerance=self.solve_tolerance,
        )
        self._products += solution.iterations
        residuals = {"fit": optimum.gradient_ratio, "solve": solution.residual}
        return Followed(value, optimum.weight, solution.value, objective.total, residuals)

    def steepest_labels(self, x: Tensor) -> Tensor:
        """The label of each row x [m, d] under which one more such row raises the leader's loss most (first order).

        Adding a row of label c moves the loss by -<U, (p - onehot(c)) [x; 1]'> / (n + m), so the best label has the
        highest score under U. Needs an `evaluate` with gradient before it.
        """
        if self._solution is None:
            raise ValueError("steepest_labels expects an evaluate(..., gradient=True) before it")
        return logits(x, self._solution.value.float()).argmax(1)


def poison_gradient(weight: Tensor, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """d<U, dCE(W; x_j, y_j)/dW>/dx_j, float32 [m, d], in closed form (module docstring, without the factor)."""
    w, u = weight.float(), u.float()
    p = torch.softmax(logits(x, w), 1)  # [m, C]
    r = p.clone()
    r[torch.arange(len(y)), y] -= 1
    s = logits(x, u)  # [m, C]
    return r @ u[:, :-1] + (p * (s - (p * s).sum(1, keepdim=True))) @ w[:, :-1]


def leader_loss(kind: Leader, rows: Rows, weight: Tensor, classes: int) -> tuple[float, Tensor]:
    """What the leader maximises, and its gradient dL/dW float64 [C, d + 1].

    `cross-entropy` is the papers'. `margin` is the mean of sigmoid(highest wrong logit - right logit), a smooth count
    of errors: it saturates on rows that are lost, so the budget goes to rows that are still right.
    """
    if kind == "cross-entropy":
        return HeadObjective((rows,), classes, ridge=0.0).loss_and_gradient(weight)
    value, gradient = 0.0, torch.zeros_like(weight)
    for block in HeadObjective((rows,), classes, ridge=0.0).chunks():
        scores = logits(block.x, weight)  # [b, C]
        index = torch.arange(len(block.y))
        right = scores[index, block.y]
        scores[index, block.y] = -torch.inf
        wrong, rival = scores.max(1)
        error = torch.sigmoid(wrong - right)
        value += float(error.sum())
        push = torch.zeros_like(scores)
        push[index, rival] = error * (1 - error)
        push[index, block.y] = -error * (1 - error)
        gradient[:, :-1] += push.T @ block.x.double()
        gradient[:, -1] += push.sum(0)
    return value / len(rows), gradient / len(rows)
