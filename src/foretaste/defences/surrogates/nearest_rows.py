"""Stand-in of deep k-NN: votes of all clean rows, weighed by a Gaussian kernel that in effect reaches k of them."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.defences.base import TrainingRows
from foretaste.defences.filters.knn import DeepKNN
from foretaste.defences.surrogates.filters import FilterSurrogate

SAMPLE, HALVINGS = 256, 40
WEIGHTS = 2**24
"""Weights of votes held at once, 64 MiB in float32."""


class NeighboursSurrogate(FilterSurrogate[DeepKNN]):
    """Logarithm of the soft votes for the most voted other label, less that of those for the row's own.

    The logarithm, because a row among another class would otherwise feel no slope that leads it out. The kernel's width
    is one for all rows: that at which a clean row's votes have, in the mean over some of them, the perplexity k (as
    neighbours are counted by van der Maaten and Hinton, JMLR 2008, section 2).
    """

    def learn(self, rows: TrainingRows) -> None:
        """Clean rows round their mean, ordered by label, and the kernel's precision."""
        order = rows.y.argsort(stable=True)
        self.counts = torch.bincount(rows.y, minlength=rows.classes).tolist()
        self.mean = rows.z.double().mean(0)
        self.z = (rows.z[order].double() - self.mean).float()  # small numbers: distances keep their digits in float32
        self.block = max(1, WEIGHTS // len(rows))
        step = max(1, len(rows) // SAMPLE)
        self.precision = _precision(self._distances(self.z[::step]), min(self.defence.k, len(rows)))

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """Log odds."""
        pieces = zip(z.split(self.block), y.split(self.block), strict=True)
        return torch.cat([self._score(*piece) for piece in pieces])

    def _score(self, z: Tensor, y: Tensor) -> Tensor:
        closeness = -self.precision * self._distances(z - self.mean.to(z))  # [m, n]
        votes = torch.stack([own.logsumexp(1) for own in closeness.split(self.counts, 1)], 1)  # [m, C]
        return votes.scatter(1, y[:, None], -torch.inf).amax(1) - votes.gather(1, y[:, None])[:, 0]

    def _distances(self, z: Tensor) -> Tensor:
        """Squared distances [m, n] of centred rows, up to a constant of each row, which no odds depend on."""
        known = self.z.to(z)
        return known.square().sum(1) - 2 * z @ known.T


def _precision(distances: Tensor, k: int) -> float:
    """The factor at which softmax(-factor * distances [m, n]) has perplexity k in the mean over rows, by bisection."""
    distances = distances.double() - distances.double().amin(1, keepdim=True)
    low, high = -60.0, 60.0  # of its logarithm to base 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        p = torch.softmax(-(2.0**middle) * distances, 1)
        perplexity = float(torch.special.entr(p).sum(1).exp().mean())
        low, high = (middle, high) if perplexity > k else (low, middle)
    return float(2.0 ** ((low + high) / 2))
