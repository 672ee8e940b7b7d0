"""Which rows poison starts from, and the labels that it carries."""

from __future__ import annotations

import torch
from torch import Tensor


def wrong_labels(y: Tensor, classes: int, random: torch.Generator) -> Tensor:
    """A label drawn evenly from the wrong ones for each true label; int64 [m]."""
    return (y + 1 + torch.randint(classes - 1, y.shape, generator=random)) % classes


def spread(n: int, rows: int, random: torch.Generator) -> Tensor:
    """`rows` base rows out of n at random, each used equally often; int64 [rows]."""
    whole = [torch.randperm(n, generator=random) for _ in range(-(-rows // n))]
    return torch.cat(whole)[:rows]
