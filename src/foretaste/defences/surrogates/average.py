"""Weight averaging, simulated: the edit is made so large that its share of the mean is what the attacker wants.

    w -> (1 - share) w + share w_clean      and so the gradient to w is (1 - share) times that to the mean

The attacker takes the other checkpoint to be the clean encoder, which is the strongest one that a defender can have.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foretaste.defences.repairs.average import Average
from foretaste.defences.surrogates.encoders import EncoderSurrogate
from foretaste.encoders.affine import Affine
from foretaste.encoders.base import Encoder


class Averaging(EncoderSurrogate[Average]):
    """Only the loss behind the repair counts: the encoder as it is handed on lies further along the same way."""

    weight = 1.0

    def repaired(self, encoder: Encoder, names: Sequence[str]) -> Affine:
        """The mean with the clean encoder; only the trained parameters differ from it."""
        state, share = self.encoder.body.state_dict(), self.defence.share
        return {name: (torch.tensor(1 - share), share * state[name].detach()) for name in names}
