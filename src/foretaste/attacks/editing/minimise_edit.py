"""Smaller edits that still do what they are for: by a common factor, by fewer tensors, or by a lower rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from foretaste.attacks.editing.problem import Figures

HALVINGS = 12
Changes = list[Tensor]
"""What is added to each trained weight."""
Judge = Callable[[Sequence[Tensor]], float]
"""The least similarity of a target to its class under those changes."""


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


def norm(changes: Changes) -> float:
    """L2 norm of all together."""
    return math.hypot(*(float(change.double().norm()) for change in changes))
