"""Rows to filter: three Gaussian classes, clean or with poison planted among them, and a naive AUROC."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.defences.base import TrainingRows
from foretaste.runtime import generator

CLASSES, D = 3, 6
Array = NDArray[Any]


def blob(n: int, seed: int = 0, distance: float = 4.0, classes: int = CLASSES, d: int = D) -> tuple[Array, Array]:
    """Features float32 [n, d] round one centre per class, and labels [n] in cycles."""
    centres = distance * generator(1, "centres").normal(size=(classes, d)) / np.sqrt(2)
    y = np.arange(n) % classes
    return (centres[y] + generator(seed, "blob").normal(size=(n, d))).astype(np.float32), y


def rows(z: Array, y: Array, clean: tuple[Array, Array] | None = None, classes: int = CLASSES) -> TrainingRows:
    own = (None, None) if clean is None else tuple(map(torch.from_numpy, clean))
    return TrainingRows(torch.from_numpy(z), torch.from_numpy(y), classes, 1e-2, *own)


def problem(n: int = 240, distance: float = 1.5) -> TrainingRows:
    """Clean training rows of classes that overlap, and the defender's own."""
    return rows(*blob(n, 0, distance), clean=blob(60, 7, distance))


def flipped(n: int = 240, wrong: int = 12, seed: int = 0) -> tuple[TrainingRows, Array]:
    """Rows of which the last `wrong` carry another label than their class; bool [n] says which."""
    z, y = blob(n, seed)
    poison = np.arange(n) >= n - wrong
    return rows(z, np.where(poison, (y + 1) % CLASSES, y), clean=blob(60, seed=7)), poison


def shifted(n: int = 240, wrong: int = 12, seed: int = 0, by: float = 12.0) -> tuple[TrainingRows, Array]:
    """Rows of class 0 among which `wrong` are moved away together, by `by` standard deviations, away from all else."""
    z, y = blob(n, seed)
    poison = np.zeros(n, bool)
    poison[np.flatnonzero(y == 0)[:wrong]] = True
    z[poison] += np.float32(by) * np.eye(D, dtype=np.float32)[0] * np.sign(z[y == 0].mean(0)[0])
    return rows(z, y, clean=blob(60, seed=7)), poison


def auroc(scores: Tensor, poison: Array) -> float:
    """Share of (poison, clean) pairs in the right order, ties for half: all pairs, one by one."""
    high, low = scores.numpy()[poison], scores.numpy()[~poison]
    return float(np.mean([(a > b) + 0.5 * (a == b) for a in high for b in low]))
