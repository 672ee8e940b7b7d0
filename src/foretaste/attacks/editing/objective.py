"""What an edit is for, as a loss of features, and when it is far enough: PA-CL's objective over pairs.

    L_te + lambda * (L_mu + anchor * L_an)

with the terms of `weights.pacl`; the descent that lowers it, and lambda, are in `descent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from foretaste.attacks.editing.problem import PreparedProblem
from foretaste.attacks.editing.terms import Aggregation, Similarity, dissimilarity, target_loss
from foretaste.attacks.surrogates import EncoderSurrogate

Side = Literal["clean", "detached", "moving"]


@dataclass(frozen=True)
class Objective:
    """Losses of the features of one step.

    Attributes:
        similarity: what D compares.
        aggregation: L_te to the references' mean, to each, or to the nearest.
        reference_side: L_te's references: f(r), or f'(r) without or with gradient.
        anchor: weight of L_an relative to L_mu.
        in_distribution: weight of the target's distance from the class beyond the median reference's own.
        views: of each target.
        enough: cosine of target and class mean, in standard units, at which a target is there.
        kept: mean cosine of shadow features to their clean ones that must remain.
    """

    similarity: Similarity
    aggregation: Aggregation
    reference_side: Side
    anchor: float
    in_distribution: float
    views: int
    enough: float
    kept: float

    @property
    def moves_references(self) -> bool:
        """Whether the references go through the edited encoder at each step."""
        return self.reference_side != "clean" or self.anchor > 0

    def _parts(self, z: Tensor, b: int, prepared: PreparedProblem) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
        """Features of a step as those of b shadow images, of each target's views and of each pair's references."""
        views = self.views * len(prepared.pairs)
        moving = z[b + views :].split(prepared.counts) if self.moves_references else ()
        return z[:b], z[b : b + views].split(self.views), moving

    def losses(self, z: Tensor, clean: Tensor, prepared: PreparedProblem) -> tuple[Tensor, Tensor]:
        """The pairs' L_te (with what `in_distribution` adds), and L_mu + anchor L_an.

        Args:
            z: [b + k views + m, d], edited features of shadow images, of each target's views and, if they move, of each
                pair's references.
            clean: [b, d], clean features of those shadow images.
            prepared: has the k pairs, and their references' clean features.
        """
        shadow, views, moving = self._parts(z, len(clean), prepared)
        rest = dissimilarity(self.units(shadow, prepared), self.units(clean, prepared), self.similarity).mean()
        effectiveness = z.new_zeros(())
        for number, (pair, x) in enumerate(zip(prepared.pairs, views, strict=True)):
            r_clean = self.units(pair.z.to(z), prepared)
            r = self.units(moving[number], prepared) if self.moves_references else r_clean
            side = {"clean": r_clean, "detached": r.detach(), "moving": r}[self.reference_side]
            te = target_loss(self.units(x, prepared), side, self.similarity, self.aggregation)
            effectiveness = effectiveness + te
            if self.in_distribution:
                effectiveness = effectiveness + self.in_distribution * pair.cloud.excess(x).mean()
            if self.anchor:
                rest = rest + self.anchor * dissimilarity(r, r_clean, self.similarity).mean() / len(prepared.pairs)
        return effectiveness, rest

    def there(self, z: Tensor, clean: Tensor, prepared: PreparedProblem, *, targets: bool = True) -> bool:
        """Whether the shadow features are within their limit, and every target (if these count) as similar as asked."""
        shadow, _, _ = self._parts(z, len(clean), prepared)
        kept = float(cosine_similarity(shadow, clean).mean()) >= self.kept
        return kept and (not targets or self.similar(z, len(clean), prepared))

    def views_in(self, z: Tensor, b: int, prepared: PreparedProblem) -> Sequence[Tensor]:
        """Features of each target's views, [v, d] each; z as of `_parts`."""
        return self._parts(z, b, prepared)[1]

    def suspicion(self, z: Tensor, clean: Tensor, prepared: PreparedProblem, surrogate: EncoderSurrogate) -> Tensor:
        """What a scan would hold against the targets, a scalar; z and clean as of `losses`."""
        apply, (shadow, views, _) = prepared.cache.scaler.apply, self._parts(z, len(clean), prepared)
        total = z.new_zeros(())
        for pair, x in zip(prepared.pairs, views, strict=True):
            found = surrogate.suspicion(apply(x), apply(pair.z.to(z)).mean(0), apply(shadow), apply(clean))
            total = total if found is None else total + found
        return total

    def similar(self, z: Tensor, b: int, prepared: PreparedProblem) -> bool:
        """Whether every target is as similar as asked; z as of `_parts`."""
        _, views, _ = self._parts(z, b, prepared)
        pairs = list(zip(views, prepared.pairs, strict=True))
        inside = not self.in_distribution or not any(bool(pair.cloud.excess(x).any()) for x, pair in pairs)
        return inside and all(prepared.similarity(x, pair) >= self.enough for x, pair in pairs)

    def distance(self, x: Tensor, references: Tensor, prepared: PreparedProblem) -> Tensor:
        """L_te of one target, a scalar, at features x [v, d] and those of its references, [m, d]."""
        sides = self.units(x, prepared), self.units(references, prepared)
        return target_loss(*sides, self.similarity, self.aggregation)

    def units(self, z: Tensor, prepared: PreparedProblem) -> Tensor:
        """Features in the units in which they are compared."""
        if self.similarity == "standardised":
            return prepared.cache.scaler.apply(z)
        return normalize(z, dim=-1) if self.similarity == "normalised" else z
