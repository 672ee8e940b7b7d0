"""Random views of a whole batch at once: crop, flip, colour jitter, grey (SimCLR, Chen et al. 2020, appendix A)."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]


class Views(BaseModel):
    """How much a view may differ from its image; the defaults are SimCLR's for CIFAR-10, with crops from 0.2.

    Views are part of the threat model: what they move, poison cannot rely on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    scale: tuple[float, float] = Field(default=(0.2, 1.0), description="range of the crop's share of the image's area")
    ratio: float = Field(default=4 / 3, ge=1, description="largest ratio of the crop's sides, either way")
    rotation: float = Field(default=0.0, ge=0, le=180, description="largest turn, in degrees, either way")
    flip: Probability = Field(default=0.5, description="share of views that are mirrored left to right")
    jitter: Probability = Field(default=0.8, description="share of views whose colours are changed")
    brightness: Strength = Field(default=0.4, description="factor in [1 - s, 1 + s]")
    contrast: Strength = Field(default=0.4, description="factor in [1 - s, 1 + s]")
    saturation: Strength = Field(default=0.4, description="factor in [1 - s, 1 + s]")
    hue: float = Field(default=0.1, ge=0, le=0.5, description="largest turn of the hue, in full turns, either way")
    grey: Probability = Field(default=0.2, description="share of views without colour")

    def model_post_init(self, context: Any, /) -> None:
        """Check the range that two fields span together."""
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be 0 < low <= high <= 1, got {self.scale}")


RECIPES = {
    "photos": Views(),
    "digits": Views(scale=(0.5, 1.0), rotation=15.0, flip=0.0, saturation=0.0, hue=0.0, grey=0.0),
}
"""Views by name: what `views=digits` on the command line stands for."""


def make_views(pixels: Tensor, views: Views, rng: torch.Generator, size: int | None = None) -> Tensor:
    """One random view of every image.

    Args:
        pixels: uint8 [N, 3, H, W], on any device.
        views: how far a view may go.
        rng: a generator on the CPU; the same state gives the same views, whatever the device.
        size: side of the views; None keeps [H, W].

    Returns:
        Float [N, 3, size, size] in [0, 1].
    """
    draws = torch.rand(len(pixels), 12, generator=rng).to(pixels.device)  # one column per decision
    height, width = (size, size) if size else pixels.shape[-2:]
    windows = _windows(draws[:, :6], views, pixels.shape[-2] / pixels.shape[-1])
    grid = functional.affine_grid(windows, [len(pixels), 3, height, width], align_corners=False)
    images = functional.grid_sample(pixels.float() / 255, grid, padding_mode="border", align_corners=False)
    if views.jitter > 0:
        changed = (draws[:, 6] < views.jitter).view(-1, 1, 1, 1)
        images = torch.where(changed, jitter(images, *_factors(draws[:, 7:11], views)), images)
    if views.grey > 0:
        images = torch.where((draws[:, 11] < views.grey).view(-1, 1, 1, 1), grey(images), images)
    return images


def jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Change colours as torchvision's `adjust_*` functions do, each image by its own factors, always in this order.

    Args:
        images: float [N, 3, H, W] in [0, 1].
        brightness: factor [N, 1, 1, 1]; 1 changes nothing.
        contrast: the same.
        saturation: the same.
        hue: turn [N, 1, 1, 1] in full turns; 0 changes nothing.
    """
    images = (images * brightness).clamp(0, 1)
    images = torch.lerp(grey(images).mean((1, 2, 3), keepdim=True), images, contrast).clamp(0, 1)
    images = torch.lerp(grey(images), images, saturation).clamp(0, 1)
    return turn_hue(images, hue) if bool((hue != 0).any()) else images


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R BT.601) of float [N, 3, H, W], in three equal channels."""
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True).expand_as(images)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of float [N, 3, H, W] in [0, 1] by `turn` [N, 1, 1, 1] full turns; value and saturation stay."""
    red, green, blue = images.unbind(1)  # each [N, H, W]
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(  # in sixths of a turn
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    offsets = images.new_tensor([5, 3, 1]).view(1, 3, 1, 1)
    k = (offsets + hue.unsqueeze(1) + 6 * turn) % 6  # [N, 3, H, W]
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation per channel of uint8 [N, 3, H, W], as shares of 255, to four decimals."""
    total = torch.zeros(2, 3, dtype=torch.float64)
    for start in range(0, len(pixels), 4096):
        values = pixels[start : start + 4096].cpu().double() / 255
        total += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
    mean, square = total / (pixels.numel() // 3)
    # Constant images have no spread; dividing by one grey level keeps them finite.
    std = (square - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    rounded = [tuple(round(float(value), 4) for value in row) for row in (mean, std)]
    return rounded[0], rounded[1]  # type: ignore[return-value]


def _windows(draws: Tensor, views: Views, aspect: float) -> Tensor:
    """Affine maps [N, 2, 3] from the view's coordinates to the image's, both in [-1, 1]; draws [N, 6] in [0, 1).

    The area is uniform and the ratio of the sides log-uniform, as in torchvision's RandomResizedCrop, but among the
    ratios that fit into the image: nothing has to be drawn twice, and the whole area is the whole image.
    """
    area = views.scale[0] + (views.scale[1] - views.scale[0]) * draws[:, 0]
    widest = torch.minimum(-area.log(), area.new_tensor(math.log(views.ratio)))
    stretch = ((2 * draws[:, 1] - 1) * widest / 2).exp()
    width, height = area.sqrt() * stretch, area.sqrt() / stretch  # shares of the image's sides
    angle = (2 * draws[:, 5] - 1) * math.radians(views.rotation)
    mirror = torch.where(draws[:, 4] < views.flip, -1.0, 1.0)
    return torch.stack(
        [
            torch.stack(
                [mirror * width * angle.cos(), -aspect * height * angle.sin(), (2 * draws[:, 2] - 1) * (1 - width)], 1
            ),
            torch.stack(
                [mirror * width * angle.sin() / aspect, height * angle.cos(), (2 * draws[:, 3] - 1) * (1 - height)], 1
            ),
        ],
        1,
    )


def _factors(draws: Tensor, views: Views) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Jitter factors, each [N, 1, 1, 1], from draws [N, 4] in [0, 1)."""
    spread = draws.new_tensor([views.brightness, views.contrast, views.saturation, views.hue])
    around = draws.new_tensor([1.0, 1.0, 1.0, 0.0])
    brightness, contrast, saturation, hue = (around + spread * (2 * draws - 1)).view(-1, 4, 1, 1, 1).unbind(1)
    return brightness, contrast, saturation, hue
