"""Small planted problems for the attacks, and a second implementation of the head to judge them by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.results import Poisoning
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.images import Images, digest_rows
from foretaste.runtime import Runtime, stream

RIDGE = 1e-3
SIDE = 6


def gaussians(n: int, name: str, d: int = 8, classes: int = 4, distance: float = 1.2) -> tuple[Tensor, Tensor]:
    """Overlapping classes with unequal units and a mean away from zero."""
    centres = distance * torch.randn(classes, d, generator=stream(0, "centres"))
    y = torch.arange(n) % classes
    z = centres[y] + torch.randn(n, d, generator=stream(0, name))
    return z * torch.logspace(-0.5, 0.5, d) + 3, y


def feature_knowledge(n: int = 400, d: int = 8, classes: int = 4) -> Knowledge:
    """What an attacker of feature files knows."""
    z, y = gaussians(n, "train", d, classes)
    vz, vy = gaussians(n, "validation", d, classes)
    return Knowledge(z, y, vz, vy, classes, RIDGE, Runtime())


def stripes(n: int, name: str, classes: int = 3) -> Images:
    """Noisy images, one brighter band per class."""
    y = torch.arange(n) % classes
    pixels = 100 + 32 * torch.randn(n, 3, SIDE, SIDE, generator=stream(0, name))
    band = SIDE // classes
    for c in range(classes):
        pixels[y == c, :, c * band : (c + 1) * band] += 60
    return Images(pixels.clamp(0, 255).to(torch.uint8), y, tuple(str(c) for c in range(classes)), name)


def small_encoder(kind: str = "convolution", d: int = 8) -> Encoder:
    """A smooth network with random weights; `convolution` and `deep` have a BatchNorm that has seen data."""
    draws = stream(0, kind)
    size = SIDE * SIDE
    if kind == "linear":
        body = nn.Sequential(nn.Flatten(), nn.Linear(3 * size, d))
    elif kind == "convolution":
        body = nn.Sequential(_first(draws), nn.Tanh(), nn.Flatten(), nn.Linear(4 * size, d))
    else:
        middle = [nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * size, 16), nn.Tanh()]
        body = nn.Sequential(_first(draws), nn.Tanh(), *middle, nn.Linear(16, d))
    with torch.no_grad():
        for weight in body.parameters():
            fan = weight[0].numel() if weight.ndim > 1 else 1
            weight.copy_((weight.ndim == 1) + torch.randn(weight.shape, generator=draws) / fan**0.5)
    card = Card(name=kind, architecture="tests", d=d, mean=(0.5, 0.4, 0.45), std=(0.2, 0.25, 0.3))
    return Encoder(body, card)


def _first(draws: torch.Generator) -> nn.Sequential:
    norm = nn.BatchNorm2d(4)
    norm.running_mean = 0.1 * torch.randn(4, generator=draws)
    norm.running_var = 0.5 + torch.rand(4, generator=draws)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm)


def embedded(encoder: Encoder, pixels: Tensor) -> Tensor:
    """Features of uint8 images in one float32 pass."""
    with torch.no_grad():
        return encoder(pixels.float() / 255)


def pixel_knowledge(n: int = 240, kind: str = "convolution", runtime: Runtime | None = None) -> Knowledge:
    """What an attacker of images knows."""
    encoder = small_encoder(kind)
    train, validation = stripes(n, "train"), stripes(n, "validation")
    z, vz = embedded(encoder, train.pixels), embedded(encoder, validation.pixels)
    known = Knowledge(z, train.labels, vz, validation.labels, 3, RIDGE, runtime or Runtime())
    return replace(known, images=train, encoder=encoder)


def fingerprint(known: Knowledge) -> list[str]:
    """Digests of everything that an attack is lent."""
    rows = [(known.z, known.y), (known.validation_z, known.validation_y)]
    if known.images is not None:
        rows.append((known.images.pixels, known.images.labels))
    encoder = [] if known.encoder is None else [known.encoder.sha256()]
    return [digest_rows(values, labels, ()) for values, labels in rows] + encoder


def fingerprint_of(made: Poisoning) -> str:
    """Digest of the poison."""
    carried = made.z if made.pixels is None else made.pixels
    assert carried is not None
    return digest_rows(carried, made.y, ()) + digest_rows(made.base, made.y, ())


def judge(known: Knowledge, z: Tensor | None, y: Tensor | None, test: tuple[Tensor, Tensor]) -> float:
    """Test accuracy of scikit-learn's head on the clean rows, with the poison added if there is any."""
    rows, labels = known.z, known.y
    if z is not None and y is not None:
        rows, labels = torch.cat([rows, z]), torch.cat([labels, y])
    scaler = StandardScaler().fit(rows.double().numpy())
    head = LogisticRegression(C=1 / (known.ridge * len(rows)), max_iter=1000).fit(
        scaler.transform(rows.double().numpy()), labels.numpy()
    )
    return float((head.predict(scaler.transform(test[0].double().numpy())) == test[1].numpy()).mean())


def ones(x: Tensor) -> Tensor:
    """[n, d] float to [n, d + 1] float64 with the bias's column."""
    return torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)


def head_loss(weight: Tensor, x: Tensor, y: Tensor, ridge: float = RIDGE, counts: Tensor | None = None) -> Tensor:
    """The head's training loss in float64, as autograd sees it; rows count `counts` times."""
    losses = nn.functional.cross_entropy(ones(x) @ weight.T, y, reduction="none")
    mean = losses.mean() if counts is None else (counts * losses).sum() / counts.sum()
    return mean + ridge / 2 * weight.square().sum()


def naive_head(x: Tensor, y: Tensor, classes: int, start: Tensor | None = None, counts: Tensor | None = None) -> Tensor:
    """The optimum by Newton's method with autograd's dense Hessian, float64 [C, d + 1]."""
    weight = torch.zeros(classes, x.shape[1] + 1, dtype=torch.float64) if start is None else start
    for _ in range(60):
        leaf = weight.clone().requires_grad_()
        loss = head_loss(leaf, x, y, counts=counts)
        (gradient,) = torch.autograd.grad(loss, leaf)
        if float(gradient.norm()) < 1e-13:
            break
        step = torch.linalg.solve(naive_hessian(weight, x, y, counts), gradient.flatten()).view_as(weight)
        while head_loss(weight - step, x, y, counts=counts) > loss.detach() + 1e-13:
            step = step / 2
        weight = weight - step
    return weight


def naive_hessian(weight: Tensor, x: Tensor, y: Tensor, counts: Tensor | None = None) -> Tensor:
    """Dense, float64 [C (d + 1), C (d + 1)]."""
    dense = torch.autograd.functional.hessian(lambda w: head_loss(w, x, y, counts=counts), weight, vectorize=True)
    return dense.reshape(weight.numel(), weight.numel())


def naive_leader(kind: str, weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The leader's loss row by row."""
    scores = ones(x) @ weight.T
    if kind == "cross-entropy":
        return torch.stack([torch.logsumexp(row, 0) - row[c] for row, c in zip(scores, y, strict=True)]).mean()
    wrong = [torch.cat([row[:c], row[c + 1 :]]).max() for row, c in zip(scores, y.tolist(), strict=True)]
    return torch.stack([torch.sigmoid(w - row[c]) for w, row, c in zip(wrong, scores, y, strict=True)]).mean()


def as_numpy(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().double().numpy()
