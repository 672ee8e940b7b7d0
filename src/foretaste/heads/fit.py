"""Fit the head to its optimum by Newton's method with conjugate gradients (Nocedal and Wright, section 7.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foretaste.errors import DataError
from foretaste.heads.objective import HeadObjective, Rows, logits
from foretaste.heads.scaler import Scaler
from foretaste.heads.solve import Preconditioner, solve


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where Newton's method stopped.

    Attributes:
        weight: float64 [C, d + 1].
        loss: F there.
        gradient_ratio: ||dF/dW|| there over ||dF/dW|| at W = 0.
        iterations: Newton steps.
        products: Hessian-vector products in all.
        preconditioner: of a Hessian near the optimum, for the solves that follow.
    """

    weight: Tensor
    loss: float
    gradient_ratio: float
    iterations: int
    products: int
    preconditioner: Preconditioner


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A fitted head with the standardisation it was fitted behind."""

    scaler: Scaler
    optimum: Optimum

    def logits(self, z: Tensor) -> Tensor:
        """Scores float32 [n, C] of features z [n, d] in the encoder's units."""
        weight = self.optimum.weight.float()
        return torch.cat([logits(self.scaler.apply(block.float()), weight) for block in z.split(65536)])

    def predict(self, z: Tensor) -> Tensor:
        """Class int64 [n] of features z [n, d]."""
        return self.logits(z).argmax(1)

    @property
    def gradient_ratio(self) -> float:
        """How exactly the head is fitted: gradient norm relative to the one at W = 0."""
        return self.optimum.gradient_ratio


def fit_head(
    z: Tensor,
    y: Tensor,
    classes: int,
    ridge: float = 1e-3,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    sample_weight: Tensor | None = None,
) -> LinearHead:
    """Standardise features and fit the head.

    Args:
        z: float [n, d].
        y: int64 [n] in [0, classes).
        classes: C.
        ridge: L2 weight > 0.
        start: W [C, d + 1] in standard units to start from.
        tolerance: on the gradient norm relative to W = 0.
        sample_weight: float [n], >= 0.

    Raises:
        DataError: no rows, labels outside the classes, or features that are not finite.
    """
    if len(z) == 0 or z.ndim != 2 or len(z) != len(y):
        raise DataError("head: features [n, d] with n labels, n >= 1", got=f"{list(z.shape)} and {list(y.shape)}")
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise DataError(f"head: labels in [0, {classes - 1}]", got=f"{int(y.min())} to {int(y.max())}")
    scaler = Scaler.of([z])
    x = scaler.apply(z.float())
    if not bool(torch.isfinite(x).all()):
        raise DataError("head: finite features", got="NaN or infinity", do="look at the encoder's output")
    objective = HeadObjective((Rows(x, y, sample_weight),), classes, ridge)
    return LinearHead(scaler, minimise(objective, start=start, tolerance=tolerance))


def minimise(
    objective: HeadObjective,
    *,
    start: Tensor | None = None,
    preconditioner: Preconditioner | None = None,
    tolerance: float = 1e-6,
    most: int = 100,
) -> Optimum:
    """The unique optimum of the objective (ridge > 0).

    Args:
        objective: what to minimise.
        start: W to start from (warm start); default 0.
        preconditioner: of a nearby Hessian (warm start); default: made here, and made anew as W moves.
        tolerance: on the gradient norm relative to W = 0.
        most: Newton steps.
    """
    weight = objective.zeros() if start is None else start.clone()
    scale = float(objective.loss_and_gradient(objective.zeros())[1].norm())
    loss, gradient = objective.loss_and_gradient(weight)
    kept = preconditioner
    products = iterations = 0
    while (norm := float(gradient.norm())) > tolerance * scale and iterations < most:
        curvature = objective.curvature(weight)
        if kept is None or (preconditioner is None and iterations in REFRESH):
            kept = Preconditioner(curvature)
        # Forcing term of Eisenstat and Walker: solve roughly while far away, exactly at the end.
        forcing = max(min(0.1, norm / scale), 0.3 * tolerance * scale / norm)
        step = solve(curvature, gradient, kept, tolerance=forcing, most=200)
        products += step.iterations
        slope = float((gradient * step.value).sum())
        length = 1.0
        while True:
            moved = weight - length * step.value
            new_loss, new_gradient = objective.loss_and_gradient(moved)
            # Near the optimum the loss is flat to rounding; there a smaller gradient is the proof of progress.
            if new_loss <= loss - 1e-4 * length * slope or float(new_gradient.norm()) < norm or length < 1e-6:
                break
            length /= 2
        stuck = length < 1e-6
        weight, loss, gradient = moved, new_loss, new_gradient
        iterations += 1
        if stuck:
            break
    if kept is None:
        kept = Preconditioner(objective.curvature(weight))
    return Optimum(weight, loss, float(gradient.norm()) / max(scale, 1e-300), iterations, products, kept)


REFRESH = (0, 2, 4)
"""Newton steps at which the preconditioner is made anew: the curvature changes most at the start."""
