"""The objective of gradient canceling: the gradient of the victim's loss at a target head, to be made zero.

    J(x) = ||G||^2 / ||G_clean||^2,      G = G_clean + sum_j r_j [x_j; 1]',      r_j = softmax(W [x_j; 1]) - onehot(c_j)

with W the target head and G_clean the sum of the clean rows' gradients and of the ridge, (n + m) ridge W: the head is
convex, so J = 0 makes W the victim's unique optimum (Lu, Kamath, Yu, ICML 2023; public code cancels the first tensor
only and leaves out bias and weight decay). G_clean is computed once; a step costs O(m C d).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from foretaste.attacks.optimise.projected_ascent import Better, Evaluation
from foretaste.attacks.optimise.stackelberg import poison_gradient
from foretaste.heads.objective import HeadObjective, Rows


class GradientResidual:
    """J over fixed clean rows for one target head; all poisons are pooled.

    Args:
        clean: the victim's rows in standard units.
        target: float64 [C, d + 1].
        classes: C.
        ridge: of the victim's head.
        rows: m, how many poisons there will be.
    """

    better: ClassVar[Better] = "lower"

    def __init__(self, clean: Rows, target: Tensor, classes: int, ridge: float, rows: int) -> None:
        self.target, self.classes = target, classes
        bare = HeadObjective((clean,), classes, ridge=0.0)
        self.clean = bare.loss_and_gradient(target)[1] * bare.total + (bare.total + rows) * ridge * target
        self._scale = float(self.clean.square().sum())

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """J and dJ/dx; the residual ||G|| / ||G_clean|| is its root."""
        bare = HeadObjective((Rows(x, y),), self.classes, ridge=0.0)
        total = self.clean + bare.loss_and_gradient(self.target)[1] * len(y)
        value = float(total.square().sum()) / self._scale
        if not gradient:
            return Evaluation(value, None)
        return Evaluation(value, 2 / self._scale * poison_gradient(self.target, total, x, y))
