"""Attacks on features whose poison is images all the same: the features are made first and inverted afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from foretaste.attacks.base import Progress, part
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.decoder import Decoder, DecoderLoss
from foretaste.attacks.optimise.feature_matching import FeatureMatching, nearest_bases
from foretaste.attacks.optimise.inversion import Inversion, told
from foretaste.attacks.optimise.options import CarrierAttack
from foretaste.attacks.optimise.requirements import require_images
from foretaste.attacks.results import Poisoning, distinct
from foretaste.features.decoder import Architecture
from foretaste.heads.scaler import Scaler
from foretaste.record import Ledger

InversionName = Literal["none", "matching", "decoder"]
OF = {
    "matching": ("bases", "beta", "inversion_restarts"),
    "decoder": ("decoder", "decoder_loss", "decoder_weight"),
}
"""Fields that only one of the inversions reads."""
BOTH = ("inversion_steps", "inversion_rate")


class InvertibleAttack(CarrierAttack):
    """A `CarrierAttack` that can also reach pixels by way of features. Subclasses add an objective and write `poison`.

    With carrier pixels and an inversion, `carry` gives a carrier of features inside `constraint`, and `deliver` turns
    them into uint8 images inside [0, 1] or the ball of `epsilon`. In `poison`, pass `self.optimising(progress)` to
    `ascend` and `progress` to `deliver`.
    """

    inversion: InversionName = Field(
        default="none",
        description="carrier pixels: none moves the pixels themselves; or features first, then images for them",
    )
    bases: int = Field(default=4, ge=1, description="matching: images that each poison tries to start from")
    beta: float = Field(
        default=0.0, ge=0, description="matching: weight of staying near the base image (the paper is silent)"
    )
    inversion_steps: int | None = Field(
        default=None, ge=1, description="steps of Adam: of matching (default 100), or to train the decoder (600)"
    )
    inversion_rate: float | None = Field(
        default=None, gt=0, description="Adam's step: matching, pixels in [0, 1] (default 0.05); decoder (0.002)"
    )
    inversion_restarts: int = Field(default=0, ge=0, description="matching: how often the falling rate starts anew")
    decoder: Architecture = Field(default="convolutional", description="decoder: its network")
    decoder_loss: DecoderLoss = Field(
        default="pixel", description="decoder: trained on pixels, or also on the features of what it decodes"
    )
    decoder_weight: float = Field(default=0.1, gt=0, description="decoder: weight of that feature term")

    @model_validator(mode="after")
    def _one_inversion(self) -> Self:
        """A field of the other inversion would be ignored: say so instead."""
        if self.carrier != "pixels" and self.inversion != type(self).model_fields["inversion"].default:
            raise ValueError(f"inversion {self.inversion} makes images: it needs carrier pixels")
        for kind, fields in {**OF, "matching or decoder": BOTH}.items():
            asked = [name for name in fields if getattr(self, name) != type(self).model_fields[name].default]
            if asked and self.way not in kind.split(" or "):
                raise ValueError(f"{asked[0]} is a field of inversion {kind}, which this is not ({self.way})")
        if self.decoder_weight != 0.1 and self.decoder_loss != "feature":
            raise ValueError("decoder_weight is a field of decoder_loss feature")
        return self

    @property
    def way(self) -> InversionName:
        """The inversion that takes place: none on features."""
        return self.inversion if self.carrier == "pixels" else "none"

    @property
    def moves(self) -> str:
        """Pixels only where there is no inversion."""
        return self.carrier if self.way == "none" else "features"

    def optimising(self, progress: Progress) -> Progress:
        """The progress of what comes before the inversion."""
        return progress if self.way == "none" else part(progress, 0, 0.5)

    def planned_inversion(self, rows: int) -> int:
        """Images forward and backward through the encoder; training a decoder on pixels needs none."""
        if self.way == "none":
            return 0
        return self._decoder.planned(rows) if self.inversion == "decoder" else self._matching.planned * rows

    def realised(self, made: Poisoning, known: Knowledge, scaler: Scaler, progress: Progress) -> Poisoning:
        """With an inversion, images for the features; the ledger then also tells how near they come.

        Raises:
            EncoderError: a decoder for features of another width.
            SpecError: too few images to train a decoder.
            AttackError: the inversion diverged.
        """
        if self.way == "none" or made.z is None:
            return made
        found = self._inverted(known, scaler, made.z, made.base, part(progress, 0.5, 1))
        images, _ = require_images(self.name, self.carrier, known)
        numbers, rows = told(found, scaler.apply(made.z), scaler.apply(known.z), images.pixels)
        changes = {
            "changed": distinct(found.base),
            "figures": {**made.ledger.figures, **numbers},
            "per_row": rows,
            "passes": made.ledger.passes + found.passes,
        }
        ledger = Ledger(**{**dict(made.ledger), **changes})
        return replace(made, z=None, pixels=found.pixels, base=found.base, ledger=ledger, constraint="pixels")

    def _inverted(self, known: Knowledge, scaler: Scaler, z: Tensor, base: Tensor, progress: Progress) -> Inversion:
        images, encoder = require_images(self.name, self.carrier, known)
        runtime = known.runtime
        if self.inversion == "decoder":
            return self._decoder.invert(
                encoder, z, images, known.z, base, scaler, runtime, epsilon=self.epsilon, progress=progress
            )
        candidates = nearest_bases(scaler.apply(z), scaler.apply(known.z), base, self.bases)
        return self._matching.invert(encoder, z, images.pixels, candidates, scaler, runtime, progress)

    @property
    def _matching(self) -> FeatureMatching:
        return FeatureMatching(
            bases=self.bases,
            beta=self.beta,
            epsilon=self.epsilon,
            steps=self.inversion_steps or FeatureMatching.steps,
            rate=self.inversion_rate or FeatureMatching.rate,
            restarts=self.inversion_restarts,
        )

    @property
    def _decoder(self) -> Decoder:
        return Decoder(
            architecture=self.decoder,
            loss=self.decoder_loss,
            weight=self.decoder_weight,
            steps=self.inversion_steps or Decoder.steps,
            rate=self.inversion_rate or Decoder.rate,
        )

    def _named(self, others: dict[str, object]) -> list[str]:
        others.pop("inversion", None)
        return [*([f"by {self.way}"] if self.way != "none" else []), *super()._named(others)]
