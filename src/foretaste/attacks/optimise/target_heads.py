"""Target heads for gradient canceling: GradPC, and the threshold below which no poison can install a head.

GradPC (Sun et al., AAAI 2021, arXiv 2006.05620) corrupts the fitted head inside an L2 ball so that its training loss
is highest. The threshold is that of Lu, Kamath, Yu (ICML 2023, arXiv 2303.03592), here for C classes, for a head with
bias and with the victim's weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import lambertw
from torch import Tensor

from foretaste.heads.objective import HeadObjective

STEPS = 10
ROUNDS = 7
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

    Full-batch steps of the radius, like the public code's minibatch steps of length 1 at radius 1: the first reaches
    the surface, and since the loss is convex in the head each later one raises it.

    Args:
        clean: the victim's clean rows; only their cross-entropy is raised, not the ridge.
        fitted: the clean head.
        radius: of the ball, > 0.
    """
    bare = HeadObjective(clean.parts, clean.classes, ridge=0.0)
    change = fitted.new_zeros(fitted.shape)
    for _ in range(STEPS):
        gradient = bare.loss_and_gradient(fitted + change)[1]
        change = change + radius * gradient / gradient.norm().clamp(min=1e-300)
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


def reachable_heads(clean: HeadObjective, fitted: Tensor, budgets: Sequence[float]) -> list[TargetHead]:
    """For each budget GradPC's head with the largest radius whose threshold is within it, by bisection.

    Args:
        clean: the victim's clean rows, with the ridge.
        fitted: the clean head.
        budgets: values that m / n may take.
    """
    seen: dict[float, TargetHead] = {}  # the searches share their first points

    def at(radius: float) -> TargetHead:
        if radius not in seen:
            weight = grad_pc(clean, fitted, radius) if radius else fitted
            seen[radius] = TargetHead(weight, radius, threshold(clean, weight))
        return seen[radius]

    found = []
    for budget in budgets:
        low, high = 0.0, 2.0 ** math.ceil(math.log2(max(float(fitted.norm()), 1e-3)))
        while high < LARGEST and at(high).tau <= budget:
            low, high = high, 2 * high
        for _ in range(ROUNDS if low else 2 * ROUNDS):
            middle = (low + high) / 2
            low, high = (middle, high) if at(middle).tau <= budget else (low, middle)
            if low and high - low < high / 2**ROUNDS:
                break
        found.append(at(low))
    return found
