"""`gradient-canceling`: install a target head by poison that cancels the gradient there."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from foretaste.attacks.base import Progress, quiet
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.exact import Exact
from foretaste.attacks.optimise.carriers import FeatureCarrier
from foretaste.attacks.optimise.gradient_residual import GradientResidual
from foretaste.attacks.optimise.inversion_options import InvertibleAttack
from foretaste.attacks.optimise.penalty import BARE, Penalised
from foretaste.attacks.optimise.projected_ascent import Objective, ascend
from foretaste.attacks.optimise.requirements import clean_rows
from foretaste.attacks.optimise.stackelberg import leader_loss
from foretaste.attacks.optimise.target_heads import TargetHead, grad_pc, measured, reachable_heads
from foretaste.attacks.results import Poisoning
from foretaste.heads.fit import minimise
from foretaste.heads.objective import HeadObjective, Rows
from foretaste.heads.scaler import Scaler
from foretaste.runtime import stream

FEATURE_STEPS, TRIAL_STEPS = 300, 150
SLACKS = (1, 8, 64)
"""Budgets that tau may be. Beyond 1 the head cannot be installed, but on the way there a lot of harm may be done."""


class GradientCanceling(InvertibleAttack):
    """Gradient canceling (Lu, Kamath, Yu, ICML 2023, arXiv 2303.03592), its target head by GradPC.

    On features this is stage two of the feature-targeted attack (Lu, Yang, Kamath, Yu, SaTML 2024, arXiv 2402.12626).
    """

    name: ClassVar[str] = "gradient-canceling"
    target: Literal["grad-pc", "exact"] = Field(
        default="grad-pc", description="the head to install: GradPC's, or that of the exact attack on features"
    )
    labels: Literal["true", "random"] = Field(
        default="true", description="labels of the base rows (the paper), or wrong ones"
    )
    head_radius: float | None = Field(
        default=None,
        gt=0,
        description="of GradPC, in standard units; default: of those whose tau is 1, 8 or 64 budgets the one that "
        "does most harm on the attacker's validation rows, with poison that is canceled on features",
    )
    steps: int | None = Field(default=None, ge=1, description="of Adam (default 300 on features, 60 on pixels)")
    rate: float | None = Field(
        default=None, gt=0, description="Adam's step: standard units (default 0.1) or pixels in [0, 1] (default 0.1)"
    )

    def planned(self, rows: int) -> tuple[int, float]:
        """One pass over the poison images a step; the search for the target costs about as much as 40 fits."""
        moved = self._steps * rows if self.moves == "pixels" else 0
        return moved + self.planned_inversion(rows), 40.0 if self.head_radius is None else 10.0

    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        """Make the poison; see `LabelledAttack.poison`.

        The ledger's figures hold tau, whether the budget reaches it, the radius, and the residual
        ||g_clean + g_poison|| / ||g_clean|| at the target head.

        Raises:
            SpecError: carrier pixels without images and an encoder.
            DataError: features or labels that no attack can work with.
            AttackError: the objective is not finite, or does not improve.
        """
        base, y = self.start(known, rows, self.labels, stream(seed, "attack"))
        scaler = Scaler.of([known.z])
        clean = clean_rows(known, scaler)
        problem = HeadObjective((clean,), known.classes, known.ridge)
        budget = rows / problem.total
        target = self._target(known, problem, scaler, base, y, seed)
        carrier = self.carry(known, scaler, base)
        objective = GradientResidual(clean, target.weight, known.classes, known.ridge, rows)
        rate = self.rate or 0.1
        end = self.optimise(
            known,
            scaler,
            carrier,
            objective,
            y,
            steps=self._steps,
            rate=rate,
            progress=self.optimising(progress),
        )
        figures = {
            "tau": min(target.tau, 1e9),  # JSON has no infinity
            "budget reaches tau": float(target.tau <= budget),
            "radius": target.radius,
            "residual": end.figures.get(BARE, min(end.curve)) ** 0.5,
        }
        told = self.penalised("squared gradient at the target head, relative to that of the clean rows")
        return self.deliver(
            known, scaler, carrier, base, end, told, objective.better, figures=figures, progress=progress
        )

    @property
    def _steps(self) -> int:
        return self.steps or (60 if self.moves == "pixels" else FEATURE_STEPS)

    def _target(
        self, known: Knowledge, clean: HeadObjective, scaler: Scaler, base: Tensor, y: Tensor, seed: int
    ) -> TargetHead:
        fitted = minimise(clean).weight
        if self.target == "exact":
            reckoned = self.model_dump(include={"constraint", "quantile", "against", "against_quantile"})
            made = Exact(**reckoned).poison(known, len(y), seed)
            assert made.z is not None
            return measured(clean, fitted, _retrained(clean, fitted, Rows(scaler.apply(made.z), made.y)))
        if self.head_radius is not None:
            return measured(clean, fitted, grad_pc(clean, fitted, self.head_radius))
        budget = len(y) / clean.total
        targets = reachable_heads(clean, fitted, [slack * budget for slack in SLACKS])
        return max(targets, key=lambda target: self._harm(known, clean, fitted, scaler, target, base, y))

    def _harm(
        self,
        known: Knowledge,
        clean: HeadObjective,
        fitted: Tensor,
        scaler: Scaler,
        target: TargetHead,
        base: Tensor,
        y: Tensor,
    ) -> float:
        """Loss on the attacker's validation rows of the head retrained with features canceled for this target."""
        carrier = FeatureCarrier(known.z[base], scaler, self.allowed(known))
        objective: Objective = GradientResidual(clean.parts[0], target.weight, clean.classes, clean.ridge, len(y))
        if self.against is not None:
            objective = Penalised(objective, self.surrogate(known), scaler, self.penalty)
        ascend(self.name, carrier, objective, y, steps=TRIAL_STEPS, rate=0.1, progress=quiet)
        weight = _retrained(clean, fitted, Rows(carrier.features(), y))
        own = Rows(scaler.apply(known.validation_z), known.validation_y)
        return leader_loss("margin", own, weight, known.classes)[0]


def _retrained(clean: HeadObjective, fitted: Tensor, poison: Rows) -> Tensor:
    both = HeadObjective((*clean.parts, poison), clean.classes, clean.ridge)
    return minimise(both, start=fitted, tolerance=1e-4).weight
