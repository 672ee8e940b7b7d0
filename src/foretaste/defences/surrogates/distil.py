"""Distillation, simulated: a student of which only the last stage is new learns the clean encoder's last stage again.

    w -> w_clean    for every tensor that the student draws anew

On clean images the suspect is near the clean encoder, so that is about what a new last stage is taught; what stands
before it is the suspect's own. The gradient to the last stage is 0 and the edit falls into earlier layers, which the
student inherits. A fresh student inherits nothing but features of clean images: no attack reckons with that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foretaste.defences.repairs.distil import Distil
from foretaste.defences.repairs.student import drawn_anew
from foretaste.defences.surrogates.encoders import EncoderSurrogate
from foretaste.encoders.affine import Affine
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError


class Distilling(EncoderSurrogate[Distil]):
    """Only the loss behind the student counts: what the edit does in the last stage is lost."""

    weight = 1.0

    def learn(self) -> None:
        """The tensors that are drawn anew.

        Raises:
            SpecError: all of them are.
        """
        if self.defence.student == "fresh":
            raise SpecError(
                "against distil: a student that keeps early layers of the suspect",
                got="a fresh one, which inherits no weight of an edit",
                do="name distil/student=last-stage, or another defence",
            )
        self.anew = drawn_anew(self.encoder.body)

    def repaired(self, encoder: Encoder, names: Sequence[str]) -> Affine:
        """The clean encoder's last stage.

        Raises:
            SpecError: nothing before it is trained.
        """
        if not set(names) - set(self.anew):
            raise SpecError(
                "against distil: weights to train before the student's last stage",
                got="the last stage alone",
                do="set trainable to last-two-stages, or all",
            )
        state = self.encoder.body.state_dict()
        nothing = torch.zeros(())
        return {name: (nothing, state[name].detach()) for name in names if name in set(self.anew)}
