"""Target effectiveness: how far a target's features are from its references'."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import cosine_similarity

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
