"""PA-CL, and then the smallest part of its edit that still brings the target to the class: beyond the paper.

An edit that ends at `enough` is larger than it must be, and a defence that compares weights sees its size. The attacker
has no labelled rows, hence no head, and judges by what PA-CL stops by: the cosine of the target and the class mean in
standard units. Three sizes can be made small, one at a time: the L2 norm, by bisection on a common factor of all
changes; the number of changed tensors, by taking back whichever tensor costs least until none can be; the rank of each
layer's change (kernels flattened to [o, i]), by the truncated singular value decomposition with the same rank for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from foretaste.attacks.base import Progress
from foretaste.attacks.editing.descent import Descent
from foretaste.attacks.editing.minimise_edit import fewest, flattest, norm, shortest
from foretaste.attacks.editing.problem import Figures
from foretaste.attacks.weights.pacl import PACL


class PACLMinimal(PACL):
    """PA-CL with the smallest edit that keeps the target's similarity; where it was never reached the edit stays."""

    name: ClassVar[str] = "pacl-minimal"
    edit: Literal["l2", "tensors", "rank"] = Field("l2", description="which size of the edit is made small")
    holds: float = Field(
        0.9, ge=-1, le=1, description="least cosine of target and class mean, in standard units, that the edit keeps"
    )

    @model_validator(mode="after")
    def _statistics_stay(self) -> Self:
        if self.batchnorm == "moving":
            raise ValueError("batchnorm = moving changes more than the trained weights, which alone are made smaller")
        if self.against:
            raise ValueError("against reckons with a defence, which the judge of the smaller edits does not: use pacl")
        return self

    @property
    def variant(self) -> str:
        """The size that is made small, and every other field that is not at its default."""
        return ", ".join([self.edit, *self.settings("edit")])

    def _descend(self, descent: Descent, progress: Progress) -> tuple[list[float], Figures]:
        self.takes_no_surrogate(descent.surrogate)
        edited, prepared = descent.edited, descent.prepared
        start = [weight.detach().clone() for weight in edited.weights]
        curve, figures = super()._descend(descent, progress)
        whole = [weight.detach() - clean for weight, clean in zip(edited.weights, start, strict=True)]
        entered = edited.enter(prepared.targets)

        @torch.no_grad()
        def judge(changes: Sequence[Tensor]) -> float:
            for weight, clean, change in zip(edited.weights, start, changes, strict=True):
                weight.copy_(clean + change)
            z = edited.features(entered).split(1)
            return min(prepared.similarity(one, pair) for one, pair in zip(z, prepared.pairs, strict=True))

        reached = judge(whole)
        figures |= {"similarity_whole": reached, "l2_change_whole": norm(whole)}
        if reached < self.holds:
            return curve, figures
        least, found = {"l2": shortest, "tensors": fewest, "rank": flattest}[self.edit](whole, judge, self.holds)
        judge(least)
        return curve, figures | found
