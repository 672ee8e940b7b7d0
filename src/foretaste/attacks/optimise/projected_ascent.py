"""The loop that the labelled-data attacks share: Adam on a carrier's leaf, projected, the best iterate kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from foretaste.attacks.base import Progress
from foretaste.attacks.optimise.carriers import Carrier
from foretaste.errors import AttackError

Better = Literal["higher", "lower"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An objective at one set of poisoned rows.

    Attributes:
        value: the objective.
        gradient: d(value)/dx float32 [m, d] in standard units; None when not asked for.
        residuals: relative residuals of inner solves, by name.
        rows: each poison's own value, float [m], where `value` is their mean and so no poison's depends on another's;
            the best leaf is then kept poison by poison.
    """

    value: float
    gradient: Tensor | None
    residuals: dict[str, float] = field(default_factory=dict)
    rows: Tensor | None = None


class Objective(Protocol):
    """What an attack optimises: a function of the poisoned rows' features and labels."""

    @property
    def better(self) -> Better:
        """Which way the objective is to go."""
        ...

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """Value and gradient at x float32 [m, d] (standard units) with labels y int64 [m]."""
        ...


class Relabelling(Protocol):
    """An objective that can also say which label each row should carry."""

    def steepest_labels(self, x: Tensor) -> Tensor:
        """Labels int64 [m] of the steepest ascent, at the rows evaluated last."""
        ...


@dataclass(frozen=True, eq=False)
class Ascent:
    """Where the loop ended.

    Attributes:
        y: labels at the best leaf, which the carrier now holds.
        curve: the objective at each step.
        residuals: worst residual of each inner solve.
        figures: other numbers for the ledger.
    """

    y: Tensor
    curve: list[float]
    residuals: dict[str, float]
    figures: dict[str, float] = field(default_factory=dict)


class Optimiser(Protocol):
    """What moves a leaf along its gradient; made from the leaf and a rate, which is negative to go downwards."""

    def step(self, rows: Tensor | None = None) -> None:
        """Move the leaf in place, given each poison's value where it has one of its own (see `Evaluation`)."""
        ...


class Adam:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1) with its usual moments, upwards along `leaf.grad`.

    The same numbers as torch.optim's; but the first of those in a process loads torch's compiler, which takes as long
    as a whole attack.
    """

    BETAS = (0.9, 0.999)

    def __init__(self, leaf: Tensor, rate: float) -> None:
        self.leaf, self.rate = leaf, rate
        self._first, self._second = torch.zeros_like(leaf), torch.zeros_like(leaf)
        self._steps = 0

    def step(self, rows: Tensor | None = None) -> None:
        """Move the leaf in place."""
        gradient = self.leaf.grad
        assert gradient is not None
        first, second = self.BETAS
        self._steps += 1
        self._first.lerp_(gradient, 1 - first)
        self._second.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (self._second / (1 - second**self._steps)).sqrt_().add_(1e-8)
        self.leaf.addcdiv_(self._first, size, value=self.rate / (1 - first**self._steps))


@torch.no_grad()
def ascend(
    name: str,
    carrier: Carrier,
    objective: Objective,
    y: Tensor,
    *,
    steps: int,
    rate: float,
    progress: Progress,
    relabel: Relabelling | None = None,
    optimiser: Callable[[Tensor, float], Optimiser] = Adam,
) -> Ascent:
    """Move the carrier's leaf along the objective's gradient `steps` times; it ends at the best leaf seen.

    Args:
        name: of the attack, for messages.
        carrier: what is moved.
        objective: its `better` says which way.
        y: labels int64 [m] to start with.
        steps: of the optimiser.
        rate: its step in the leaf's units.
        progress: called with (steps done, steps).
        relabel: the objective again, if labels may move too. They do so in the first half: features need the rest to
            settle under their final label.
        optimiser: of the leaf and the signed rate.

    Raises:
        AttackError: the objective or its gradient is not finite, or no step was better than the start; with the curve.
    """
    sign = 1.0 if objective.better == "higher" else -1.0
    carrier.project(y)
    moving = optimiser(carrier.leaf, sign * rate)
    best, best_y, curve, worst = carrier.leaf.clone(), y, list[float](), dict[str, float]()
    first = highest = torch.empty(0)
    for step in range(steps + 1):
        last = step == steps
        x = carrier.features()
        now = _evaluate(name, objective, x, y, curve, gradient=not last)
        values = torch.tensor([now.value], dtype=torch.float64) if now.rows is None else now.rows  # [1] or [m]
        reached = sign * values
        if not curve:
            first = highest = reached
        higher = reached > highest
        if bool(higher.any()):
            best = torch.where(higher.view(-1, *[1] * (best.ndim - 1)), carrier.leaf, best)
            best_y, highest = torch.where(higher, y, best_y), torch.maximum(reached, highest)
        curve.append(now.value)
        for key, value in now.residuals.items():
            worst[key] = max(worst.get(key, 0.0), value)
        progress(step, steps)
        if last or now.gradient is None:
            break
        carrier.pull(now.gradient)
        moving.step(now.rows)
        if relabel is not None and step < steps // 2:
            y = relabel.steepest_labels(x)
        carrier.project(y)
    if not bool((highest > first).any()):
        raise AttackError(
            f"{name}: an objective that improves",
            got=f"{curve[0]:.6g} at the start and nothing better in {steps} steps",
            do="lower --rate or take more --steps",
            curve=curve,
        )
    carrier.leaf = best
    return Ascent(best_y, curve, worst)


def _evaluate(
    name: str, objective: Objective, x: Tensor, y: Tensor, curve: list[float], *, gradient: bool
) -> Evaluation:
    """The objective, or an AttackError where the poison has left what arithmetic can follow."""
    try:
        now = objective.evaluate(x, y, gradient=gradient)
        found = now.value
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # a Hessian that cannot be factored
        found = math.nan
    if not math.isfinite(found) or not (now.gradient is None or bool(torch.isfinite(now.gradient).all())):
        raise AttackError(
            f"{name}: a finite objective and gradient",
            got=f"{found} at step {len(curve)}",
            do="lower --rate",
            curve=curve,
        )
    return now
