"""A small world of planted classes, made in memory: features, images of 8 x 8 pixels, and a tiny encoder."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from foretaste.audits.setting import Setting
from foretaste.audits.victim import Victim
from foretaste.data.split import Split
from foretaste.defences.base import TrainingRows
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.features.embed import embed
from foretaste.features.file import FeatureSet
from foretaste.images import Images
from foretaste.probes.exact import ExactProbe
from foretaste.runtime import Runtime, stream

CLASSES, D, SIDE = 3, 6, 8
ROWS = {"train": 90, "validation": 90, "clean": 64, "test": 60}
RIDGE = 1e-3


def features(n: int, name: str, distance: float = 1.5) -> FeatureSet:
    """Overlapping classes with unequal units and a mean away from zero; labels in cycles.

    Args:
        n: rows.
        name: of the stream that they are drawn from.
        distance: of the centres.
    """
    centres = distance * torch.randn(CLASSES, D, generator=stream(0, "testing/centres"))
    y = torch.arange(n) % CLASSES
    z = centres[y] + torch.randn(n, D, generator=stream(0, f"testing/{name}"))
    return FeatureSet(z * torch.logspace(-0.5, 0.5, D) + 3, y, tuple(map(str, range(CLASSES))), name)


def training_rows(n: int = 240) -> TrainingRows:
    """What a filter is given, with the defender's own clean rows."""
    own, clean = features(n, "train"), features(60, "clean")
    return TrainingRows(own.z, own.y, CLASSES, 1e-2, clean.z, clean.y)


def images(n: int, name: str) -> Images:
    """Noise with one brighter channel and one brighter band for each class."""
    y = torch.arange(n) % CLASSES
    pixels = 90 + 28 * torch.randn(n, 3, SIDE, SIDE, generator=stream(0, f"testing/{name}"))
    pixels[torch.arange(n), y] += 50
    for label in range(CLASSES):
        pixels[y == label, :, 2 * label : 2 * label + 3] += 30
    return Images(pixels.clamp(0, 255).to(torch.uint8), y, tuple(map(str, range(CLASSES))), name)


class Tiny(nn.Module):
    """Four convolutions with BatchNorm, ending in 8 features; random weights from a named stream."""

    def __init__(self, name: str = "encoder") -> None:
        super().__init__()
        draws, layers, channels = stream(0, f"testing/{name}"), list[nn.Module](), 3
        for depth, out in enumerate((8, 8, 8, 8)):
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] * (depth == 1)
            channels = out
        self.net = nn.Sequential(*layers)
        with torch.no_grad():
            for key, tensor in self.state_dict().items():
                if tensor.ndim == 4:
                    tensor.copy_(torch.randn(tensor.shape, generator=draws) * (2 / tensor[0].numel()) ** 0.5)
                elif tensor.ndim:
                    spread = 0.2 * torch.randn(tensor.shape, generator=draws)
                    tensor.copy_(spread.abs() + 0.8 if key.endswith(("running_var", "weight")) else spread / 4)

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, 3, H, W] to features [N, 8]."""
        found: Tensor = self.net(x).mean((2, 3))
        return found


def encoder(name: str = "encoder") -> Encoder:
    """A tiny encoder of 8 features; another name draws other weights."""
    card = Card(name=name, architecture="foretaste.testing.toy:Tiny", d=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Encoder(Tiny(name), card)


@cache
def victim_on_features() -> Victim:
    """The exact head on 90 rows of 6 features, 3 classes."""
    parts = {name: features(n, name) for name, n in ROWS.items()}
    return Victim.clean(Setting(parts, {"exact": ExactProbe(ridge=RIDGE)}, RIDGE, Runtime())).ready()


@cache
def victim_on_images() -> Victim:
    """The same on images, behind the tiny encoder."""
    own, seen, runtime = encoder(), Split(**{name: images(n, name) for name, n in ROWS.items()}), Runtime()
    parts = {}
    for name in ROWS:
        part: Images = getattr(seen, name)
        parts[name] = FeatureSet(embed(own, part.pixels, runtime), part.labels, part.classes, part.name)
    probes = {"exact": ExactProbe(ridge=RIDGE)}
    return Victim.clean(Setting(parts, probes, RIDGE, runtime, images=seen, encoder=own)).ready()
