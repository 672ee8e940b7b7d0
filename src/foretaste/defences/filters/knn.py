"""Deep k-NN (Peri et al., "Deep k-NN Defense Against Clean-label Data Poisoning Attacks", 2020, arXiv 1909.13374).

The paper drops a row whose label is not the plurality among its k nearest training rows in feature space. As a score:

    score_i = (most votes for another label - votes for y_i) / k,     in [-1, 1]; above 0: the paper drops the row

As in the authors' code, a row counts among its own neighbours, which shifts every score by the same 1/k.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows

NEIGHBOURS = 2**24
"""Neighbours held at once, 128 MiB."""


class DeepKNN(Filter):
    """Votes of the k nearest rows (Euclidean) for another label, less those for the label that the row carries."""

    name: ClassVar[str] = "knn"
    k: int = Field(
        default=101,
        ge=1,
        description="neighbours that vote, the row itself included; all rows where there are fewer. The default is "
        "the authors' for 50 rows of a class; they advise one to two times the rows of a class",
    )

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """Share of votes, float64 [n] in [-1, 1]; see `Filter.score`."""
        k = min(self.k, len(rows))
        index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows.z.numpy())
        pieces = rows.z.split(max(1, NEIGHBOURS // k)), rows.y.split(max(1, NEIGHBOURS // k))
        return torch.cat([self._score(index, z, y, rows, k) for z, y in zip(*pieces, strict=True)])

    def _score(self, index: NearestNeighbors, z: Tensor, y: Tensor, rows: TrainingRows, k: int) -> Tensor:
        nearest = torch.from_numpy(index.kneighbors(z.numpy(), return_distance=False))  # [b, k]
        votes = torch.zeros(len(z), rows.classes, dtype=torch.float64)
        votes.scatter_add_(1, rows.y[nearest], torch.ones(nearest.shape, dtype=torch.float64))
        own = votes.gather(1, y[:, None])[:, 0]
        others = votes.scatter(1, y[:, None], 0.0).amax(1)
        return (others - own) / k
