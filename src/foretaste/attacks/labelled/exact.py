"""`exact`: the exact Stackelberg attack on a convex head, through features or through the encoder's pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from foretaste.attacks.base import Progress, quiet
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.carriers import Carrier
from foretaste.attacks.optimise.inversion_options import InvertibleAttack
from foretaste.attacks.optimise.projected_ascent import ascend
from foretaste.attacks.optimise.requirements import clean_rows
from foretaste.attacks.optimise.soft_filter import RATES, ascend_left
from foretaste.attacks.optimise.stackelberg import Leader, Stackelberg
from foretaste.attacks.optimise.vote_objective import ascend_vote, planned_evaluations
from foretaste.attacks.results import Poisoning
from foretaste.attacks.surrogates import VoteSurrogate
from foretaste.heads.objective import Rows
from foretaste.heads.scaler import Scaler
from foretaste.runtime import stream


class Exact(InvertibleAttack):
    """Maximise the loss of the exactly fitted head on the attacker's validation rows, by its exact total gradient.

    Source: the bilevel problem of TGDA (Lu, Kamath, Yu, TMLR 2022, arXiv 2204.09092, section 3), restricted to a
    frozen encoder with a convex head, where both of its approximations are unnecessary (see `stackelberg`). Against a
    filter the head is the one fitted to what the filter leaves (see `soft_filter`); against a certified head it
    maximises the smooth count of rows that the vote gets wrong (see `vote_objective`).
    """

    name: ClassVar[str] = "exact"
    follows_votes: ClassVar[bool] = True
    labels: Literal["random", "chosen"] = Field(
        default="random", description="wrong at random and fixed, or moved to the label of the steepest ascent"
    )
    leader: Leader = Field(default="margin", description="what the attacker maximises on its validation rows")
    steps: int = Field(default=60, ge=1, description="steps of Adam")
    rate: float | None = Field(
        default=None, gt=0, description="Adam's step: standard units (default 0.3) or pixels in [0, 1] (default 0.1)"
    )

    @model_validator(mode="after")
    def _no_penalty(self) -> Self:
        if self.penalty != type(self).model_fields["penalty"].default:
            raise ValueError("exact has no penalty: it does harm with what the filter leaves")
        return self

    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        """Make the poison; see `LabelledAttack.poison`.

        Raises:
            SpecError: carrier pixels without images and an encoder.
            DataError: features or labels that no attack can work with.
            AttackError: the objective is not finite, or does not improve.
        """
        base, y = self.start(known, rows, "random", stream(seed, "attack"))
        scaler = Scaler.of([known.z])
        carrier = self.carry(known, scaler, base)
        if known.vote_surrogate is not None:
            return self._against_vote(known, known.vote_surrogate, scaler, carrier, base, progress)
        objective = Stackelberg(
            clean_rows(known, scaler),
            Rows(scaler.apply(known.validation_z), known.validation_y),
            known.classes,
            known.ridge,
            self.leader,
        )
        steps, rate = self.steps, self.rate or (0.3 if self.moves == "features" else 0.1)
        told, relabel = self.optimising(progress), self.labels == "chosen"
        name = f"{self.leader} of the refitted head on the attacker's validation rows"
        if self.against is None:
            labels = objective if relabel else None
            end = ascend(self.name, carrier, objective, y, steps=steps, rate=rate, progress=told, relabel=labels)
        else:
            name += f", fitted to what {self.against} leaves"
            end = ascend_left(
                self.surrogate(known),
                scaler,
                self.name,
                carrier,
                objective,
                y,
                known.y[base],
                steps=steps,
                rate=rate,
                progress=told,
                relabel=relabel,
            )
        return self.deliver(known, scaler, carrier, base, end, name, objective.better, progress=progress)

    def _against_vote(
        self, known: Knowledge, vote: VoteSurrogate, scaler: Scaler, carrier: Carrier, base: Tensor, progress: Progress
    ) -> Poisoning:
        end = ascend_vote(
            vote, scaler, self.name, carrier, known.classes, steps=self.steps, rate=self.rate or 0.3, progress=progress
        )
        told = f"smooth share of the attacker's validation rows that {self.against} gets wrong"
        made = self.deliver(known, scaler, carrier, base, end, told, "higher")
        assert made.z is not None
        return replace(made, z=vote.settled(made.z, made.y))

    def planned(self, rows: int) -> tuple[int, float]:
        """One pass over the poison images and, thanks to the warm starts, about half a fit a step; the inversion.

        Against a filter a step takes its stand-in as well, and now and then the filter itself: about two fits more. The
        tries from true labels, which only a poison that fails to pass needs, come on top.
        """
        tries, fits = (1, 0.5) if self.against is None else (len(RATES), 2.5)
        moved = tries * self.steps * rows if self.moves == "pixels" else 0
        return moved + self.planned_inversion(rows), tries * fits * self.steps

    def planned_votes(self, classes: int) -> float:
        """All label trials and the ascent, see `CarrierAttack.planned_votes`."""
        return planned_evaluations(self.steps, classes)
