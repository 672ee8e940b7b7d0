"""The border between a target's own kind and the class it shall get: an edit that stops just beyond it is the smallest.

The attacker has no labels but those of its references. What the target's own kind is, the shadow images say that lie
nearest to it under the clean encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from foretaste.attacks.editing.editable_encoder import EditableEncoder
from foretaste.attacks.editing.problem import PreparedProblem

OWN = 20
"""Shadow images that are a target's own kind."""


@dataclass(frozen=True, eq=False)
class Border:
    """Mean of each target's own kind, in standard units, [k, d]."""

    own: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, edited: EditableEncoder, prepared: PreparedProblem) -> Self:
        """At the weights of the clean encoder, before the first step."""
        apply, rows = prepared.cache.scaler.apply, prepared.cache.rows
        shadow = apply(prepared.cache.z[rows])
        x = apply(edited.features(edited.enter(prepared.targets))).to(shadow)
        nearest = (normalize(x, dim=1) @ normalize(shadow, dim=1).T).topk(min(OWN, len(rows)), dim=1).indices
        return cls(shadow[nearest].mean(1))

    def least(self, z: Sequence[Tensor], prepared: PreparedProblem) -> float:
        """How much nearer the target that came least far is to its class than to its own kind, in [-2, 2].

        Args:
            z: features [v, d] of each target's views.
            prepared: with the clean references.
        """
        x = [prepared.cache.scaler.apply(views).mean(0) for views in z]
        own = [float(cosine_similarity(one, kind.to(one), dim=0)) for one, kind in zip(x, self.own, strict=True)]
        to_class = [prepared.similarity(views, pair) for views, pair in zip(z, prepared.pairs, strict=True)]
        return min(c - o for c, o in zip(to_class, own, strict=True))
