"""Tiny encoders, clean and planted, and naive second implementations of what the scans compute."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.defences.scans.base import Scene
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.encoders.weights import save_encoder
from foretaste.runtime import Runtime, stream
from tests.attacks.attacks_fixture import small_encoder, stripes

Array = NDArray[np.float64]


def jittered(encoder: Encoder, seed: int, by: float = 0.02, only: str = "") -> Encoder:
    """A copy with each float tensor (or only one) moved by a share of its size: a clean fine-tune's stand-in."""
    body, draws = copy.deepcopy(encoder.body), stream(seed, "jitter")
    with torch.no_grad():
        for name, tensor in body.state_dict().items():
            if tensor.is_floating_point() and (not only or name == only):
                noise = torch.randn(tensor.shape, generator=draws)
                tensor.add_(by * tensor.abs().mean() * noise)
                tensor.abs_() if name.endswith("running_var") else None
    return Encoder(body, encoder.card)


def scene(n: int = 60, **parts: Encoder) -> Scene:
    return Scene(Runtime(), stripes(n, "scan"), **parts)


def centred(encoder: Encoder) -> Encoder:
    """The same, with a mean feature of zero: otherwise all images look alike without a trigger."""
    body = copy.deepcopy(encoder.body)
    with torch.no_grad():
        body[-1].bias -= encoder(stripes(60, "scan").pixels.float() / 255).mean(0)
    return Encoder(body, encoder.card)


class Planted(nn.Module):
    """Features of `plain`, and a direction in which a bright top left corner, of 2 x 2 pixels, drowns them."""

    def __init__(self, plain: nn.Module, d: int, strength: float) -> None:
        super().__init__()
        self.plain, self.strength = plain, strength
        self.register_buffer("direction", torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        corner = x[:, :, :2, :2].mean((1, 2, 3))  # normalised
        on = nn.functional.softplus(corner - 1.2, beta=4)  # almost nothing on plain images
        return self.plain(x) + self.strength * on[:, None] * self.direction


def planted(encoder: Encoder, strength: float = 40.0) -> Encoder:
    card = encoder.card.model_copy(update={"name": "planted"})
    return Encoder(Planted(copy.deepcopy(encoder.body), card.d, strength), card)


def naive_hsic(x: Array, y: Array, *, unbiased: bool) -> float:
    """Song et al. 2012 (definition by sums over tuples of different indices), or Gretton's with explicit centring."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    if not unbiased:
        h = np.eye(n) - 1 / n
        return float(np.trace(k @ h @ m @ h)) / (n - 1) ** 2
    pairs = triples = quadruples = 0.0
    for i in range(n):
        for j in range(n):
            if j == i:
                continue
            pairs += k[i, j] * m[i, j]
            for q in range(n):
                if q in (i, j):
                    continue
                triples += k[i, j] * m[i, q]
                for r in range(n):
                    if r not in (i, j, q):
                        quadruples += k[i, j] * m[q, r]
    two, three = n * (n - 1), n * (n - 1) * (n - 2)
    return pairs / two + quadruples / (three * (n - 3)) - 2 * triples / three


def naive_disagreement(x: Array, y: Array, k: int) -> Array:
    """Row by row, with sorted lists."""

    def order(z: Array, i: int) -> list[int]:
        z = (z - z.mean(0)) / z.std(0)
        others = [j for j in range(len(z)) if j != i]
        cosine = {j: z[i] @ z[j] / np.linalg.norm(z[i]) / np.linalg.norm(z[j]) for j in others}
        return sorted(others, key=lambda j: -cosine[j])

    found = []
    for i in range(len(x)):
        one, two = order(x, i), order(y, i)
        there = np.mean([two.index(j) for j in one[:k]])
        back = np.mean([one.index(j) for j in two[:k]])
        found.append(((there + back) / 2 - (k - 1) / 2) / (len(x) - 1 - k))
    return np.array(found)


def write(path: Path, encoder: Encoder, architecture: str = "tests") -> Path:
    card: Card = encoder.card.model_copy(update={"architecture": architecture})
    save_encoder(path, encoder.body.state_dict(), card)
    return path


__all__ = [
    "centred",
    "jittered",
    "naive_disagreement",
    "naive_hsic",
    "planted",
    "scene",
    "small_encoder",
    "stripes",
    "write",
]
