"""The objective of unlearnable examples with the head solved exactly: the victim's own training loss, made small.

With rows x_j that the attacker moves, rows that it leaves, and the head's training loss F (see `heads.objective`):

    L(x) = min_W F(W, x),      dL/dx_j = dF/dx_j at W* = 1/n * W_x' (p_j - onehot(y_j)),

W_x without the bias. F is strictly convex, so W* is unique and dF/dW = 0 there: by the envelope theorem it does not
matter how W* moves with x, and the partial derivative is the total one. That holds for the training loss over all rows,
ridge included, and for no other function of W*; so that, and not the loss of the moved rows alone, is the value.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from foretaste.attacks.optimise.projected_ascent import Better, Evaluation
from foretaste.heads.fit import minimise
from foretaste.heads.objective import HeadObjective, Rows, logits


class ErrorMinimising:
    """The training loss of the exactly fitted head over moved and unmoved rows; keeps W* as a warm start.

    Args:
        others: the training rows that stay, in standard units; none where all rows are moved.
        classes: C.
        ridge: of the victim's head.
        tolerance: gradient norm at which the head counts as fitted, relative to W = 0.
    """

    better: ClassVar[Better] = "lower"

    def __init__(self, others: Rows, classes: int, ridge: float, tolerance: float = 1e-6) -> None:
        self.others, self.classes, self.ridge, self.tolerance = others, classes, ridge, tolerance
        self._head: Tensor | None = None

    @property
    def head(self) -> Tensor:
        """W* of the last `evaluate`, float64 [C, d + 1]."""
        if self._head is None:
            raise ValueError("head expects an evaluate(...) before it")
        return self._head

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """Refit; value and total gradient at moved rows x float32 [m, d] (standard units) with labels y int64 [m]."""
        objective = HeadObjective((Rows(x, y), self.others), self.classes, self.ridge)
        optimum = minimise(objective, start=self._head, tolerance=self.tolerance)
        self._head = optimum.weight
        slope = self.slope(x, y) / objective.total if gradient else None
        return Evaluation(optimum.loss, slope, {"fit": optimum.gradient_ratio})

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient dCE_j/dx_j of each row, float32 [m, d], under the head of the last `evaluate`: no refit, no 1/n."""
        w = self.head.float()
        r = torch.softmax(logits(x, w), 1)  # [m, C]
        r[torch.arange(len(y)), y] -= 1
        return r @ w[:, :-1]

    def error(self, x: Tensor, y: Tensor) -> float:
        """Share of the rows that the head of the last `evaluate` gets wrong, in [0, 1]."""
        return float((logits(x, self.head.float()).argmax(1) != y).double().mean())
