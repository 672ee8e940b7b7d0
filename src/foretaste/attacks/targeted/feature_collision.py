"""`feature-collision`: each poison looks like its base and has the target's feature."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from foretaste.attacks.base import Progress, quiet
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.carriers import PixelCarrier
from foretaste.attacks.optimise.projected_ascent import Better, Evaluation, ascend
from foretaste.attacks.results import Poisoning
from foretaste.attacks.targeted.clean_label import CleanLabel
from foretaste.attacks.targeted.forward_backward import ForwardBackward


class Collision:
    """||x_j - t||^2 / d + beta * mean (u_j - b_j)^2 of each poison's features x_j [d] and pixels u_j; their mean.

    The gradient is that of the first term alone: the optimiser takes the second one implicitly.

    Args:
        goal: t float32 [1, d], in standard units.
        carrier: holds u float32 [m, 3, H, W] in [0, 1] and is now at b.
        beta: at least 0.
    """

    better: ClassVar[Better] = "lower"

    def __init__(self, goal: Tensor, carrier: PixelCarrier, beta: float) -> None:
        self.goal, self.carrier, self.beta = goal, carrier, beta
        self._base = carrier.leaf.clone()

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """Mean and value of each poison, at the features x of the carrier's leaf; labels do not matter."""
        gap = x - self.goal
        rows = gap.square().mean(1) + self.beta * (self.carrier.leaf - self._base).square().flatten(1).mean(1)
        slope = 2 / gap.numel() * gap if gradient else None
        return Evaluation(float(rows.double().mean()), slope, rows=rows)


class FeatureCollision(CleanLabel):
    """Poison Frogs (Shafahi, Huang, Najibi, Suciu, Studer, Dumitras, Goldstein, NeurIPS 2018, arXiv 1804.00792).

    min over each image u of ||f(u) - f(t)||^2 + beta ||u - b||^2 by forward-backward splitting (section 2.2, algorithm
    1), added to the training rows. As in section 4.2 a watermark of the target may be blended into the base first,
    which beta then holds on to. What differs: features are standardised, which is how the head sees them; both terms
    are means, so that beta does not depend on sizes; step sizes adapt (see `forward_backward`); and a ball round the
    base image, which the paper does not have (`epsilon` none), with the benchmark of Schwarzschild et al. (ICML 2021).
    The paper's code has beta ||u - b||^2 with beta = 0.25 (d / d_pixels)^2 for d features, in grey levels, beside the
    sum over features: 0.25 * 255^2 * d / d_pixels here, for features of variance 1. A class with fewer rows than there
    are poisons has its rows used again.
    """

    name: ClassVar[str] = "feature-collision"
    beta: float = Field(default=10, ge=0, description="weight of staying near the base image")
    watermark: float = Field(default=0, ge=0, lt=1, description="opacity of the target in the base image; 0: none")
    steps: int = Field(default=40, ge=1, description="of forward-backward splitting")
    rate: float = Field(default=0.01, gt=0, description="how far the first step moves a pixel, pixels in [0, 1]")

    def poison_for(
        self, known: Knowledge, target: Tensor, wanted: int, rows: int, seed: int, progress: Progress = quiet
    ) -> Poisoning:
        """Make `rows` images to add; see `TargetedAttack.poison_for`.

        Raises:
            SpecError: no images or no encoder, a target of another form than the images, or no such class.
            DataError: no known row is of the wanted class.
            AttackError: the objective is not finite, or does not improve.
        """
        start = self.start(known, target, wanted, rows, seed)
        carrier = start.carrier
        carrier.leaf = carrier.leaf.lerp(target.float() / 255, self.watermark)
        carrier.project()  # the ball is round the image as it was
        objective = Collision(start.goal, carrier, self.beta)
        stay = 2 * self.beta / carrier.leaf.numel()
        end = ascend(
            self.name,
            carrier,
            objective,
            start.y,
            steps=self.steps,
            rate=self.rate,
            progress=progress,
            optimiser=lambda leaf, rate: ForwardBackward(leaf, rate, stay),
        )
        told = "squared feature distance to the target, per feature, and beta times the pixels' to the base"
        return self.deliver(known, start, end, objective, told)

    def planned(self, rows: int) -> tuple[int, float]:
        """One pass over the poison images a step."""
        return self.steps * rows, 0.0
