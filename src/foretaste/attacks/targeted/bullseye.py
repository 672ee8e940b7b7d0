"""`bullseye`: poison whose mean feature is the target's, so that the target lies amid rows of the wanted class."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from foretaste.attacks.base import Progress, quiet
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.projected_ascent import Better, Evaluation, ascend
from foretaste.attacks.results import Poisoning
from foretaste.attacks.targeted.clean_label import CleanLabel


class MeanDistance:
    """||mean_j x_j - t||^2 / ||t||^2 for poisons x_j; t float32 [1, d], all in standard units."""

    better: ClassVar[Better] = "lower"

    def __init__(self, goal: Tensor) -> None:
        self.goal = goal
        self._scale = float(goal.square().sum().clamp(min=1e-12))

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """The value and its gradient, the same for every poison; labels do not matter."""
        gap = x.mean(0, keepdim=True) - self.goal
        value = float(gap.double().square().sum()) / self._scale
        return Evaluation(value, (2 / (self._scale * len(x)) * gap).expand_as(x) if gradient else None)


class Bullseye(CleanLabel):
    """Bullseye Polytope (Aghakhani, Meng, Wang, Kruegel, Vigna, EuroS&P 2021, arXiv 2005.00191, section IV).

    min over images in the ball of ||1/m sum_j f(u_j) - f(t)||^2 / ||f(t)||^2: the target is the centre of the poisons'
    polytope, with all coefficients fixed at 1/m, instead of anywhere inside it (Convex Polytope, Zhu et al., 2019). As
    in the paper the poison is added to the training rows, the optimiser is Adam and there is a ball; the features are
    standardised, which is how the head sees them. The paper has steps of 0.04 and at most 4,000 of them, and a ball of
    0.1 (26/255); 8/255 is that of the benchmark of Schwarzschild et al. (ICML 2021). A class with fewer rows than
    there are poisons has its rows used again.
    """

    name: ClassVar[str] = "bullseye"
    steps: int = Field(default=40, ge=1, description="of Adam")
    rate: float = Field(default=0.01, gt=0, description="Adam's step, pixels in [0, 1]")

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
        objective = MeanDistance(start.goal)
        end = ascend(self.name, start.carrier, objective, start.y, steps=self.steps, rate=self.rate, progress=progress)
        told = "squared distance of the poisons' mean feature from the target's, relative to the target's own square"
        return self.deliver(known, start, end, objective, told)

    def planned(self, rows: int) -> tuple[int, float]:
        """One pass over the poison images a step."""
        return self.steps * rows, 0.0
