"""DECREE: the smallest patch that makes all images look alike to the encoder.

Feng, Tao, Cheng, Shen, Xu, Liu, Zhang, Ma, Zhang: "Detecting Backdoors in Pre-trained Encoders", CVPR 2023. With a mask
m and a pattern p in [0, 1], each [3, H, W], find for images x

    x' = (1 - m) x + m p,    min  - mean_{i != j} cos(f(x'_i), f(x'_j)) + lambda ||m||_1
    PL1 = ||m||_1 / (3 H W)

A backdoored encoder has a trigger, and so a small PL1. The score is 1 - PL1 for the smallest mask that reached the
wanted similarity, and (best similarity - wanted similarity), below 0, where none did. As in the authors' code lambda
goes up and down by a factor with success, and m and p go through tanh; steps and the rate's schedule are shortened. An
edit for one image without a trigger (PA-CL) leaves nothing to invert: expect a miss. An encoder whose features are all
alike without any trigger gets a PL1 near 0; `clean_similarity` in the evidence tells the two apart.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from foretaste.defences.scans.base import Finding, Need, Progress, Scan, Scene, quiet
from foretaste.encoders.base import Encoder
from foretaste.errors import DataError
from foretaste.features.embed import embed
from foretaste.runtime import Runtime, stream

SIDE = 32
"""Of the images that the paper's lambda is for; other sizes get it in proportion to the entries of the mask."""
RATES = ((0.0, 1.0), (0.5, 0.2), (0.8, 0.1))
"""From this share of the steps on, this multiple of the rate: 0.5, 0.1 and 0.05 in the paper."""
PATIENCE = 5
"""Steps in a row above, or below, the wanted similarity until lambda changes."""


class Decree(Scan):
    """DECREE: inverts a trigger and scores how small it is. Looks for triggers, not for edits of one image."""

    name: ClassVar[str] = "decree"
    needs: ClassVar[tuple[Need, ...]] = ("data",)
    steps: int = Field(default=200, ge=1, description="of Adam; the paper takes up to some thousands")
    batch: int = Field(default=64, ge=2, description="images per step; the paper: 128")
    images: int = Field(default=1000, ge=2, description="images to draw from, at most")
    lr: float = Field(default=0.5, gt=0, description="first learning rate")
    similarity: float = Field(default=0.99, gt=0, lt=1, description="mean cosine at which a trigger is one")
    weight: float = Field(default=1e-3, gt=0, description="first lambda, for 32x32 images")
    least: float = Field(default=1e-5, gt=0, description="lambda never falls below this, for 32x32 images")
    factor: float = Field(default=5.0, gt=1, description="that lambda goes up and down by")

    def planned(self, images: int) -> int:
        """A batch forward and backward per step, see `Scan.planned`."""
        return 3 * self.steps * min(self.batch, images)

    def scan(self, encoder: Encoder, scene: Scene, seed: int = 0, progress: Progress = quiet) -> Finding:
        """Invert a trigger, see `Scan.scan`.

        Raises:
            DataError: under two images.
        """
        images = scene.require_images(self.name)
        if len(images) < 2:
            raise DataError(f"{self.name}: two images at least", got=str(len(images)))
        pl1, similarity, mask = self._invert(encoder, images.pixels, scene.runtime, seed, progress)
        strong = (mask > mask.max() / 2).any(0).nonzero()
        evidence = {
            "pl1": pl1,
            "similarity": similarity,
            "clean_similarity": self._clean(encoder, images.pixels, scene.runtime),
            "reached": pl1 < 1,
            # top, left, bottom, right of where the mask is strong; empty where none was found
            "box": [*strong.amin(0).tolist(), *strong.amax(0).tolist()] if len(strong) else [],
        }
        return Finding(1 - pl1 if pl1 < 1 else similarity - self.similarity, None, evidence)

    def _clean(self, encoder: Encoder, pixels: Tensor, runtime: Runtime) -> float:
        """Mean cosine of the features of a batch or so, as they are."""
        return float(mean_cosine(embed(encoder, pixels[: max(2, self.batch)], runtime)))

    def _invert(
        self, encoder: Encoder, pixels: Tensor, runtime: Runtime, seed: int, progress: Progress
    ) -> tuple[float, float, Tensor]:
        """PL1 (1 where no mask sufficed), the similarity there (else the best), and the mask [3, H, W]."""
        encoder.to(runtime.device)
        random = stream(seed, "defence")
        pool = torch.randperm(len(pixels), generator=random)[: self.images]
        shape = pixels.shape[1:]
        # As in the authors' code: uniform values behind the tanh.
        start = [torch.rand(shape, generator=random) for _ in range(2)]
        raw = [torch.atanh((value - 0.5) * (2 - 1e-7)).to(runtime.device).requires_grad_() for value in start]
        optimiser = torch.optim.Adam(raw, lr=self.lr, betas=(0.5, 0.9))
        scale = SIDE * SIDE / (shape[1] * shape[2])
        weight, streak = self.weight * scale, 0
        best, best_similarity, best_mask = 1.0, -1.0, torch.zeros(shape)
        for step in range(self.steps):
            done = step / self.steps
            optimiser.param_groups[0]["lr"] = self.lr * next(f for share, f in reversed(RATES) if done >= share)
            rows = pool[torch.randperm(len(pool), generator=random)[: self.batch]]
            mask, pattern = ((torch.tanh(value) + 1) / 2 for value in raw)
            x = runtime.images(pixels[rows])
            with runtime.autocast():
                z = encoder((1 - mask) * x + mask * pattern)
            alike = mean_cosine(z)
            size = mask.sum()
            optimiser.zero_grad()
            (weight * size - alike).backward()
            optimiser.step()
            found, pl1 = float(alike.detach()), float(size.detach()) / mask.numel()
            success = found >= self.similarity
            if success and pl1 < best:
                best, best_similarity, best_mask = pl1, found, mask.detach().cpu()
            elif best == 1:
                best_similarity = max(best_similarity, found)
            streak = max(streak, 0) + 1 if success else min(streak, 0) - 1
            if abs(streak) > PATIENCE:
                weight = weight * self.factor if success else max(weight / self.factor, self.least * scale)
                streak = 0
            progress(step + 1, self.steps)
        return best, best_similarity, best_mask


def mean_cosine(z: Tensor) -> Tensor:
    """Mean cosine of all pairs of different rows of z [n, d], a scalar: from one sum, not from n^2 products."""
    units, n = normalize(z, dim=1), len(z)
    pairs: Tensor = units.sum(0).square().sum() - units.square().sum()
    return pairs / (n * (n - 1))
