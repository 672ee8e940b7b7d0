"""`emn`: error-minimising noise (unlearnable examples) on the rows of a frozen encoder with a convex head."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from foretaste.attacks.base import LabelledAttack, Progress, quiet
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.bases import spread
from foretaste.attacks.optimise.carriers import CarrierName, FeatureCarrier, PixelCarrier
from foretaste.attacks.optimise.constraints import Box
from foretaste.attacks.optimise.error_minimising import ErrorMinimising
from foretaste.attacks.optimise.perturbation import SignPerturbation
from foretaste.attacks.optimise.requirements import require_images, require_own_rows, require_usable
from foretaste.attacks.results import Poisoning
from foretaste.errors import AttackError, BudgetError
from foretaste.heads.objective import Rows
from foretaste.heads.scaler import Scaler
from foretaste.record import Ledger
from foretaste.runtime import stream

LIMITS: dict[str, tuple[str, float]] = {"pixels": ("epsilon", 8.0), "features": ("reach", 0.5)}
"""By carrier: the field that bounds the noise, and its default."""


class EMN(LabelledAttack):
    """Perturb training rows, under their own labels, so that the head fits the noise and learns little from the rows.

    Source: Huang, Ma, Erfani, Bailey, Wang, "Unlearnable Examples: Making Personal Data Unexploitable", ICLR 2021,
    section 3, and the authors' code (HanxunH/Unlearnable-Examples, perturbation.py): min over theta, min over
    ||delta||_inf <= 8/255 of CE(f(x + delta), y). As there, rounds of fitting theta and moving delta by sign steps;
    the noise starts at zero and persists from round to round.

    What differs, because the encoder is frozen and theta is the convex head alone:

    - theta is fitted to its optimum over all training rows each round, instead of by ten batches of SGD from a random
      start. So the rule "stop when the training error is below 0.01" is asked after a round and never before the first:
      the clean head may already be that good.
    - steps run over all perturbed rows at once; class-wise noise moves by the mean over its class of the rows' steps.
    - carrier features is our own extension, for feature files: the ball is in standard deviations of each feature, and
      inside the range of the clean ones.
    """

    name: ClassVar[str] = "emn"
    replaces: ClassVar[bool] = True
    carrier: CarrierName = Field(default="features", description="what the attacker perturbs")
    noise: Literal["sample", "class"] = Field(
        default="sample", description="noise of each row's own, or one that all rows of a class share"
    )
    epsilon: float | None = Field(
        default=None, ge=1, le=255, description="carrier pixels: L-inf bound of the noise, in 1/255 (default 8)"
    )
    reach: float | None = Field(
        default=None, gt=0, description="carrier features: L-inf bound, in standard deviations (default 0.5)"
    )
    rounds: int = Field(
        default=10, ge=1, description="of fitting the head and moving the noise, at most (the paper has no bound)"
    )
    steps: int = Field(default=20, ge=1, description="sign steps of the noise in a round")
    step: float | None = Field(
        default=None, gt=0, description="of one sign step, in the unit of the bound (default a tenth of it: 0.8/255)"
    )
    stop: float = Field(
        default=0.01, ge=0, le=1, description="end after a round when the training error on the perturbed rows is below"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_bound(cls, values: Any) -> Any:
        """The carrier's bound in full, since the referee holds the attack to it; the other one would be ignored."""
        if not isinstance(values, dict):
            return values
        carrier = values.get("carrier", "features")
        for of, (bound, default) in LIMITS.items():
            if of == carrier and values.get(bound) is None:
                values = {**values, bound: default}
            elif of != carrier and values.get(bound) is not None:
                raise ValueError(f"{bound} is a bound of carrier {of}")
        return values

    @property
    def variant(self) -> str:
        """Carrier, bound, that it replaces rows, and every other field that is not at its default."""
        limit = f"{self.epsilon:g}/255" if self.carrier == "pixels" else f"reach {self.reach:g}"
        others = self.model_dump(exclude_defaults=True, exclude={"carrier", "epsilon", "reach"})
        return ", ".join([self.carrier, limit, "replaces rows", *(f"{name} {value}" for name, value in others.items())])

    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        """Perturb `rows` rows of the training set, at random; see `LabelledAttack.poison`.

        Raises:
            BudgetError: more rows than there are to replace.
            SpecError: carrier pixels without images and an encoder.
            DataError: features or labels that no attack can work with, or rows that are not the victim's.
            AttackError: the training loss is not finite, or does not fall.
        """
        n = len(known.y)
        if rows > n:
            raise BudgetError(f"{self.name}: at most the {n} training rows", got=str(rows), do="pass a budget up to 1")
        require_own_rows(self.name, known)
        require_usable(known)
        base = spread(n, rows, stream(seed, "attack"))
        y, scaler = known.y[base], Scaler.of([known.z])
        kept = torch.ones(n, dtype=torch.bool)
        kept[base] = False
        objective = ErrorMinimising(Rows(scaler.apply(known.z[kept]), known.y[kept]), known.classes, known.ridge)
        carrier = self._carry(known, scaler, base)
        ledger = self._minimise(carrier, objective, y, progress)
        poison, pixels = carrier.deliver(y), self.carrier == "pixels"
        bound, _ = LIMITS[self.carrier]
        return Poisoning(
            y=y,
            base=base,
            ledger=ledger.model_copy(update={"changed": sorted(base.tolist()), "replaced": rows}),
            z=None if pixels else poison,
            pixels=poison if pixels else None,
            constraint="pixels" if pixels else "box",
            limits={bound: float(int(self._bound)) if pixels else self._bound},
            replaces=True,
        )

    def planned(self, rows: int) -> tuple[int, float]:
        """One pass a step over the perturbed images and one fit a round, if no round ends the attack early."""
        return (self.rounds * self.steps * rows if self.carrier == "pixels" else 0), self.rounds + 1.0

    @property
    def _bound(self) -> float:
        """Of the noise: in 1/255, or in standard deviations."""
        bound = self.epsilon if self.carrier == "pixels" else self.reach
        assert bound is not None
        return bound

    def _carry(self, known: Knowledge, scaler: Scaler, base: Tensor) -> FeatureCarrier | PixelCarrier:
        if self.carrier == "pixels":
            images, encoder = require_images(self.name, self.carrier, known)
            return PixelCarrier(images.pixels[base], encoder, scaler, self._bound, known.runtime)
        z, reach = known.z[base], (self._bound * scaler.scale).to(known.z)
        low, high = known.z.aminmax(dim=0)
        return FeatureCarrier(z, scaler, Box(torch.maximum(z - reach, low), torch.minimum(z + reach, high)))

    @torch.no_grad()
    def _minimise(
        self, carrier: FeatureCarrier | PixelCarrier, objective: ErrorMinimising, y: Tensor, progress: Progress
    ) -> Ledger:
        """Move the carrier's leaf, rounds of `steps`; the ledger of what that did, without the rows."""
        unit = 255.0 if self.carrier == "pixels" else 1.0
        reach, step = self._bound / unit, (self.step or self._bound / 10) / unit
        noise = SignPerturbation(carrier, y, reach, objective.classes if self.noise == "class" else None)
        curve, worst, errors = list[float](), 0.0, list[float]()
        total = self.rounds * self.steps
        for turn in range(self.rounds + 1):
            x = carrier.features()
            now = objective.evaluate(x, y, gradient=False)
            curve.append(now.value)
            errors.append(objective.error(x, y))
            worst = max(worst, now.residuals["fit"])
            if not math.isfinite(now.value):
                raise AttackError(f"{self.name}: a finite loss", got=f"{now.value} in round {turn}", curve=curve[:-1])
            if turn == self.rounds or (turn and errors[-1] < self.stop):
                break
            for done in range(self.steps):
                x = carrier.features() if done else x
                carrier.pull(objective.slope(x, y))
                noise.step(step)
                progress(turn * self.steps + done, total)
        progress(total, total)
        if not curve[-1] < curve[0]:
            raise AttackError(
                f"{self.name}: a training loss that falls",
                got=f"{curve[0]:.6g} on the clean rows and {curve[-1]:.6g} with the noise",
                do="lower --step or raise the bound of the noise",
                curve=curve,
            )
        noise.settle(unit)
        return Ledger(
            changed=[],
            objective=curve,
            objective_name="training loss of the refitted head, of all rows, after each round",
            better=objective.better,
            residuals={"fit": worst},
            figures={"clean training error": errors[0], "training error": errors[-1], "rounds": len(curve) - 1.0},
            passes=carrier.passes,
        )
