"""`exact`: the exact Stackelberg attack on a convex head, through features or through the encoder's pixels."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from foretaste.attacks.base import Knowledge, LabelledAttack, Poisoning, Progress, quiet
from foretaste.attacks.labelled.ascent import Adam
from foretaste.attacks.labelled.bases import spread, wrong_labels
from foretaste.attacks.labelled.carriers import CarrierName, FeatureCarrier, PixelCarrier
from foretaste.attacks.labelled.constraints import FeatureConstraint, feature_constraint
from foretaste.attacks.labelled.stackelberg import Evaluation, Leader, Stackelberg
from foretaste.errors import AttackError, SpecError
from foretaste.heads.objective import Rows
from foretaste.heads.scaler import Scaler
from foretaste.record import Ledger
from foretaste.runtime import stream


class Exact(LabelledAttack):
    """Maximise the loss of the exactly fitted head on the attacker's validation rows, by its exact total gradient.

    Source: the bilevel problem of TGDA (Lu, Kamath, Yu, TMLR 2022, arXiv 2204.09092, section 3), restricted to a
    frozen encoder with a convex head, where both of its approximations are unnecessary (see `stackelberg`).
    """

    name: ClassVar[str] = "exact"
    carrier: CarrierName = Field(default="features", description="what the attacker writes")
    constraint: FeatureConstraint = Field(
        default="box", description="carrier features: none, range of each clean feature, or ball round the centroid"
    )
    quantile: float = Field(default=0.95, gt=0, le=1, description="constraint ball: share of its class that it holds")
    epsilon: float | None = Field(
        default=None, ge=1, le=255, description="carrier pixels: L-inf ball round the base image, in 1/255"
    )
    labels: Literal["random", "chosen"] = Field(
        default="random", description="wrong at random and fixed, or moved to the label of the steepest ascent"
    )
    leader: Leader = Field(default="margin", description="what the attacker maximises on its validation rows")
    steps: int = Field(default=60, ge=1, description="steps of Adam")
    rate: float | None = Field(
        default=None, gt=0, description="Adam's step: standard units (default 0.3) or pixels in [0, 1] (default 0.1)"
    )

    @model_validator(mode="after")
    def _one_constraint(self) -> Self:
        """A constraint of the other carrier would be ignored: say so instead."""
        if self.carrier == "features" and self.epsilon is not None:
            raise ValueError("epsilon is a constraint of carrier pixels")
        if self.carrier == "pixels" and self.constraint != "box":
            raise ValueError("carrier pixels is always inside the box [0, 1]; epsilon makes it smaller")
        return self

    @property
    def variant(self) -> str:
        """Carrier and constraint, and every other field that is not at its default."""
        limit: str = self.constraint
        if self.carrier == "pixels":
            limit = "[0, 1]" if self.epsilon is None else f"{self.epsilon:g}/255"
        others = self.model_dump(exclude_defaults=True, exclude={"carrier", "constraint", "epsilon"})
        return ", ".join([self.carrier, limit, *(f"{name} {value}" for name, value in others.items())])

    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        """Make the poison; see `LabelledAttack.poison`.

        Raises:
            SpecError: carrier pixels without images and an encoder.
            AttackError: the objective is not finite.
        """
        random = stream(seed, "attack")
        base = spread(len(known.y), rows, random)
        y = wrong_labels(known.y[base], known.classes, random)
        scaler = Scaler.of([known.z])
        carrier = self._carrier(known, scaler, base)
        objective = Stackelberg(
            Rows(scaler.apply(known.z), known.y),
            Rows(scaler.apply(known.validation_z), known.validation_y),
            known.classes,
            known.ridge,
            self.leader,
        )
        with torch.no_grad():
            best, y, curve, worst = self._ascend(carrier, objective, y, progress)
            carrier.leaf = best
            poison = carrier.deliver(y)
        pixels = self.carrier == "pixels"
        ledger = Ledger(
            changed=sorted(set(base.tolist())),
            added=rows,
            objective=curve,
            objective_name=f"{self.leader} of the refitted head on the attacker's validation rows",
            residuals=worst,
            passes=carrier.passes,
        )
        return Poisoning(
            y=y,
            base=base,
            ledger=ledger,
            z=None if pixels else poison,
            pixels=poison if pixels else None,
            constraint="pixels" if pixels else self.constraint,
            limits=self._limits(),
        )

    def planned(self, rows: int) -> tuple[int, float]:
        """One pass over the poison images and, thanks to the warm starts, about half a fit a step."""
        return (self.steps * rows if self.carrier == "pixels" else 0), 0.5 * self.steps

    def _limits(self) -> dict[str, float]:
        if self.carrier == "pixels":
            return {} if self.epsilon is None else {"epsilon": float(int(self.epsilon))}
        return {"quantile": self.quantile} if self.constraint == "ball" else {}

    def _carrier(self, known: Knowledge, scaler: Scaler, base: Tensor) -> FeatureCarrier | PixelCarrier:
        if self.carrier == "features":
            allowed = feature_constraint(self.constraint, known.z, known.y, known.classes, self.quantile)
            return FeatureCarrier(known.z[base], scaler, allowed)
        if known.images is None or known.encoder is None:
            raise SpecError(
                "exact with carrier pixels: images and an encoder",
                got="features from a file",
                do="pass --data and --encoder, or --carrier features",
            )
        return PixelCarrier(known.images.pixels[base], known.encoder, scaler, self.epsilon, known.runtime)

    def _ascend(
        self, carrier: FeatureCarrier | PixelCarrier, objective: Stackelberg, y: Tensor, progress: Progress
    ) -> tuple[Tensor, Tensor, list[float], dict[str, float]]:
        """Best leaf and labels seen, the objective at every step, and the worst residuals."""
        rate = self.rate or (0.3 if self.carrier == "features" else 0.1)
        carrier.project(y)
        adam = Adam(carrier.leaf, rate)
        best, best_y, curve = carrier.leaf.clone(), y, list[float]()
        worst = {"fit": 0.0, "solve": 0.0}
        for step in range(self.steps + 1):
            last = step == self.steps
            x = carrier.features()
            now = _evaluate(objective, x, y, step, gradient=not last)
            if not curve or now.value > max(curve):
                best, best_y = carrier.leaf.clone(), y
            curve.append(now.value)
            worst["fit"] = max(worst["fit"], now.fit_residual)
            worst["solve"] = max(worst["solve"], now.solve_residual)
            progress(step, self.steps)
            if last or now.gradient is None:
                break
            carrier.pull(now.gradient)
            adam.step()
            if self.labels == "chosen" and step < self.steps // 2:
                # Labels move only in the first half: features need the rest to settle under their final label.
                y = objective.steepest_labels(x)
            carrier.project(y)
        return best, best_y, curve, worst


def _evaluate(objective: Stackelberg, x: Tensor, y: Tensor, step: int, *, gradient: bool) -> Evaluation:
    """The objective, or an AttackError where the poison has left what arithmetic can follow."""
    try:
        now = objective.evaluate(x, y, gradient=gradient)
        found = now.value
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # a Hessian that cannot be factored
        found = float("nan")
    if not math.isfinite(found) or not (now.gradient is None or bool(torch.isfinite(now.gradient).all())):
        raise AttackError("exact: a finite objective and gradient", got=f"{found} at step {step}", do="lower --rate")
    return now
