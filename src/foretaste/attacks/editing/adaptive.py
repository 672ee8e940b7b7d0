"""An attack on the weights that reckons with a defence of the encoder, and the view from behind a repair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from foretaste.attacks.base import WeightAttack
from foretaste.attacks.editing.problem import Pair, PreparedProblem
from foretaste.attacks.editing.shadow_cache import floored
from foretaste.attacks.surrogates import EncoderSurrogate
from foretaste.encoders.affine import Affine, mapped
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.features.embed import embed
from foretaste.heads.scaler import Scaler
from foretaste.method import Since

SAMPLE = 512
"""Shadow images that give the units of a repaired encoder's features."""


class AdaptiveWeightAttack(WeightAttack):
    """An attack on the weights that can be made against a defence of the encoder."""

    against: Annotated[str | None, Since("0.1")] = Field(
        None,
        description="a repair, scan or guard of the encoder that the edit reckons with, with its fields: average, "
        "clp/u=2, fine-prune, views-vote ...; the attacker knows them, not the defender's images",
    )

    def needs_surrogate(self, surrogate: EncoderSurrogate | None) -> None:
        """For an attack whose field `against` names a defence.

        Raises:
            SpecError: there is no surrogate of it.
        """
        if self.against is not None and surrogate is None:
            raise SpecError(
                f"{self.name} against {self.against}: a surrogate of that defence",
                got="none",
                do="pass one to corrupt, as `foretaste audit` and `foretaste attack` do",
            )


def prepared_behind(encoder: Encoder, affine: Affine, prepared: PreparedProblem) -> PreparedProblem:
    """The prepared as the repaired encoder sees it: features of the references, and the unit of each feature."""
    rows = prepared.cache.rows[:SAMPLE]
    with mapped(encoder, affine):
        z = embed(encoder, torch.cat([prepared.cache.pixels[rows], prepared.references]), prepared.runtime)
    shadow, *own = z.split([len(rows), *prepared.counts])
    pairs = tuple(Pair(p.target, p.references, z_p) for p, z_p in zip(prepared.pairs, own, strict=True))
    return replace(prepared, pairs=pairs, cache=replace(prepared.cache, scaler=floored(Scaler.of([shadow]))))


def pulled_back(gradients: Sequence[Tensor], names: Sequence[str], affine: Affine) -> list[Tensor]:
    """Gradients to the repaired weights as gradients to the weights before the repair."""
    return [
        gradient * affine[name][0].to(gradient) if name in affine else gradient
        for name, gradient in zip(names, gradients, strict=True)
    ]
