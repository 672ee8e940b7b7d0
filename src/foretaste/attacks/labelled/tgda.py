"""`tgda`: total gradient descent ascent, with the paper's follower and its generator."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from foretaste.attacks.base import Progress, quiet
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.carriers import PixelCarrier
from foretaste.attacks.optimise.generator import GeneratorCarrier
from foretaste.attacks.optimise.options import CarrierAttack
from foretaste.attacks.optimise.requirements import clean_rows
from foretaste.attacks.optimise.stackelberg import Leader
from foretaste.attacks.optimise.unrolled import Unrolled
from foretaste.attacks.results import Poisoning
from foretaste.heads.fit import minimise
from foretaste.heads.objective import Curvature, HeadObjective, Rows
from foretaste.heads.scaler import Scaler
from foretaste.runtime import stream

RATES = {"features": 0.1, "pixels": 0.1, "generator": 0.01}


class TGDA(CarrierAttack):
    """TGDA (Lu, Kamath, Yu, TMLR 2022, arXiv 2204.09092, section 3) against the linear head of a frozen encoder.

    The paper's defaults but for the length (201 epochs there) and for the leader's optimiser, Adam like that of the
    other attacks here in place of plain ascent.
    """

    name: ClassVar[str] = "tgda"
    carrier: Literal["features", "pixels", "generator"] = Field(  # type: ignore[assignment]
        default="features", description="what the attacker writes; generator: the paper's network makes the pixels"
    )
    labels: Literal["true", "random"] = Field(
        default="true", description="labels of the base rows (the paper), or wrong ones"
    )
    leader: Leader = Field(default="cross-entropy", description="what is maximised on the attacker's validation rows")
    steps: int = Field(default=60, ge=1, description="leader steps")
    rate: float | None = Field(
        default=None,
        gt=0,
        description="the leader's step: standard units (default 0.1), pixels in [0, 1] (0.1), weights (0.01)",
    )
    follower_steps: int = Field(default=20, ge=1, description="k, gradient steps of the follower per leader step")
    follower_rate: float | None = Field(
        default=None, gt=0, description="of the follower; default: 1 / largest eigenvalue of the clean Hessian"
    )
    cg_steps: int = Field(default=16, ge=1, description="conjugate gradients on H^2")

    def planned(self, rows: int) -> tuple[int, float]:
        """One pass over the poison images a leader step; 20 gradients and 2 x 16 products are about a fit."""
        return (0 if self.carrier == "features" else self.steps * rows), 1.0 * self.steps

    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        """Make the poison; see `LabelledAttack.poison`.

        Raises:
            SpecError: carrier pixels or generator without images and an encoder.
            DataError: features or labels that no attack can work with.
            AttackError: the objective is not finite, or does not improve.
        """
        random = stream(seed, "attack")
        base, y = self.start(known, rows, self.labels, random)
        scaler = Scaler.of([known.z])
        carrier = self.carry(known, scaler, base)
        if isinstance(carrier, PixelCarrier) and self.carrier == "generator":
            carrier = GeneratorCarrier(carrier, random)
        clean = clean_rows(known, scaler)
        problem = HeadObjective((clean,), known.classes, known.ridge)
        fitted = minimise(problem).weight
        objective = Unrolled(
            clean,
            Rows(scaler.apply(known.validation_z), known.validation_y),
            fitted,
            known.classes,
            known.ridge,
            self.leader,
            self.follower_steps,
            self.follower_rate or 1 / largest_eigenvalue(problem.curvature(problem.zeros()), random),
            self.cg_steps,
        )
        rate = self.rate or RATES[self.carrier]
        end = self.optimise(known, scaler, carrier, objective, y, steps=self.steps, rate=rate, progress=progress)
        told = f"{self.leader} of the follower's head on the attacker's validation rows"
        return self.deliver(known, scaler, carrier, base, end, self.penalised(told), objective.better)


def largest_eigenvalue(curvature: Curvature, random: torch.Generator, rounds: int = 20) -> float:
    """Of the Hessian, by power iteration; at W = 0, where the curvature of softmax regression is largest or near it."""
    vector = torch.randn(curvature.objective.shape, generator=random, dtype=torch.float64)
    size = 1.0
    for _ in range(rounds):
        vector = curvature.product(vector / vector.norm())
        size = float(vector.norm())
    return size
