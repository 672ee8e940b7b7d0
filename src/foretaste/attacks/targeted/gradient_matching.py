"""`gradient-matching`: poison whose gradient at the clean head points where the target's wanted gradient points."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.attacks.base import Progress, part, quiet
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.projected_ascent import Adam, Ascent, Better, Evaluation, ascend
from foretaste.attacks.optimise.requirements import clean_rows, require_usable
from foretaste.attacks.optimise.stackelberg import poison_gradient
from foretaste.attacks.results import Poisoning
from foretaste.attacks.targeted.clean_label import CleanLabel, Start
from foretaste.heads.fit import minimise
from foretaste.heads.objective import HeadObjective, Rows

DROPS = (3 / 8, 5 / 8, 7 / 8)
"""Shares of the steps after which the step is divided by ten, as in the authors' code."""


class Alignment:
    """1 - cos(G, T) at a fixed head W: G = sum_j r_j [x_j; 1]' of the poisons, T the same of the target.

    r = softmax(W [x; 1]) - onehot(label), so both are gradients of the cross-entropy with respect to W [C, d + 1], in
    closed form: for the poisons under the labels that they carry, for the target under the wanted one. With
    M = (T / ||T|| - cos G / ||G||) / ||G|| the gradient is -d<M, G>/dx_j.

    Args:
        head: W, float64 [C, d + 1].
        goal: float32 [1, d], the target in standard units.
        wanted: its wanted class.
    """

    better: ClassVar[Better] = "lower"

    def __init__(self, head: Tensor, goal: Tensor, wanted: int) -> None:
        self.head = head
        pull = self._slope(goal, torch.tensor([wanted]))
        self._pull = pull / pull.norm().clamp(min=1e-300)

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """The value, in [0, 2], and its gradient."""
        slope = self._slope(x, y)
        size = slope.norm().clamp(min=1e-300)
        cosine = (slope * self._pull).sum() / size
        if not gradient:
            return Evaluation(1 - float(cosine), None)
        away = (self._pull - cosine / size * slope) / size
        return Evaluation(1 - float(cosine), -poison_gradient(self.head, away, x, y))

    def _slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum over rows of dCE/dW, float64 [C, d + 1]."""
        bare = HeadObjective((Rows(x, y),), len(self.head), ridge=0.0)
        return bare.loss_and_gradient(self.head)[1] * len(y)


class SignedAdam(Adam):
    """Adam on the sign of the gradient, its step divided by ten at `DROPS` of `steps` (Geiping et al., section 3)."""

    def __init__(self, leaf: Tensor, rate: float, steps: int) -> None:
        super().__init__(leaf, rate)
        self._drops = [int(share * steps) for share in DROPS]

    def step(self, rows: Tensor | None = None) -> None:
        """Move the leaf in place."""
        assert self.leaf.grad is not None
        self.leaf.grad.sign_()
        if self._steps:
            self.rate /= 10 ** self._drops.count(self._steps)
        super().step(rows)


class GradientMatching(CleanLabel):
    """Witches' Brew (Geiping, Fowl, Huang, Czaja, Taylor, Moeller, Goldstein, ICLR 2021, arXiv 2009.02276, section 3).

    min over images in the ball of 1 - cos(gradient of the target's loss under the wanted class, gradient of the
    poisons' training loss), by signed Adam from random noise in the ball, the best of some restarts. What differs,
    because the victim trains a linear head on frozen features: the gradient is that with respect to the head alone, at
    the clean head fitted to its optimum on the known rows, and in closed form. As in the paper the poison replaces
    training rows of the wanted class (at most as many as it has). There the ball is 16/255, and 8 restarts take 250
    steps each, of 0.1 in units of the normalised images (about 0.025 of [0, 1]); 8/255 is the ball of the benchmark of
    Schwarzschild et al. (ICML 2021).
    """

    name: ClassVar[str] = "gradient-matching"
    replaces: ClassVar[bool] = True
    steps: int = Field(default=40, ge=1, description="of signed Adam, in each restart")
    rate: float = Field(default=0.025, gt=0, description="its first step, pixels in [0, 1]")
    restarts: int = Field(default=2, ge=1, description="starts from other noise; the best is delivered")

    def poison_for(
        self, known: Knowledge, target: Tensor, wanted: int, rows: int, seed: int, progress: Progress = quiet
    ) -> Poisoning:
        """Perturb `rows` rows of the wanted class, or all that it has; see `TargetedAttack.poison_for`.

        Raises:
            SpecError: no images or no encoder, a target of another form than the images, or no such class.
            DataError: no known row is of the wanted class, the rows are not the victim's, or no head can be fitted.
            AttackError: the objective is not finite, or does not improve.
        """
        start = self.start(known, target, wanted, rows, seed)
        require_usable(known)
        clean = HeadObjective((clean_rows(known, start.scaler),), known.classes, known.ridge)
        objective = Alignment(minimise(clean).weight, start.goal, wanted)
        ends = []
        for turn in range(self.restarts):
            share = part(progress, turn / self.restarts, (turn + 1) / self.restarts)
            ends.append((self._from_noise(start, objective, share), start.carrier.leaf))
        end, start.carrier.leaf = min(ends, key=lambda found: min(found[0].curve))
        told = "1 - cosine of the poisons' gradient and of the target's under the wanted class, at the clean head"
        return self.deliver(known, start, end, objective, told)

    def planned(self, rows: int) -> tuple[int, float]:
        """One pass over the poison images a step of each restart, and the clean head."""
        return self.restarts * self.steps * rows, 1.0

    def _from_noise(self, start: Start, objective: Alignment, progress: Progress) -> Ascent:
        """One restart, from evenly drawn noise in the ball; the carrier ends at its best leaf."""
        carrier = start.carrier
        drawn = torch.rand(carrier.low.shape, generator=start.random)
        carrier.leaf = torch.lerp(carrier.low, carrier.high, drawn)
        return ascend(
            self.name,
            carrier,
            objective,
            start.y,
            steps=self.steps,
            rate=self.rate,
            progress=progress,
            optimiser=lambda leaf, rate: SignedAdam(leaf, rate, self.steps),
        )
