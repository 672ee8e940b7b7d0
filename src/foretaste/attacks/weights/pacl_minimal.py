"""PA-CL, and then the smallest part of its edit that still brings the target to the class: beyond the paper.

An edit that ends at `enough` is larger than it must be, and a defence that compares weights sees its size. The attacker
has no labelled rows, hence no head, and judges by what PA-CL stops by: the cosine of the target and the class mean in
standard units. Three sizes can be made small, one at a time: the L2 norm, by bisection on a common factor of all
changes; the number of changed tensors, by taking back whichever tensor costs least until none can be; the rank of each
layer's change (kernels flattened to [o, i]), by the truncated singular value decomposition with the same rank for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from foretaste.attacks.base import Progress
from foretaste.attacks.weights.adaptive import Simulation
from foretaste.attacks.weights.edited import Edited
from foretaste.attacks.weights.pacl import PACL
from foretaste.attacks.weights.scene import Figures, Scene

HALVINGS = 12
Changes = list[Tensor]
"""What is added to each trained weight."""
Judge = Callable[[Sequence[Tensor]], float]
"""The least similarity of a target to its class under those changes."""


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

    def _descend(
        self,
        edited: Edited,
        scene: Scene,
        random: torch.Generator,
        progress: Progress,
        simulation: Simulation | None = None,
    ) -> tuple[list[float], Figures]:
        start = [weight.detach().clone() for weight in edited.weights]
        curve, figures = super()._descend(edited, scene, random, progress)
        whole = [weight.detach() - clean for weight, clean in zip(edited.weights, start, strict=True)]
        entered = edited.enter(scene.targets)

        @torch.no_grad()
        def judge(changes: Sequence[Tensor]) -> float:
            for weight, clean, change in zip(edited.weights, start, changes, strict=True):
                weight.copy_(clean + change)
            z = edited.features(entered).split(1)
            return min(scene.similarity(one, pair) for one, pair in zip(z, scene.pairs, strict=True))

        reached = judge(whole)
        figures |= {"similarity_whole": reached, "l2_change_whole": _norm(whole)}
        if reached < self.holds:
            return curve, figures
        least, found = {"l2": shortest, "tensors": fewest, "rank": flattest}[self.edit](whole, judge, self.holds)
        judge(least)
        return curve, figures | found


def shortest(changes: Changes, judge: Judge, holds: float) -> tuple[Changes, Figures]:
    """The changes times the least factor, to 1 / 4096, at which they hold."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if judge([middle * change for change in changes]) >= holds else (middle, high)
    return [high * change for change in changes], {"scale": high}


def fewest(changes: Changes, judge: Judge, holds: float) -> tuple[Changes, Figures]:
    """As few of the changes as hold: greedy, the one whose loss costs least is taken back first."""
    kept = list(changes)
    there = [number for number, change in enumerate(kept) if bool(change.any())]
    whole = len(there)
    while len(there) > 1:
        without = {
            number: judge([torch.zeros_like(change) if at == number else change for at, change in enumerate(kept)])
            for number in there
        }
        best = max(there, key=without.__getitem__)
        if without[best] < holds:
            break
        kept[best] = torch.zeros_like(kept[best])
        there.remove(best)
    return kept, {"tensors_whole": float(whole), "tensors": float(len(there))}


def flattest(changes: Changes, judge: Judge, holds: float) -> tuple[Changes, Figures]:
    """Each change cut to the same rank, the least that holds; biases and the like are one column already."""
    parts = [torch.linalg.svd(_matrix(change), full_matrices=False) for change in changes]

    def cut(rank: int) -> Changes:
        return [
            ((u[:, :rank] * s[:rank]) @ v[:rank]).view_as(change) if min(len(s), rank) < len(s) else change
            for (u, s, v), change in zip(parts, changes, strict=True)
        ]

    low, high = 0, max(len(s) for _, s, _ in parts)
    whole = high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if judge(cut(middle)) >= holds else (middle, high)
    return cut(high), {"rank_whole": float(whole), "rank": float(high)}


def _matrix(change: Tensor) -> Tensor:
    return change.reshape(len(change) if change.ndim else 1, -1)


def _norm(changes: Changes) -> float:
    return math.hypot(*(float(change.double().norm()) for change in changes))
