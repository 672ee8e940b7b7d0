"""What the report shows of a trial: poison images beside their bases, and a projection of the features."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foretaste.attacks.results import Poisoning
from foretaste.features.file import FeatureSet
from foretaste.images import Images
from foretaste.record import Exhibit, Projection

SHOWN_IMAGES = 6
SHOWN_POINTS = 400


def gallery(clean: Images | None, poisoning: Poisoning) -> list[Exhibit]:
    """The first poison images with their bases among `clean`, the images that the attacker knows.

    Empty where no pixel was changed, or the poison is no images.
    """
    if poisoning.pixels is None or clean is None:
        return []
    if torch.equal(poisoning.pixels, clean.pixels[poisoning.base]):
        return []
    shown = []
    for poison, base, label in zip(poisoning.pixels[:SHOWN_IMAGES], poisoning.base, poisoning.y, strict=False):
        row = int(base)
        furthest = int((poison.to(torch.int16) - clean.pixels[row].to(torch.int16)).abs().max())
        shown.append(
            Exhibit(
                poison_png=png(poison),
                base_png=png(clean.pixels[row]),
                poison_label=int(label),
                base_label=int(clean.labels[row]),
                caption=f"at most {furthest} of 255 grey levels from its base",
            )
        )
    return shown


def png(pixels: Tensor) -> str:
    """uint8 [3, H, W] as PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def project(train: FeatureSet, poison: Tensor, labels: Tensor) -> Projection:
    """First two principal components of the clean standardised features, and the poison [m, d] in the same axes."""
    z = train.z.double()
    mean, scale = z.mean(0), z.std(0).clamp(min=1e-12)
    x = (z - mean) / scale
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    axes = vectors[:, values.argsort(descending=True)[:2]]
    # The sign of an eigenvector is arbitrary: fix it, so that the same spec gives the same picture.
    axes = axes * axes[axes.abs().argmax(0), torch.arange(axes.shape[1])].sign()
    rows = torch.from_numpy(np.unique(np.linspace(0, len(z) - 1, SHOWN_POINTS).astype(np.int64)))
    moved = ((poison.double() - mean) / scale)[:SHOWN_POINTS] @ axes
    return Projection(
        clean=_points(x[rows] @ axes),
        clean_labels=train.y[rows].tolist(),
        poison=_points(moved),
        poison_labels=labels[:SHOWN_POINTS].tolist(),
    )


def _points(plane: Tensor) -> list[tuple[float, float]]:
    if plane.shape[1] == 1:  # a single feature has one component
        plane = torch.cat([plane, torch.zeros_like(plane)], 1)
    return [(round(a, 4), round(b, 4)) for a, b in plane.tolist()]
