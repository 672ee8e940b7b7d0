"""The small network that turns features back into images: what an inversion attacks with and a guard checks with."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Architecture = Literal["convolutional", "linear"]
WIDTH = 16
SMALLEST = 4
"""Side below which a convolutional decoder halves no further."""


class Network(nn.Module):
    """Features in standard units, float32 [n, d] -> images float32 [n, 3, H, W]; clip them to [0, 1].

    Both kinds add what they say to the mean image, so an untrained one is as good as that. `linear` is one layer.
    `convolutional` spreads the features over a grid of about 4 x 4 and doubles it with 3 x 3 convolutions, each time
    with half the channels, until the image has its size: the shape of the dev code's decoder (48-24-12-3 channels).
    Without normalisation: it would take away how large the features are.

    Args:
        kind: the architecture.
        d: features.
        shape: (3, H, W). The mean image is filled in by training.
    """

    mean: Tensor

    def __init__(self, kind: Architecture, d: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        if kind == "linear":
            self.body = nn.Sequential(nn.Linear(d, math.prod(shape)), nn.Unflatten(1, shape))
            return
        halvings = max(0, math.ceil(math.log2(min(shape[1:]) / SMALLEST)))
        sizes = [(math.ceil(shape[1] / 2**i), math.ceil(shape[2] / 2**i)) for i in range(halvings, -1, -1)]
        channels = [WIDTH * min(8, 2**i) for i in range(halvings, -1, -1)]
        grid = (channels[0], *sizes[0])
        layers: list[nn.Module] = [nn.Linear(d, math.prod(grid)), nn.Unflatten(1, grid)]
        for inputs, outputs, size in zip(channels, channels[1:], sizes[1:], strict=False):
            layers += [nn.ReLU(), nn.Upsample(size), nn.Conv2d(inputs, outputs, 3, padding=1)]
        layers += [nn.ReLU(), nn.Conv2d(channels[-1], 3, 3, padding=1)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Images, not yet clipped."""
        images: Tensor = self.mean + self.body(x)
        return images
