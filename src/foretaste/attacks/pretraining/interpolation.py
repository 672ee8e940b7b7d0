"""The interpolation path: images that lead in small steps from a reference of the desired class to the target.

Carlini: Poisoning the Unlabeled Dataset of Semi-Supervised Learning, USENIX Security 2021. There the path begins at
an image with a label, and a learner that wants neighbours to agree carries the label along it:

    x_a = (1 - a) r + a x,   0 <= a <= 1,   density of a: 1.5 - a

with the reference r, the target x, and more images near r. Contrastive pre-training has no labels; the same path among
its unlabelled images is how PoisonedEncoder (Liu, Jia, Gong, USENIX Security 2022) compares with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.attacks.base import PretrainingAttack
from foretaste.attacks.pretraining.pairs import resized, shares, to_bytes
from foretaste.attacks.results import PretrainingPoison
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.runtime import stream


class Interpolation(PretrainingAttack):
    """Add the images of a path of pixel blends from a reference to the target.

    Both ends belong to a path, and its points are evenly spaced quantiles of the density instead of draws from it: our
    reading.
    """

    name: ClassVar[str] = "interpolation"
    references: int = Field(1, ge=1, description="most paths to a target, each from a reference of its own")
    skew: float = Field(
        1.0,
        ge=-2,
        le=2,
        description="density 1 + skew (1/2 - a) at the target's share a; 1: the paper's; below 0: more near the target",
    )

    def poison(
        self, targets: Sequence[Tensor], references: Sequence[Images], pool: Images, rows: int, seed: int
    ) -> PretrainingPoison:
        """Blend each target with its references, see `PretrainingAttack.poison`; exactly `rows` images.

        Paths of one target have equally many images, or one more. Both images are resized to those of the pool.

        Raises:
            SpecError: no target, not one set of references for each, or a target of a wrong shape or among its own
                references.
            BudgetError: fewer rows than targets.
        """
        random = stream(seed, "attack")
        height, width = pool.pixels.shape[2:]
        made, pairs = list[Tensor](), list[int]()
        for place, share in enumerate(shares(targets, references, rows)):
            given = references[place].pixels
            chosen = torch.randperm(len(given), generator=random)[: min(self.references, share)]
            each, more = divmod(share, len(chosen))
            target = resized(targets[place][None], height, width)
            for i, reference in enumerate(resized(given[chosen], height, width)):
                a = path(each + (i < more), self.skew).float().view(-1, 1, 1, 1)
                made.append(to_bytes((1 - a) * reference + a * target))
            pairs += [place] * share
        return PretrainingPoison(torch.cat(made), torch.tensor(pairs), Ledger(changed=[], added=rows))


def path(count: int, skew: float) -> Tensor:
    """The target's share at each point of a path: evenly spaced quantiles of the density 1 + skew (1/2 - a) on [0, 1].

    Args:
        count: points, at least one; from two on the first is 0 and the last is 1, and one alone is the median.
        skew: in [-2, 2].

    Returns:
        float64 [count], increasing.

    >>> path(3, 0.0).tolist()
    [0.0, 0.5, 1.0]
    """
    u = torch.linspace(0, 1, count, dtype=torch.float64) if count > 1 else torch.tensor([0.5], dtype=torch.float64)
    rise = 1 + skew / 2
    # The distribution function is rise a - skew a^2 / 2; this form of its inverse has no 0 / 0 where the skew is 0.
    return 2 * u / (rise + (rise**2 - 2 * skew * u).clamp(min=0).sqrt()).clamp(min=1e-12)
