"""PA-CL's descent: the steps that train the chosen weights, with what a victim or a defence would make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretaste.attacks.base import Progress
from foretaste.attacks.surrogates import EncoderSurrogate
from foretaste.attacks.weights.adaptive import pulled_back, scene_behind
from foretaste.attacks.weights.border import Border
from foretaste.attacks.weights.durable import fine_tuned, first_order
from foretaste.attacks.weights.edited import Edited
from foretaste.attacks.weights.scene import Figures, Scene
from foretaste.attacks.weights.smaller import shortest
from foretaste.attacks.weights.split import Activations
from foretaste.attacks.weights.views import views_of
from foretaste.encoders.affine import Affine, mapped

if TYPE_CHECKING:
    from foretaste.attacks.weights.pacl import PACL

RELAX = 0.9
"""Factor on lambda at each step of the second half: a target that is still not there may cost more utility."""
DIVERGED = 2.0
"""Loss, relative to the first, at which the edit starts again with a quarter of the step."""
RENEW = 10
"""Steps for which a simulated repair stays as it was worked out."""


@dataclass(frozen=True, eq=False)
class Ahead:
    """What is simulated at a step: the repair at the weights as they were, the scene behind it, a victim's batches."""

    affine: Affine
    scene: Scene
    batches: Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class Descent:
    """One run.

    Attributes:
        attack: its fields.
        edited: trained in place.
        scene: the pairs.
        random: of batches and views.
        surrogate: of the defence that the edit reckons with; None: of none.
    """

    attack: PACL
    edited: Edited
    scene: Scene
    random: torch.Generator
    surrogate: EncoderSurrogate | None = None

    @property
    def weight(self) -> float:
        """Of L_te behind the repair or after the victim's steps; 0: nothing is simulated."""
        own = 0.5 if self.attack.durable else 0.0
        return own if self.surrogate is None else max(own, self.surrogate.weight)

    def run(self, progress: Progress) -> tuple[list[float], Figures]:
        """Train; returns the loss before each step, and figures of what is simulated."""
        attack, edited, scene, random = self.attack, self.edited, self.scene, self.random
        ground, weights = scene.ground, edited.weights
        step, utility = attack.rates
        curve, first = list[float](), 0.0
        optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(weights, lr=step)
            if attack.optimizer == "adam"
            else torch.optim.SGD(weights, lr=step, momentum=0.9)
        )
        norms = edited.norms() if attack.batchnorm == "moving" else []
        moved = [*weights, *(buffer for norm in norms for buffer in norm.buffers())]
        start = [tensor.detach().clone() for tensor in moved]
        targets, ahead = self._targets(), self._ahead()
        border = None if self.surrogate is None or self.surrogate.border is None else Border.of(edited, scene)
        for norm in norms:
            norm.train()
        for rows in islice(ground.batches(attack.batch, random), attack.steps):
            pixels, own = next(targets)
            later = None if self.weight == 0 else self._later(pixels, own, next(ahead))
            z = edited.features(ground.entered(edited, rows), *own)
            clean = ground.z[rows].to(z)
            effectiveness, rest = attack.losses(z, clean, scene)
            if later is not None:
                effectiveness = (1 - self.weight) * effectiveness + self.weight * later[0]
            loss = attack.effectiveness * effectiveness + utility * rest
            curve.append(float(loss.detach()))
            progress(len(curve), attack.steps)
            first = first or curve[0]
            if not curve[-1] <= DIVERGED * first:  # or not a number
                for tensor, at_first in zip(moved, start, strict=True):
                    tensor.data.copy_(at_first)
                optimizer.state.clear()
                optimizer.param_groups[0]["lr"] /= 4
                continue
            if self._there(z.detach(), clean, later, border):
                break
            if len(curve) > attack.steps // 2:
                utility *= RELAX
            if self.surrogate is not None and len(curve) > 1:  # at the clean weights nothing stands out yet
                loss = loss + attack.suspicion(z, clean, scene, self.surrogate)
            gradients = torch.autograd.grad(loss, weights)
            steered = gradients if ground.metric is None else ground.metric.steer(gradients)
            if ground.metric is not None and len(curve) == 1:
                # The clean encoder is the minimum of all but L_te, so this gradient is that of L_te alone.
                slope = sum(float((g * s).sum()) for g, s in zip(gradients, steered, strict=True))
                rate = slope / (attack.effectiveness * float(effectiveness.detach()))
                utility *= rate * z.shape[1] / 4
                optimizer.param_groups[0]["lr"] = step / rate
                first = float(
                    (attack.effectiveness * effectiveness + utility * rest).detach()
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
        attack, edited, scene = self.attack, self.edited, self.scene
        references = (scene.references,) if attack.moves_references else ()
        entered = tuple(map(edited.enter, references))
        pixels = scene.targets
        plain = edited.enter(pixels)
        while True:
            if attack.views > 1:
                pixels = torch.cat([self._views(target) for target in scene.targets])
                plain = edited.enter(pixels)
            yield (pixels, *references), (plain, *entered)

    def _views(self, target: Tensor) -> Tensor:
        count = self.attack.views
        made = None if self.surrogate is None else self.surrogate.view(target, count, self.random)
        return views_of(target, count, self.random, self.attack.noise) if made is None else made

    def _ahead(self) -> Iterator[Ahead]:
        """For each step what is simulated; the repair is worked out anew every `RENEW` steps."""
        surrogate, scene, edited, ground = self.surrogate, self.scene, self.edited, self.scene.ground
        count = self.attack.durable or (0 if surrogate is None else surrogate.steps)
        victims = ground.batches(self.attack.batch, self.random)
        while True:
            affine: Affine = {}
            if surrogate is not None:
                affine = surrogate.repaired(edited.encoder, ground.names)
                scene = scene_behind(edited.encoder, affine, self.scene) if affine else self.scene
            for _ in range(RENEW):
                yield Ahead(affine, scene, list(islice(victims, count)))

    def _later(self, pixels: tuple[Tensor, ...], own: tuple[Activations, ...], ahead: Ahead) -> tuple[Tensor, bool]:
        """L_te behind the repair and after a victim's steps, to first order, and whether all targets stay there."""
        attack, edited, names = self.attack, self.edited, self.scene.ground.names
        with ExitStack() as stack:
            self._enter(stack, ahead)
            # Where the repair changes what lies before the trained weights, other activations enter them.
            z = edited.features(*(map(edited.enter, pixels) if ahead.affine else own))
            effectiveness, _ = attack.losses(z, z[:0], ahead.scene)
            gradients = torch.autograd.grad(effectiveness, edited.weights)
        line = first_order(effectiveness, edited.weights, pulled_back(gradients, names, ahead.affine))
        return line, attack.similar(z.detach(), 0, ahead.scene)

    def _enter(self, stack: ExitStack, ahead: Ahead) -> None:
        stack.enter_context(mapped(self.edited.encoder, ahead.affine))
        if ahead.batches:
            rate = self.attack.durable_step
            if self.surrogate is not None and not self.attack.durable:
                rate = self.surrogate.rate
            batches = (self.scene.ground.pixels[rows] for rows in ahead.batches)
            stack.enter_context(fine_tuned(self.edited, batches, rate, self.random))

    def _there(self, z: Tensor, clean: Tensor, later: tuple[Tensor, bool] | None, border: Border | None) -> bool:
        """Whether every target is as far as asked, in every network that counts, and the shadow images are kept."""
        if later is not None and not later[1]:
            return False
        if border is None or self.surrogate is None or self.surrogate.border is None:
            return self.attack.there(z, clean, self.scene, targets=self.weight < 1)
        views = self.attack.views_in(z, len(clean), self.scene)
        kept = self.attack.there(z, clean, self.scene, targets=False)
        return kept and border.least(views, self.scene) >= self.surrogate.border

    def _settle(self, surrogate: EncoderSurrogate) -> None:
        for name, weight in zip(self.scene.ground.names, self.edited.weights, strict=True):
            weight.data.copy_(surrogate.settle(name, weight.detach()))

    def _shorten(self, border: Border, surrogate: EncoderSurrogate, start: Sequence[Tensor]) -> None:
        """The least part of the edit that takes all targets over the border; all of it where none does."""
        weights = self.edited.weights
        whole = [weight.detach() - clean for weight, clean in zip(weights, start, strict=True)]
        entered = self.edited.enter(self.scene.targets)

        @torch.no_grad()
        def judge(changes: Sequence[Tensor]) -> float:
            for weight, clean, change in zip(weights, start, changes, strict=True):
                weight.copy_(clean + change)
            return border.least(self.edited.features(entered).split(1), self.scene)

        assert surrogate.border is not None
        reached = judge(whole) >= surrogate.border
        judge(shortest(whole, judge, surrogate.border)[0] if reached else whole)

    @torch.no_grad()
    def _judged(self, border: Border | None) -> Figures:
        """Whether the edit would survive, by the attacker's own judgement."""
        figures, scene = dict[str, float](), self.scene
        if self.surrogate is None:
            return figures
        entered = self.edited.enter(scene.targets)
        if self.weight:
            ahead = next(self._ahead())
            with ExitStack() as stack, torch.enable_grad():
                self._enter(stack, ahead)
                behind_it = self.edited.enter(scene.targets)
                z = self.edited.features(behind_it).detach().split(1)
            each = zip(z, ahead.scene.pairs, strict=True)
            figures["similarity_behind"] = min(ahead.scene.similarity(one, pair) for one, pair in each)
        if border is not None:
            figures["gap"] = border.least(self.edited.features(entered).split(1), scene)
        if self.attack.views > 1:
            pixels = torch.cat([self._views(target) for target in scene.targets])
            views = self.edited.features(self.edited.enter(pixels)).split(self.attack.views)
            every = [scene.similarity(v[None], p) for one, p in zip(views, scene.pairs, strict=True) for v in one]
            figures["similarity_views"] = sum(every) / len(every)
        return figures | self.surrogate.figures(self.edited.encoder, scene.targets)
