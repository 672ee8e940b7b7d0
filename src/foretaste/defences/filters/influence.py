"""Influence of each training row on the loss of clean rows (Koh and Liang, "Understanding Black-box Predictions via
Influence Functions", ICML 2017, equation 2), with the head's own inverse Hessian.

With W* the head on all N rows, H the Hessian of its objective (`heads.objective`, ridge included), g_i the gradient of
row i's cross-entropy and L the mean cross-entropy of the clean rows, leaving row i out moves L, to first order, by

    -score_i = <U, g_i + ridge W*> / (N - 1),     U = H^-1 dL/dW,     <U, g_i> = (p_i - onehot(y_i)) . (U [x_i; 1])

so the score is what the row adds to the clean loss: above 0, the head is better without it. The term in ridge W*, equal
for all rows, is there because the mean is then over one row less. The standardisation is taken as fixed. The head is
convex, so H is exact and nothing is damped.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows
from foretaste.heads.fit import LinearHead, fit_head
from foretaste.heads.objective import HeadObjective, Rows, logits
from foretaste.heads.solve import solve


class Influence(Filter):
    """What a row adds to the loss of the defender's own clean rows; it needs such rows."""

    name: ClassVar[str] = "influence"

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """Increase of the mean clean cross-entropy, float64 [n], in nats; see `Filter.score`."""
        head, u = direction(rows, self.name)
        weight, x = head.optimum.weight, head.scaler.apply(rows.z.float())
        pull = torch.softmax(logits(x, weight.float()).double(), 1)
        pull[torch.arange(len(rows)), rows.y] -= 1  # [n, C]
        along = (pull * logits(x, u.float()).double()).sum(1)
        return -(along + rows.ridge * float((u * weight).sum())) / max(len(rows) - 1, 1)


def direction(rows: TrainingRows, name: str) -> tuple[LinearHead, Tensor]:
    """The head on all rows, and U = H^-1 dL/dW there, float64 [C, d + 1]; DataError without clean rows."""
    clean_z, clean_y = rows.clean(name)
    head = fit_head(rows.z, rows.y, rows.classes, rows.ridge)
    weight, x = head.optimum.weight, head.scaler.apply(rows.z.float())
    judged = HeadObjective((Rows(head.scaler.apply(clean_z.float()), clean_y),), rows.classes, ridge=0.0)
    _, slope = judged.loss_and_gradient(weight)
    curvature = HeadObjective((Rows(x, rows.y),), rows.classes, rows.ridge).curvature(weight)
    return head, solve(curvature, slope, head.optimum.preconditioner).value
