"""What the attacks on pre-training data share: checks of the (target, references) pairs, shares of the rows, sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from foretaste.errors import BudgetError, SpecError
from foretaste.images import Images


def shares(targets: Sequence[Tensor], references: Sequence[Images], rows: int) -> list[int]:
    """How many of the rows each pair gets: all rows are used, and no pair has two more than another.

    Raises:
        SpecError: no target, not one set of references for each, a target that is no uint8 [3, H, W], or one without
            references or among its own.
        BudgetError: fewer rows than pairs.
    """
    if not targets or len(targets) != len(references):
        raise SpecError(
            "targets and references: at least one target, and a set of references for each",
            got=f"{len(targets)} targets and {len(references)} sets",
        )
    for place, (target, own) in enumerate(zip(targets, references, strict=True)):
        if target.dtype != torch.uint8 or target.ndim != 3 or len(target) != 3 or 0 in target.shape:
            raise SpecError(f"target {place}: uint8 [3, H, W]", got=f"{target.dtype} {list(target.shape)}")
        if not len(own):
            raise SpecError(f"references of target {place}: at least one image of the desired class", got="no image")
        if own.pixels.shape[1:] == target.shape and bool((own.pixels == target).flatten(1).all(1).any()):
            raise SpecError(
                f"target {place}: an image that is not of the desired class",
                got="an image that is among the references of that class",
                do="choose another target or another class",
            )
    each, more = divmod(rows, len(targets))
    if each < 1:
        raise BudgetError(
            f"rows: at least one for each of the {len(targets)} (target, class) pairs",
            got=str(rows),
            do="pass a larger budget, or let fewer pairs share a run",
        )
    return [each + (place < more) for place in range(len(targets))]


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Float [N, 3, height, width] in [0, 255] of uint8 [N, 3, H, W]: bilinear, with an average where it gets smaller.

    Images of that size already are what they were, exactly.
    """
    if pixels.shape[-2:] == (height, width):
        return pixels.float()
    return functional.interpolate(
        pixels.float(), size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )


def to_bytes(values: Tensor) -> Tensor:
    """Float in [0, 255] to the nearest uint8."""
    return values.round().clamp(0, 255).to(torch.uint8)
