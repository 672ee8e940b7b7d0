"""Inversion by feature matching: move the pixels of base images until their features are the wanted ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from foretaste.attacks.base import Progress, part, quiet
from foretaste.attacks.optimise.carriers import PixelCarrier, block_of
from foretaste.attacks.optimise.inversion import Inversion, standard_features
from foretaste.attacks.optimise.projected_ascent import Adam
from foretaste.encoders.base import Encoder
from foretaste.errors import AttackError
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime

DISTANCES = 2**24
"""Distances between goals and training rows that are held at once."""


@dataclass(frozen=True, kw_only=True)
class FeatureMatching:
    """Minimise ||x(f(u)) - x(z)||^2 / d + beta * mean (u - u_base)^2 over images u; x is the standardisation.

    Lu, Yang, Kamath, Yu (SaTML 2024, arXiv 2402.12626), feature-targeted attack, stage three: the form with a weight
    on staying near a base image. All poisons and all their bases are moved at once by Adam. In the first half of the
    steps each poison tries all of its bases; the second half is spent on the best of them and on the poison's own, so
    that more bases never do harm. What is delivered is judged as the uint8 image that it is.

    Attributes:
        bases: images tried for each poison, its own and those nearest to the goal, at least 1.
        beta: weight of the distance to the base image, pixels in [0, 1].
        epsilon: L-inf ball round the base image, in 1/255 and rounded down to whole grey levels; None: all of [0, 1].
        steps: of Adam, at least 1.
        rate: its largest step, pixels in [0, 1]; it falls to 0 along a cosine in each half.
        restarts: how often that cosine starts anew in the second half, from the best image so far.
    """

    bases: int = 4
    beta: float = 0.0
    epsilon: float | None = None
    steps: int = 100
    rate: float = 0.05
    restarts: int = 0

    @property
    def planned(self) -> int:
        """Passes through the encoder for one poison whose own base is the best; with another it is up to twice."""
        first = self.steps // 2
        return (first + 1) * self.bases + (self.steps - first + 1) + 1

    def invert(
        self,
        encoder: Encoder,
        z: Tensor,
        images: Tensor,
        candidates: Tensor,
        scaler: Scaler,
        runtime: Runtime,
        progress: Progress = quiet,
    ) -> Inversion:
        """Images whose features are close to z.

        Args:
            encoder: frozen.
            z: float32 [m, d], features to reach, in the encoder's units.
            images: uint8 [n, 3, H, W], the attacker's training images.
            candidates: int64 [m, k], rows of `images` to start from, the poison's own first (see `nearest_bases`).
            scaler: of the clean features.
            runtime: device and precision of the encoder's passes.
            progress: called with (steps done, steps in all).

        Raises:
            AttackError: a feature or gradient is not finite.
        """
        goal, block, half = scaler.apply(z), block_of(encoder, images), self.steps // 2
        made: list[tuple[Tensor, ...]] = []
        passes = 0

        def carry(base: Tensor) -> PixelCarrier:
            return PixelCarrier(base, encoder, scaler, self.epsilon, runtime)

        # Leaves are float32 and k to a poison: only those of one block of poisons exist at a time.
        for first in range(0, len(goal), block):
            rows = candidates[first : first + block]  # [b, k]
            m, k = rows.shape
            share = part(progress, first / len(goal), (first + m) / len(goal))
            wanted, base = goal[first : first + m].repeat_interleave(k, 0), images[rows.flatten()]  # [b k, ...]
            leaf, value, first_half = self._move(carry, block, base, base / 255, wanted, half, 1, part(share, 0, 0.5))
            own = torch.arange(m) * k
            left = torch.cat([own, own + value.view(m, k).argmin(1)]).unique()  # sorted, from m to 2 m of them
            wanted, base = wanted[left], base[left]
            leaf, _, second_half = self._move(
                carry, block, base, leaf[left], wanted, self.steps - half, self.restarts + 1, part(share, 0.5, 1)
            )
            pixels = (leaf * 255).round().to(torch.uint8)
            gap = standard_features(encoder, pixels, scaler, runtime) - wanted
            judged = torch.full((m * k,), torch.inf)
            judged[left] = self._objective(gap, pixels / 255 - base / 255)
            best = own + judged.view(m, k).argmin(1)
            kept = torch.searchsorted(left, best)
            made.append((pixels[kept], rows.flatten()[best], gap[kept].norm(dim=1)))
            passes += first_half + second_half + len(left)
        pixels, chosen, distance = (torch.cat(parts) for parts in zip(*made, strict=True))
        return Inversion(pixels, chosen, distance, passes)

    def _objective(self, gap: Tensor, moved: Tensor) -> Tensor:
        """Of each image, [p]: from the gap of its features [p, d] to the goal, and of its pixels to the base's."""
        near = gap.square().mean(1)
        return near + self.beta * moved.square().flatten(1).mean(1) if self.beta else near

    @torch.no_grad()
    def _move(
        self,
        carry: Callable[[Tensor], PixelCarrier],
        block: int,
        base: Tensor,
        start: Tensor,
        goal: Tensor,
        steps: int,
        periods: int,
        progress: Progress,
    ) -> tuple[Tensor, Tensor, int]:
        """The best pixels in [0, 1] of each image on the way from `start`, their objective [p], and the passes."""
        found, passes = [], 0
        for first in range(0, len(base), block):  # each block goes all the way: its graph alone is held
            some = slice(first, min(first + block, len(base)))
            share = part(progress, some.start / len(base), some.stop / len(base))
            carrier = carry(base[some])
            found.append(self._descend(carrier, start[some], goal[some], steps, periods, share))
            passes += carrier.passes
        leaves, values = zip(*found, strict=True)
        return torch.cat(leaves), torch.cat(values), passes

    def _descend(
        self, carrier: PixelCarrier, start: Tensor, goal: Tensor, steps: int, periods: int, progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """Adam on the pixels of one block."""
        origin, leaf = carrier.leaf, start.clone()
        carrier.leaf = leaf
        best, least = leaf.clone(), torch.full((len(leaf),), torch.inf)
        period = math.ceil(steps / periods)
        for step in range(steps + 1):
            gap, moved = carrier.features() - goal, leaf - origin
            value = self._objective(gap, moved)
            better = value < least
            best[better], least[better] = leaf[better], value[better]
            progress(step, steps)
            if step == steps:
                break
            carrier.pull(gap * (2 / gap.shape[1]))
            if self.beta:
                assert leaf.grad is not None
                leaf.grad.add_(moved, alpha=2 * self.beta / moved[0].numel())
            if step % period == 0:
                adam = Adam(leaf, 0.0)
            adam.rate = -self.rate / 2 * (1 + math.cos(math.pi * (step % period) / period))
            adam.step()
            carrier.project()
        if not bool(least.isfinite().all()):
            raise AttackError("matching: finite features", got="NaN or infinity", do="lower --inversion-rate")
        return best, least


def nearest_bases(goal: Tensor, x: Tensor, own: Tensor, k: int) -> Tensor:
    """The own row of each poison, then the k - 1 other training rows nearest to its goal; int64 [m, min(k, n)].

    Args:
        goal: float32 [m, d], features to reach, in standard units.
        x: float32 [n, d], training rows.
        own: int64 [m], row that each poison started from.
        k: at least 1.
    """
    k = min(k, len(x))
    if k == 1:
        return own[:, None].clone()
    found = []
    chunk = max(1, DISTANCES // len(x))
    for wanted, row in zip(goal.split(chunk), own.split(chunk), strict=True):
        distances = torch.cdist(wanted, x).scatter_(1, row[:, None], torch.inf)
        found.append(torch.cat([row[:, None], distances.topk(k - 1, largest=False).indices], 1))
    return torch.cat(found)
