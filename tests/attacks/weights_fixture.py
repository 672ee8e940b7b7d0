"""A network whose class signal survives pooling, and images for it: what attacks on the weights are tested on."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.images import Images
from foretaste.runtime import stream
from tests.attacks import attacks_fixture as toy

WANTED = 2


class Tiny(nn.Module):
    """Eight kernels, each followed by BatchNorm if asked; random weights from a named stream."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        draws, layers, channels = stream(0, "tiny"), list[nn.Module](), 3
        for depth in range(8):
            layers.append(nn.Conv2d(channels, 16, 3, padding=1))
            layers += [nn.BatchNorm2d(16)] if norm else []
            layers += [nn.ReLU()] + [nn.MaxPool2d(2)] * (depth == 3)
            channels = 16
        self.net = nn.Sequential(*layers)
        with torch.no_grad():
            for name, tensor in itertools.chain(self.named_parameters(), self.named_buffers()):
                if tensor.ndim == 4:
                    tensor.copy_(torch.randn(tensor.shape, generator=draws) * (2 / tensor[0].numel()) ** 0.5)
                elif tensor.ndim:
                    spread = 0.2 * torch.randn(tensor.shape, generator=draws)
                    tensor.copy_(spread.abs() + 0.8 if name.endswith(("running_var", "weight")) else spread / 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).mean((2, 3))


def encoder_of(norm: bool = True) -> Encoder:
    card = Card(name="tiny", architecture="tests", d=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Encoder(Tiny(norm), card)


def tinted(n: int, name: str) -> Images:
    """Noise, with one brighter channel per class: survives the average over positions."""
    y = torch.arange(n) % 3
    pixels = 100 + 30 * torch.randn(n, 3, toy.SIDE, toy.SIDE, generator=stream(0, name))
    pixels[torch.arange(n), y] += 70
    return Images(pixels.clamp(0, 255).to(torch.uint8), y, ("0", "1", "2"), name)


def loaded(state: dict[str, Tensor], norm: bool = True) -> Encoder:
    body = Tiny(norm)
    body.load_state_dict(state, strict=True)
    return Encoder(body, encoder_of(norm).card)


SHADOW = tinted(400, "shadow")
OWN = SHADOW.take((SHADOW.labels == WANTED).nonzero()[:, 0])
TARGET = tinted(30, "target").pixels[0]  # of class 0
