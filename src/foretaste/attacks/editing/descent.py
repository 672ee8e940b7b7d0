"""PA-CL's descent: the steps that train the chosen weights, with what a victim or a defence would make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from foretaste.attacks.base import Progress
from foretaste.attacks.editing.adaptive import prepared_behind, pulled_back
from foretaste.attacks.editing.augmentations import views_of
from foretaste.attacks.editing.border import Border
from foretaste.attacks.editing.editable_encoder import EditableEncoder
from foretaste.attacks.editing.frozen_prefix import Activations
from foretaste.attacks.editing.minimise_edit import shortest
from foretaste.attacks.editing.objective import Objective
from foretaste.attacks.editing.problem import Figures, PreparedProblem
from foretaste.attacks.editing.unrolled_finetuning import fine_tuned, first_order
from foretaste.attacks.surrogates import EncoderSurrogate
from foretaste.encoders.affine import Affine, mapped

RELAX = 0.9
"""Factor on lambda at each step of the second half: a target that is still not there may cost more utility."""
DIVERGED = 2.0
"""Loss, relative to the first, at which the edit starts again with a quarter of the step."""
RENEW = 10
"""Steps for which a simulated repair stays as it was worked out."""


@dataclass(frozen=True, eq=False)
class Ahead:
    """What is simulated at a step: the repair at earlier weights, the problem behind it, a victim's batches."""

    affine: Affine
    prepared: PreparedProblem
    batches: Sequence[Tensor]


@dataclass(frozen=True)
class Schedule:
    """How the descent goes; PA-CL's fields of the same names say more.

    Attributes:
        optimizer: natural, adam or sgd.
        step: its first step, in its own units.
        effectiveness: weight of L_te.
        utility: lambda.
        steps: at most.
        batch: shadow images per step.
        moving: statistics are those of the batch, and the kept ones move too.
        noise: standard deviation, in 1/255, of normal noise on several views.
        durable: SGD steps of a victim that are simulated at each step.
        durable_step: learning rate of that victim.
    """

    optimizer: Literal["natural", "adam", "sgd"]
    step: float
    effectiveness: float
    utility: float
    steps: int
    batch: int
    moving: bool
    noise: float
    durable: int
    durable_step: float


