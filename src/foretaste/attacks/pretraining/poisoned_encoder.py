"""PoisonedEncoder: images that join a target and a reference, so that two crops of one image see one each.

Liu, Jia, Gong: PoisonedEncoder: Poisoning the Unlabeled Pre-training Data in Contrastive Learning, USENIX Security
2022. The attacker wants the encoder f that is pre-trained on clean and poisoned images to give a target x the feature
of references r of another class,

    max over the poison of  mean over the references of cos(f(x), f(r))

and approximates this bilevel problem by what contrastive learning does by itself: two random crops of one image are
pulled together. A crop of the image that joins x and r often sees x, and the other one r.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from foretaste.attacks.base import PretrainingAttack
from foretaste.attacks.pretraining.pairs import resized, shares, to_bytes
from foretaste.attacks.results import PretrainingPoison
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.runtime import stream

LAYOUTS = ("left-right", "right-left", "top-bottom", "bottom-top")
"""Where the target is, then where the reference is."""


class PoisonedEncoder(PretrainingAttack):
    """Add unlabelled images of which one half is the target and the other half a reference of the desired class.

    The joined image has the size of the pre-training images, so each half is resized to half of it. That each half is
    resized on its own, so that nothing blends where they meet, that all (reference, layout) combinations are used
    before one is used again, and the number of references are our reading: the paper's own code was not found.
    """

    name: ClassVar[str] = "poisoned-encoder"
    references: int = Field(50, ge=1, description="most references of a target; drawn from those given; our reading")
    layout: Literal["all", "left-right", "right-left", "top-bottom", "bottom-top"] = Field(
        "all", description="where the target is, then where the reference is; all: the four equally often"
    )

    def poison(
        self, targets: Sequence[Tensor], references: Sequence[Images], pool: Images, rows: int, seed: int
    ) -> PretrainingPoison:
        """Join each target with its references, see `PretrainingAttack.poison`; exactly `rows` images.

        Images of one pair are all different as long as there are combinations of a reference and a layout left, and
        differ in how often by one at most.

        Raises:
            SpecError: no target, not one set of references for each, or a target of a wrong shape or among its own
                references.
            BudgetError: fewer rows than targets.
        """
        random, layouts = stream(seed, "attack"), LAYOUTS if self.layout == "all" else (self.layout,)
        size = (pool.pixels.shape[2], pool.pixels.shape[3])
        made, pairs, distinct = list[Tensor](), list[int](), 0
        for place, share in enumerate(shares(targets, references, rows)):
            given = references[place].pixels
            chosen = given[torch.randperm(len(given), generator=random)[: self.references]]
            order = torch.randperm(len(chosen) * len(layouts), generator=random)
            distinct += min(share, len(order))
            joined = torch.cat([join(targets[place], chosen, layout, size) for layout in layouts])
            made.append(joined[order[torch.arange(share) % len(order)]])
            pairs += [place] * share
        ledger = Ledger(changed=[], added=rows, figures={"distinct_combinations": float(distinct)})
        return PretrainingPoison(torch.cat(made), torch.tensor(pairs), ledger)


def join(target: Tensor, references: Tensor, layout: str, size: tuple[int, int]) -> Tensor:
    """One image of two halves for each reference.

    Args:
        target: uint8 [3, H, W], any size.
        references: uint8 [m, 3, H', W'], any size.
        layout: one of `LAYOUTS`, the target's place first.
        size: height and width of the joined images; where a side is odd, the right or lower part has the pixel more.

    Returns:
        uint8 [m, 3, *size].
    """
    vertical = layout in ("top-bottom", "bottom-top")
    axis, side = (2, size[0]) if vertical else (3, size[1])
    lengths = (side // 2, side - side // 2)
    parts = [target[None], references] if layout in ("left-right", "top-bottom") else [references, target[None]]
    halves = [
        resized(part, *((length, size[1]) if vertical else (size[0], length)))
        for part, length in zip(parts, lengths, strict=True)
    ]
    return to_bytes(torch.cat([half.expand(len(references), -1, -1, -1) for half in halves], axis))
