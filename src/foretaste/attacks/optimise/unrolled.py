"""TGDA's objective: a follower that takes k gradient steps, and a total gradient through the inverse Hessian.

Lu, Kamath, Yu, "Indiscriminate Data Poisoning Attacks on Neural Networks" (TMLR 2022, arXiv 2204.09092): the leader x
maximises L(w) at the follower's w, the follower minimises F(w, x) by k steps of gradient descent per leader step, and

    D_x L = -F_xw (F_ww)^-1 L_w,

with (F_ww)^-1 L_w from conjugate gradients on the normal equations, min_v 1/2 v' H^2 v - v' H L_w: 16 iterations from
zero. Both approximations are kept as they are; `stackelberg` is the same objective without them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from foretaste.attacks.optimise.projected_ascent import Better, Evaluation
from foretaste.attacks.optimise.stackelberg import Leader, leader_loss, poison_gradient
from foretaste.heads.objective import Curvature, HeadObjective, Rows


class Unrolled:
    """TGDA's leader and follower over fixed clean rows; the follower keeps its place between calls.

    Args:
        clean: the victim's rows in standard units.
        validation: the attacker's rows in the same units.
        start: the follower's first head, float64 [C, d + 1]; the paper starts from a head fitted on clean rows.
        classes: C.
        ridge: of the victim's head.
        leader: what the leader maximises.
        follower_steps: k.
        follower_rate: of the follower's gradient descent.
        cg_steps: of the conjugate gradients on the normal equations.
    """

    better: ClassVar[Better] = "higher"

    def __init__(
        self,
        clean: Rows,
        validation: Rows,
        start: Tensor,
        classes: int,
        ridge: float,
        leader: Leader,
        follower_steps: int,
        follower_rate: float,
        cg_steps: int,
    ) -> None:
        self.clean, self.validation, self.head = clean, validation, start
        self.classes, self.ridge, self.leader = classes, ridge, leader
        self.follower_steps, self.follower_rate, self.cg_steps = follower_steps, follower_rate, cg_steps

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """K steps of the follower, then the leader's loss and its total gradient there."""
        objective = HeadObjective((self.clean, Rows(x, y)), self.classes, self.ridge)
        for _ in range(self.follower_steps):
            self.head = self.head - self.follower_rate * objective.loss_and_gradient(self.head)[1]
        value, slope = leader_loss(self.leader, self.validation, self.head, self.classes)
        if not gradient:
            return Evaluation(value, None)
        curvature = objective.curvature(self.head)
        v, residual = normal_equations(curvature, slope, self.cg_steps)
        pull = -poison_gradient(self.head, v, x, y) / objective.total
        return Evaluation(value, pull, {"solve": residual})


def normal_equations(curvature: Curvature, right: Tensor, steps: int) -> tuple[Tensor, float]:
    """Conjugate gradients for H^2 v = H b from v = 0: (v float64 [C, d + 1], ||H v - b|| / ||b||)."""
    v = torch.zeros_like(right)
    residual = curvature.product(right)  # of the normal equations
    direction, size = residual.clone(), float(residual.square().sum())
    error = right.clone()  # b - H v
    for _ in range(steps):
        if size < 1e-300:
            break
        once = curvature.product(direction)
        step = size / float(once.square().sum())  # d' H^2 d = ||H d||^2
        v = v + step * direction
        error = error - step * once
        residual = curvature.product(error)
        new = float(residual.square().sum())
        direction = residual + (new / size) * direction
        size = new
    return v, float(error.norm() / right.norm().clamp(min=1e-300))
