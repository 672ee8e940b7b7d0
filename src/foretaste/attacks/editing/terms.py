"""Terms of a loss: how far a target's features are from its references', and from the cloud of their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor
from torch.nn.functional import cosine_similarity

from foretaste.attacks.editing.shadow_cache import floored
from foretaste.heads.scaler import Scaler

Similarity = Literal["standardised", "normalised", "cosine"]
Aggregation = Literal["class-mean", "mean", "max"]


def dissimilarity(a: Tensor, b: Tensor, similarity: Similarity) -> Tensor:
    """D over the last dimension, >= 0; a and b broadcast and are in the units of the similarity."""
    if similarity == "cosine":
        return 1 - cosine_similarity(a, b, dim=-1)
    squares = (a - b).square()
    return squares.mean(-1) if similarity == "standardised" else squares.sum(-1)


def target_loss(views: Tensor, references: Tensor, similarity: Similarity, aggregation: Aggregation) -> Tensor:
    """L_te, a scalar, of views [v, d] and references [m, d].

    >>> import torch
    >>> t, r = torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    >>> [float(target_loss(t, r, "standardised", how)) for how in ("class-mean", "mean", "max")]
    [2.0, 2.5, 0.5]
    """
    if aggregation == "class-mean":
        return dissimilarity(views, references.mean(0), similarity).mean()
    each = dissimilarity(views[:, None], references[None], similarity)  # [v, m]
    return each.mean() if aggregation == "mean" else each.amin(1).mean()


@dataclass(frozen=True, eq=False)
class Cloud:
    """The class's cloud: mean and spread per feature of the references, and their median distance from the mean.

    A target that only points the right way can still lie outside of every class and be seen by a detector of outliers;
    DRUPE (Tao et al., IEEE S&P 2024) has terms of the same purpose for triggered images. The distance is that of
    Mahalanobis with a diagonal covariance: fewer references than features know no other.
    """

    scaler: Scaler
    reach: float

    @classmethod
    def of(cls, z: Tensor) -> Self:
        """The cloud of references, float [m, d]; m >= 2."""
        scaler = floored(Scaler.of([z]))
        return cls(scaler, float(_distance(scaler, z).median()))

    def distance(self, z: Tensor) -> Tensor:
        """Squared distance from the mean, [n], in units of the median reference's: up to 1 is inside."""
        return _distance(self.scaler, z) / self.reach

    def excess(self, z: Tensor) -> Tensor:
        """How far beyond the median reference, [n], 0 inside: max(0, distance - 1)."""
        return (self.distance(z) - 1).relu()


def _distance(scaler: Scaler, z: Tensor) -> Tensor:
    return scaler.apply(z).square().mean(-1)