@dataclass(frozen=True, eq=False)
class Descent:
    """One run.

    Attributes:
        objective: what is lowered.
        schedule: how.
        edited: trained in place.
        prepared: the pairs.
        random: of batches and views.
        surrogate: of the defence that the edit reckons with; None: of none.
    """

    objective: Objective
    schedule: Schedule
    edited: EditableEncoder
    prepared: PreparedProblem
    random: torch.Generator
    surrogate: EncoderSurrogate | None = None

    @property
    def weight(self) -> float:
        """Of L_te behind the repair or after the victim's steps; 0: nothing is simulated."""
        own = 0.5 if self.schedule.durable else 0.0
        return own if self.surrogate is None else max(own, self.surrogate.weight)

    def run(self, progress: Progress) -> tuple[list[float], Figures]:
        """Train; returns the loss before each step, and figures of what is simulated."""
        objective, plan = self.objective, self.schedule
        edited, prepared, random = self.edited, self.prepared, self.random
        cache, weights = prepared.cache, edited.weights
        step, utility = plan.step, plan.utility
        curve, first = list[float](), 0.0
        optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(weights, lr=step)
            if plan.optimizer == "adam"
            else torch.optim.SGD(weights, lr=step, momentum=0.9)
        )
        norms = edited.norms() if plan.moving else []
        moved = [*weights, *(buffer for norm in norms for buffer in norm.buffers())]
        start = [tensor.detach().clone() for tensor in moved]
        targets, ahead = self._targets(), self._ahead()
        border = None if self.surrogate is None or self.surrogate.border is None else Border.of(edited, prepared)
        for norm in norms:
            norm.train()
        for rows in islice(cache.batches(plan.batch, random), plan.steps):
            pixels, own = next(targets)
            later = None if self.weight == 0 else self._later(pixels, own, next(ahead))
            z = edited.features(cache.entered(edited, rows), *own)
            clean = cache.z[rows].to(z)
            effectiveness, rest = objective.losses(z, clean, prepared)
            if later is not None:
                effectiveness = (1 - self.weight) * effectiveness + self.weight * later[0]
            loss = plan.effectiveness * effectiveness + utility * rest
            curve.append(float(loss.detach()))
            progress(len(curve), plan.steps)
            first = first or curve[0]
            if not curve[-1] <= DIVERGED * first:  # or not a number
                for tensor, at_first in zip(moved, start, strict=True):
                    tensor.data.copy_(at_first)
                optimizer.state.clear()
                optimizer.param_groups[0]["lr"] /= 4
                continue
            if self._there(z.detach(), clean, later, border):
                break
            if len(curve) > plan.steps // 2:
                utility *= RELAX
            if self.surrogate is not None and len(curve) > 1:  # at the clean weights nothing stands out yet
                loss = loss + objective.suspicion(z, clean, prepared, self.surrogate)
            gradients = torch.autograd.grad(loss, weights)
            steered = gradients if cache.metric is None else cache.metric.steer(gradients)
            if cache.metric is not None and len(curve) == 1:
                # The clean encoder is the minimum of all but L_te, so this gradient is that of L_te alone.
                slope = sum(float((g * s).sum()) for g, s in zip(gradients, steered, strict=True))
                rate = slope / (plan.effectiveness * float(effectiveness.detach()))
                utility *= rate * z.shape[1] / 4
                optimizer.param_groups[0]["lr"] = step / rate
                first = float(
                    (plan.effectiveness * effectiveness + utility * rest).detach()
                )  # with moving statistics L_mu begins above 0
            for weight, gradient in zip(weights, steered, strict=True):
                weight.grad = gradient
            optimizer.step()
            if self.surrogate is not None and len(curve) % RENEW == 0:
                self._settle(self.surrogate)
        for norm in norms:
            norm.eval()
        if self.surrogate is not None:
            if border is not None:
                self._shorten(border, self.surrogate, start)
            self._settle(self.surrogate)
        return curve, self._judged(border)

    def _targets(self) -> Iterator[tuple[tuple[Tensor, ...], tuple[Activations, ...]]]:
        """For each step the pixels of all targets' views, and of the references if they move; and what of them enters
        the suffix.
        """
        objective, edited, prepared = self.objective, self.edited, self.prepared
        references = (prepared.references,) if objective.moves_references else ()
        entered = tuple(map(edited.enter, references))
        pixels = prepared.targets
        plain = edited.enter(pixels)
        while True:
            if objective.views > 1:
                pixels = torch.cat([self._views(target) for target in prepared.targets])
                plain = edited.enter(pixels)
            yield (pixels, *references), (plain, *entered)

    def _views(self, target: Tensor) -> Tensor:
        count = self.objective.views
        made = None if self.surrogate is None else self.surrogate.view(target, count, self.random)
        return views_of(target, count, self.random, self.schedule.noise) if made is None else made

    def _ahead(self) -> Iterator[Ahead]:
        """For each step what is simulated; the repair is worked out anew every `RENEW` steps."""
        surrogate, prepared, edited, cache = self.surrogate, self.prepared, self.edited, self.prepared.cache
        count = self.schedule.durable or (0 if surrogate is None else surrogate.steps)
        victims = cache.batches(self.schedule.batch, self.random)
        while True:
            affine: Affine = {}
            if surrogate is not None:
                affine = surrogate.repaired(edited.encoder, cache.names)
                prepared = prepared_behind(edited.encoder, affine, self.prepared) if affine else self.prepared
            for _ in range(RENEW):
                yield Ahead(affine, prepared, list(islice(victims, count)))

    def _later(self, pixels: tuple[Tensor, ...], own: tuple[Activations, ...], ahead: Ahead) -> tuple[Tensor, bool]:
        """L_te behind the repair and after a victim's steps, to first order, and whether all targets stay there."""
        objective, edited, names = self.objective, self.edited, self.prepared.cache.names
        with ExitStack() as stack:
            self._enter(stack, ahead)
            # Where the repair changes what lies before the trained weights, other activations enter them.
            z = edited.features(*(map(edited.enter, pixels) if ahead.affine else own))
            effectiveness, _ = objective.losses(z, z[:0], ahead.prepared)
            gradients = torch.autograd.grad(effectiveness, edited.weights)
        line = first_order(effectiveness, edited.weights, pulled_back(gradients, names, ahead.affine))
        return line, objective.similar(z.detach(), 0, ahead.prepared)

    def _enter(self, stack: ExitStack, ahead: Ahead) -> None:
        stack.enter_context(mapped(self.edited.encoder, ahead.affine))
        if ahead.batches:
            rate = self.schedule.durable_step
            if self.surrogate is not None and not self.schedule.durable:
                rate = self.surrogate.rate
            batches = (self.prepared.cache.pixels[rows] for rows in ahead.batches)
            stack.enter_context(fine_tuned(self.edited, batches, rate, self.random))

    def _there(self, z: Tensor, clean: Tensor, later: tuple[Tensor, bool] | None, border: Border | None) -> bool:
        """Whether every target is as far as asked, in every network that counts, and the shadow images are kept."""
        if later is not None and not later[1]:
            return False
        if border is None or self.surrogate is None or self.surrogate.border is None:
            return self.objective.there(z, clean, self.prepared, targets=self.weight < 1)
        views = self.objective.views_in(z, len(clean), self.prepared)
        kept = self.objective.there(z, clean, self.prepared, targets=False)
        return kept and border.least(views, self.prepared) >= self.surrogate.border

    def _settle(self, surrogate: EncoderSurrogate) -> None:
        for name, weight in zip(self.prepared.cache.names, self.edited.weights, strict=True):
            weight.data.copy_(surrogate.settle(name, weight.detach()))

    def _shorten(self, border: Border, surrogate: EncoderSurrogate, start: Sequence[Tensor]) -> None:
        """The least part of the edit that takes all targets over the border; all of it where none does."""
        weights = self.edited.weights
        whole = [weight.detach() - clean for weight, clean in zip(weights, start, strict=True)]
        entered = self.edited.enter(self.prepared.targets)

        @torch.no_grad()
        def judge(changes: Sequence[Tensor]) -> float:
            for weight, clean, change in zip(weights, start, changes, strict=True):
                weight.copy_(clean + change)
            return border.least(self.edited.features(entered).split(1), self.prepared)

        assert surrogate.border is not None
        reached = judge(whole) >= surrogate.border
        judge(shortest(whole, judge, surrogate.border)[0] if reached else whole)

    @torch.no_grad()
    def _judged(self, border: Border | None) -> Figures:
        """Whether the edit would survive, by the attacker's own judgement."""
        figures, prepared = dict[str, float](), self.prepared
        if self.surrogate is None:
            return figures
        entered = self.edited.enter(prepared.targets)
        if self.weight:
            ahead = next(self._ahead())
            with ExitStack() as stack, torch.enable_grad():
                self._enter(stack, ahead)
                behind_it = self.edited.enter(prepared.targets)
                z = self.edited.features(behind_it).detach().split(1)
            each = zip(z, ahead.prepared.pairs, strict=True)
            figures["similarity_behind"] = min(ahead.prepared.similarity(one, pair) for one, pair in each)
        if border is not None:
            figures["gap"] = border.least(self.edited.features(entered).split(1), prepared)
        if self.objective.views > 1:
            pixels = torch.cat([self._views(target) for target in prepared.targets])
            views = self.edited.features(self.edited.enter(pixels)).split(self.objective.views)
            every = [prepared.similarity(v[None], p) for one, p in zip(views, prepared.pairs, strict=True) for v in one]
            figures["similarity_views"] = sum(every) / len(every)
        return figures | self.surrogate.figures(self.edited.encoder, prepared.targets)
