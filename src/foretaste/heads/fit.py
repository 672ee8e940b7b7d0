"""Fit the head to its optimum by Newton's method with conjugate gradients (Nocedal and Wright, section 7.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foretaste.errors import DataError, SpecError
from foretaste.heads.objective import HeadObjective, Rows, logits
from foretaste.heads.scaler import Scaler
from foretaste.heads.solve import Preconditioner, solve


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where Newton's method stopped.

    Attributes:
        weight: float64 [C, d + 1].
        loss: F there.
        gradient_ratio: ||dF/dW|| there over ||dF/dW|| at W = 0 (or over 1e-12, if that is larger).
        iterations: Newton steps.
        products: Hessian-vector products in all.
        preconditioner: the last one made, for the solves that follow.
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
        return torch.cat([logits(self.scaler.apply(block.float()), weight) for block in z.split(8192)])

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
    overwrite: bool = False,
) -> LinearHead:
    """Standardise features and fit the head.

    Args:
        z: float [n, d].
        y: int64 [n] in [0, classes).
        classes: C.
        ridge: L2 weight > 0.
        start: W [C, d + 1] in standard units to start from.
        tolerance: on the gradient norm relative to W = 0.
        sample_weight: float [n], >= 0; the standardisation counts each row once.
        overwrite: standardise float32 features in place instead of in a copy, where memory holds them only once.

    Raises:
        DataError: no rows, labels outside the classes, or features or weights that are not finite.
        SpecError: ridge <= 0.
    """
    if z.ndim != 2 or len(z) != len(y) or not len(y):
        raise DataError("head: features [n, d] with n labels, n >= 1", got=f"{list(z.shape)} and {list(y.shape)}")
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise DataError(f"head: labels in [0, {classes - 1}]", got=f"{int(y.min())} to {int(y.max())}")
    if not ridge > 0:
        raise SpecError("head: ridge > 0, without which there may be no optimum", got=str(ridge))
    if sample_weight is not None:
        _check_weights(sample_weight, len(y))
    scaler = Scaler.of([z])
    if not bool((scaler.mean + scaler.scale).isfinite().all()):
        raise DataError("head: finite features", got="NaN or infinity", do="look at the encoder's output")
    x = scaler.apply_(z) if overwrite and z.dtype == torch.float32 else scaler.apply(z.float())
    objective = HeadObjective((Rows(x, y.long(), sample_weight),), classes, ridge)
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
    weight = objective.zeros()
    loss, gradient = objective.loss_and_gradient(weight)
    scale = max(float(gradient.norm()), 1e-12)
    if start is not None:
        weight = start.clone()
        loss, gradient = objective.loss_and_gradient(weight)
    kept = preconditioner
    products = iterations = 0
    owed = 0.0
    while (norm := float(gradient.norm())) > tolerance * scale and iterations < most:
        curvature = objective.curvature(weight)
        # As with skis, buy once the rent has reached the price: that never costs more than twice the best choice.
        if kept is None or (preconditioner is None and owed > Preconditioner.price(curvature)):
            kept, owed = Preconditioner(curvature, cheap=start is None and iterations == 0), 0.0
        # Solve roughly while far away (Nocedal and Wright, equation 7.3), and never beyond what the last step asks for.
        forcing = max(min(0.3, (norm / scale) ** 0.5), 0.3 * tolerance * scale / norm)
        step = solve(curvature, gradient, kept, tolerance=forcing, most=200, exact=False)
        products += step.iterations
        owed += step.iterations
        slope = float((gradient * step.value).sum())
        for length in (0.5**k for k in range(20)):
            moved = weight - length * step.value
            new_loss, new_gradient = objective.loss_and_gradient(moved)
            # Near the optimum the loss is flat to rounding: there, and only there (elsewhere steps could go round in
            # circles), a smaller gradient is the proof of progress (Hager and Zhang 2005: approximate Wolfe conditions)
            flat = new_loss <= loss + 1e-10 * abs(loss) and float(new_gradient.norm()) < norm
            if new_loss <= loss - 1e-4 * length * slope or flat:
                break
        else:
            break  # nothing along this step is better: rounding has the last word
        weight, loss, gradient = moved, new_loss, new_gradient
        iterations += 1
    if kept is None:
        kept = Preconditioner(objective.curvature(weight))
    return Optimum(weight, loss, float(gradient.norm()) / scale, iterations, products, kept)


def _check_weights(weights: Tensor, n: int) -> None:
    if weights.shape != (n,):
        raise DataError(f"head: one weight for each of {n} rows", got=str(list(weights.shape)))
    if not bool(((weights >= 0) & weights.isfinite()).all()) or float(weights.sum()) <= 0:
        raise DataError("head: finite weights >= 0, not all 0", got=f"{float(weights.min())} to {float(weights.max())}")
