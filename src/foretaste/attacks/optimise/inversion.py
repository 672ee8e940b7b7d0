"""Images for features (stage 3 of the feature-targeted attack): the result, and what the ledger tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from foretaste.attacks.optimise.carriers import block_of
from foretaste.encoders.base import Encoder
from foretaste.features.embed import embed
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime

DIGITS = 4
"""Significant digits of a number per row."""
LEAST_GAP = 1e-3
"""Standard units per feature: the relative distance to a goal nearer to its base than this is taken to this."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """Images that stand for given features z (Lu, Yang, Kamath, Yu, SaTML 2024, arXiv 2402.12626, stage three).

    Attributes:
        pixels: uint8 [m, 3, H, W].
        base: int64 [m], the row of the attacker's training images that each was made from, or is compared with.
        distance: float32 [m], ||x(f(image)) - x(z)|| of the delivered uint8 images; x is the standardisation.
        passes: images sent through the encoder, forward, or forward and backward.
        figures: numbers about the whole, such as a decoder's reconstruction error.
    """

    pixels: Tensor
    base: Tensor
    distance: Tensor
    passes: int
    figures: Mapping[str, float] = field(default_factory=dict)


def standard_features(encoder: Encoder, pixels: Tensor, scaler: Scaler, runtime: Runtime) -> Tensor:
    """x(f(images)) of uint8 [m, 3, H, W], float32 [m, d] on the CPU; one pass per image."""
    return scaler.apply(embed(encoder, pixels, runtime, block_of(encoder, pixels)))


def told(
    inversion: Inversion, goal: Tensor, x: Tensor, images: Tensor
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What the ledger says of an inversion.

    Args:
        inversion: the images.
        goal: float32 [m, d], x(z): the features they stand for, in standard units.
        x: float32 [n, d], those of the training images.
        images: uint8 [n, 3, H, W], the training images.

    Returns:
        Figures (the inversion's own, and the median of each number per row) and the numbers per row:
        `feature_distance` ||x(f(image)) - x(z)||, `relative_distance` that over ||x(f(base)) - x(z)|| (1: the image
        is no closer than its base), and the distance to the base image: `linf` in grey levels, `l2` in pixels in
        [0, 1], `ssim` in [-1, 1]. Images of fewer than 3 pixels a side have no `ssim`.
    """
    base = images[inversion.base]
    gap = (x[inversion.base] - goal).norm(dim=1)
    moved = (inversion.pixels.to(torch.int16) - base.to(torch.int16)).flatten(1)
    rows = {
        "feature_distance": inversion.distance,
        "relative_distance": inversion.distance / gap.clamp(min=LEAST_GAP * goal.shape[1] ** 0.5),
        "linf": moved.abs().amax(1),
        "l2": (moved / 255).norm(dim=1),
    }
    if min(base.shape[2:]) >= 3:
        rows["ssim"] = structural_similarity(inversion.pixels, base)
    numbers = {name: [float(f"{value:.{DIGITS}g}") for value in values.tolist()] for name, values in rows.items()}
    medians = {f"median_{name}": median(values) for name, values in numbers.items()}
    return {**inversion.figures, **medians}, numbers


def structural_similarity(one: Tensor, other: Tensor) -> Tensor:
    """SSIM of each pair of images uint8 [m, 3, H, W], float32 [m] in [-1, 1]; sides of at least 3 pixels.

    Wang, Bovik, Sheikh, Simoncelli (2004) as scikit-image computes it: uniform windows of 7 x 7 (or as large as the
    image allows), mean over the pixels with a whole window and over the channels.
    """
    from skimage.metrics import structural_similarity as ssim  # half a second: only who inverts waits

    m, _, height, width = one.shape
    side = min(7, height - 1 + height % 2, width - 1 + width % 2)  # odd
    edge = side // 2
    found = []
    for a, b in zip(one.split(256), other.split(256), strict=True):
        # All images of the block at once, as channels: each has its own windows.
        planes = (part.reshape(-1, height, width).numpy() for part in (a, b))
        _, local = ssim(*planes, win_size=side, data_range=255, channel_axis=0, full=True)
        whole = torch.from_numpy(local).view(-1, 3, height, width)[:, :, edge : height - edge, edge : width - edge]
        found.append(whole.mean((1, 2, 3)))
    return torch.cat(found).float() if m else torch.empty(0)
