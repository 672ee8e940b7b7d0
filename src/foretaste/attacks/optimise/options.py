"""Fields and steps that every attack with a carrier shares: what it writes, inside which set, from which rows."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from foretaste.attacks.base import LabelledAttack, Progress, quiet
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.bases import spread, wrong_labels
from foretaste.attacks.optimise.carriers import Carrier, CarrierName, FeatureCarrier, PixelCarrier
from foretaste.attacks.optimise.constraints import Constraint, FeatureConstraint, Unseen, feature_constraint
from foretaste.attacks.optimise.penalty import ascend_unseen
from foretaste.attacks.optimise.projected_ascent import Ascent, Better, Objective, ascend
from foretaste.attacks.optimise.requirements import require_images, require_usable
from foretaste.attacks.results import Poisoning, distinct
from foretaste.attacks.surrogates import FilterSurrogate
from foretaste.errors import SpecError
from foretaste.heads.scaler import Scaler
from foretaste.method import Since
from foretaste.record import Ledger


class CarrierAttack(LabelledAttack):
    """A labelled-data attack that moves features or pixels. Subclasses add an objective and write `poison`."""

    follows_votes: ClassVar[bool] = False
    """Whether `against` may name a certified head."""
    carrier: CarrierName = Field(default="features", description="what the attacker writes")
    constraint: FeatureConstraint = Field(
        default="box", description="carrier features: none, range of each clean feature, or ball round the centroid"
    )
    quantile: float = Field(default=0.95, gt=0, le=1, description="constraint ball: share of its class that it holds")
    epsilon: float | None = Field(
        default=None, ge=1, le=255, description="carrier pixels: L-inf ball round the base image, in 1/255"
    )
    against: Annotated[str | None, Since("0.1")] = Field(
        default=None,
        description="defence that the poison is made against: a filter to stay under, e.g. sphere or "
        "spectral/centred=false, or for exact a certified head, e.g. dpa/partitions=250; none: no defence",
    )
    against_quantile: Annotated[float, Since("0.1")] = Field(
        default=0.95,
        gt=0,
        le=1,
        description="against: share of the attacker's own clean rows that score at most what the poison may",
    )
    penalty: Annotated[float, Since("0.1")] = Field(
        default=1.0, gt=0, description="against: first weight of the penalty, doubled while the poison would be seen"
    )

    def planned_votes(self, classes: int) -> float:
        """Against a certified head of that many classes: how often the damage to its vote is worked out; and no fits.

        A time without the gradient counts for half.
        """
        return 0.0

    @model_validator(mode="after")
    def _one_constraint(self) -> Self:
        """A constraint of the other carrier would be ignored: say so instead."""
        if self.carrier == "features" and self.epsilon is not None:
            raise ValueError("epsilon is a constraint of carrier pixels")
        if self.moves != "features" and self.constraint != "box":
            raise ValueError(f"carrier {self.carrier} is always inside the box [0, 1]; epsilon makes it smaller")
        if self.against is None:
            for name in ("against_quantile", "penalty"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is a field of an attack against a filter")
        return self

    @property
    def moves(self) -> str:
        """What the optimiser moves; a subclass may make the pixels that it writes in another way."""
        return self.carrier

    @property
    def variant(self) -> str:
        """Carrier and constraint, and every other field that is not at its default."""
        limit: str = self.constraint
        if self.carrier != "features":
            limit = "[0, 1]" if self.epsilon is None else f"{self.epsilon:g}/255"
        others = self.model_dump(exclude_defaults=True, exclude={"carrier", "epsilon"})
        if self.carrier == "features":
            others.pop("constraint", None)  # already said
        return ", ".join([self.carrier, limit, *self._named(others)])

    def _named(self, others: dict[str, object]) -> list[str]:
        """The part of the variant for other fields."""
        return [f"{name} {value}" for name, value in others.items()]

    def start(
        self, known: Knowledge, rows: int, labels: Literal["random", "true"], random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Base rows and first labels, int64 [m] each.

        Raises:
            DataError: the attacker's rows miss a class, or all of their features are the same.
        """
        require_usable(known)
        base = spread(len(known.y), rows, random)
        true = known.y[base]
        return base, true if labels == "true" else wrong_labels(true, known.classes, random)

    def carry(self, known: Knowledge, scaler: Scaler, base: Tensor) -> Carrier:
        """The carrier, at the base rows.

        Raises:
            SpecError: carrier pixels without images and an encoder.
        """
        if self.carrier != "features":
            # Before any work, also where they are needed only later.
            images, encoder = require_images(self.name, self.carrier, known)
            if self.moves != "features":
                return PixelCarrier(images.pixels[base], encoder, scaler, self.epsilon, known.runtime)
        return FeatureCarrier(known.z[base], scaler, self.allowed(known))

    def allowed(self, known: Knowledge) -> Constraint:
        """Where poisoned features may lie: the constraint, under the filter's threshold where that can be projected on.

        Raises:
            SpecError: `against` names a defence, and what the attacker knows has none.
        """
        inside = feature_constraint(self.constraint, known.z, known.y, known.classes, self.quantile)
        if self.against is None or known.vote_surrogate is not None:
            return inside
        return Unseen(inside, self.surrogate(known))

    def surrogate(self, known: Knowledge) -> FilterSurrogate:
        """The filter that the attack reckons with; there is none where it is a certified head.

        Raises:
            SpecError: what the attacker knows has none.
        """
        if known.filter_surrogate is None:
            raise SpecError(
                f"{self.name} against {self.against}: that defence in what the attacker knows",
                got="none",
                do="pass Knowledge(filter_surrogate=...) or (vote_surrogate=...), as audits do",
            )
        return known.filter_surrogate

    def optimise(
        self,
        known: Knowledge,
        scaler: Scaler,
        carrier: Carrier,
        objective: Objective,
        y: Tensor,
        *,
        steps: int,
        rate: float,
        progress: Progress,
    ) -> Ascent:
        """Move the carrier along the objective, past the filter if one is named; see `ascend` and `ascend_unseen`.

        Raises:
            SpecError: as `surrogate`.
            AttackError: the objective is not finite, or does not improve.
        """
        if self.against is None:
            return ascend(self.name, carrier, objective, y, steps=steps, rate=rate, progress=progress)
        return ascend_unseen(
            self.surrogate(known),
            self.penalty,
            scaler,
            self.name,
            carrier,
            objective,
            y,
            steps=steps,
            rate=rate,
            progress=progress,
        )

    def penalised(self, told: str) -> str:
        """The name of an objective that `optimise` follows."""
        return told if self.against is None else f"{told}, less a penalty against {self.against}"

    def deliver(
        self,
        known: Knowledge,
        scaler: Scaler,
        carrier: Carrier,
        base: Tensor,
        end: Ascent,
        objective_name: str,
        better: Better,
        *,
        figures: dict[str, float] | None = None,
        progress: Progress = quiet,
    ) -> Poisoning:
        """The poison with its ledger, from where the carrier's leaf ended.

        Args:
            known: what the attacker knows.
            scaler: of the clean features.
            carrier: as `carry` made it.
            base: int64 [m], the rows it started from.
            end: what `ascend` returned.
            objective_name: for the ledger.
            better: which way the objective is better.
            figures: other numbers for the ledger.
            progress: of what remains to be done; whole when the poison is made.
        """
        poison, pixels = carrier.deliver(end.y), self.moves != "features"
        ledger = Ledger(
            changed=distinct(base),
            added=len(base),
            objective=end.curve,
            objective_name=objective_name,
            better=better,
            residuals=end.residuals,
            figures={**(figures or {}), **end.figures},
            passes=carrier.passes,
        )
        made = Poisoning(
            y=end.y,
            base=base,
            ledger=ledger,
            z=None if pixels else poison,
            pixels=poison if pixels else None,
            constraint="pixels" if pixels else self.constraint,
            limits=self._limits(),
        )
        return self.realised(made, known, scaler, progress)

    def realised(self, made: Poisoning, known: Knowledge, scaler: Scaler, progress: Progress) -> Poisoning:
        """The poison as it is handed over; a subclass may turn features into images."""
        return made

    def _limits(self) -> dict[str, float]:
        if self.carrier != "features":
            return {} if self.epsilon is None else {"epsilon": float(int(self.epsilon))}
        return {"quantile": self.quantile} if self.constraint == "ball" else {}
