"""k nearest neighbours by cosine (Wu et al. 2018, arXiv 1805.01978, with uniform votes)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from foretaste.probes.base import FittedProbe, Probe, check_rows
from foretaste.runtime import Runtime

SIMILARITIES = 2**24
"""Similarities held at once, 64 MiB."""


class KNNProbe(Probe):
    """Majority of the k training rows with the greatest cosine; of classes with equal votes the first."""

    name: ClassVar[str] = "knn"
    k: int = Field(default=20, ge=1, description="neighbours that vote; all rows where there are fewer")

    def fit(self, z: Tensor, y: Tensor, classes: int, seed: int, runtime: Runtime) -> FittedProbe:
        """Keep the rows; the seed changes nothing. Features keep their own units: cosine is the encoder's geometry."""
        check_rows(z, y, classes)
        bank = normalize(z.to(runtime.device).float())  # [n, d]
        labels = y.to(runtime.device)
        k = min(self.k, len(bank))

        def predict(new: Tensor) -> Tensor:
            pieces = torch.split(new.to(runtime.device).float(), max(1, SIMILARITIES // len(bank)))
            return torch.cat([_vote(piece, bank, labels, classes, k) for piece in pieces]).cpu()

        return FittedProbe(predict, {"k": float(k)})


def _vote(z: Tensor, bank: Tensor, labels: Tensor, classes: int, k: int) -> Tensor:
    nearest = (normalize(z) @ bank.T).topk(k, dim=1).indices  # [b, k]
    votes = torch.zeros(len(z), classes, device=z.device)
    votes.scatter_add_(1, labels[nearest], torch.ones_like(nearest, dtype=votes.dtype))
    return votes.argmax(1)
