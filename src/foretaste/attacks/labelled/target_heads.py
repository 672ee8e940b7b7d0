"""Target heads for gradient canceling: GradPC, and the threshold below which no poison can install a head.

GradPC (Sun et al., AAAI 2021, arXiv 2006.05620) corrupts the fitted head inside an L2 ball so that its training loss
is highest. The threshold is that of Lu, Kamath, Yu (ICML 2023, arXiv 2303.03592), here for C classes, for a head with
bias and with the victim's weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import lambertw
from torch import Tensor

from foretaste.heads.objective import HeadObjective

STEPS = 20
ROUNDS = 12
LARGEST = 1e6


@dataclass(frozen=True, eq=False)
class TargetHead:
    """A head to be installed.

    Attributes:
        weight: float64 [C, d + 1], in standard units.
        radius: its L2 distance to the clean head.
        tau: the smallest budget m/n at which poison can make it the optimum; necessary, not sufficient.
    """

    weight: Tensor
    radius: float
    tau: float


def measured(clean: HeadObjective, fitted: Tensor, weight: Tensor) -> TargetHead:
    """A head with its distance to the clean one and its threshold."""
    return TargetHead(weight, float((weight - fitted).norm()), threshold(clean, weight))


def grad_pc(clean: HeadObjective, fitted: Tensor, radius: float) -> Tensor:
    """Raise the clean training loss inside ||W - fitted|| <= radius by normalised gradient steps; float64 [C, d + 1].

    Full-batch steps of a quarter of the radius, where the public code takes one pass of minibatch steps of length 1:
    with its radius of 1 those cross the ball at once, and small steps end at the same place on its surface.

    Args:
        clean: the victim's clean rows; only their cross-entropy is raised, not the ridge.
        fitted: the clean head.
        radius: of the ball, > 0.
    """
    bare = HeadObjective(clean.parts, clean.classes, ridge=0.0)
    change = fitted.new_zeros(fitted.shape)
    for _ in range(STEPS):
        gradient = bare.loss_and_gradient(fitted + change)[1]
        change = change + radius / 4 * gradient / gradient.norm().clamp(min=1e-300)
        change = change * min(1.0, radius / max(float(change.norm()), 1e-300))
    return fitted + change


def threshold(clean: HeadObjective, weight: Tensor) -> float:
    """tau: the smallest m/n at which m poisoned rows, anywhere in feature space, can make `weight` stationary.

    A poisoned row (x, c) adds r [x; 1]' with r = p - onehot(c) to the gradient, and <W, r [x; 1]'> >= -L with
    L = LambertW((C - 1) / e). Stationarity n <W, G> + (n + m) ridge ||W||^2 + sum_j <W, r_j [x_j; 1]'> = 0, with G the
    mean clean gradient, therefore needs m / n >= (<W, G> + ridge ||W||^2) / (L - ridge ||W||^2).

    Returns:
        tau >= 0; infinity where the ridge alone outweighs any poison.
    """
    bare = HeadObjective(clean.parts, clean.classes, ridge=0.0)
    pull = float((weight * bare.loss_and_gradient(weight)[1]).sum())
    decay = clean.ridge * float(weight.square().sum())
    most = float(lambertw((clean.classes - 1) / math.e).real)
    return max(0.0, (pull + decay) / (most - decay)) if most > decay else math.inf


def reachable_head(clean: HeadObjective, fitted: Tensor, budget: float) -> TargetHead:
    """GradPC's head with the largest radius whose threshold is within the budget, by bisection.

    Args:
        clean: the victim's clean rows, with the ridge.
        fitted: the clean head.
        budget: m / n, or less of it: slack for constraints that the threshold knows nothing of.
    """

    def inside(radius: float) -> bool:
        return threshold(clean, grad_pc(clean, fitted, radius)) <= budget

    low, high = 0.0, max(float(fitted.norm()), 1e-3)
    while high < LARGEST and inside(high):
        low, high = high, 2 * high
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    return measured(clean, fitted, fitted if low == 0 else grad_pc(clean, fitted, low))
