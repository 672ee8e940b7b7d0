"""Pruning, simulated: the channels that the repair would silence at the weights as they are, and the network without.

Which channels these are is a step function of the weights, so the attack is told it anew every few steps; in between
the masked network is differentiable. An edit that is good in it does not live in channels that would be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from foretaste.defences.repairs.base import own_body
from foretaste.defences.repairs.clp import CLP, channel_lipschitz
from foretaste.defences.repairs.fine_prune import FinePrune, mean_activity
from foretaste.defences.repairs.fine_tune import RATE
from foretaste.defences.repairs.pairs import Pair, conv_norm_pairs
from foretaste.defences.surrogates.encoders import EncoderSurrogate
from foretaste.encoders.affine import Affine
from foretaste.encoders.base import Encoder

IMAGES = 512
"""Shadow images on which activity is measured, at most."""
STEPS = 2
"""Of the fine-tuning after pruning, a look ahead and no more."""


class LipschitzPruning(EncoderSurrogate[CLP]):
    """The network without the channels that CLP would zero."""

    weight = 0.5

    def repaired(self, encoder: Encoder, names: Sequence[str]) -> Affine:
        """Scale and shift of those channels at zero.

        Raises:
            EncoderError: no convolution of the encoder is followed by BatchNorm.
        """
        pairs = conv_norm_pairs(encoder, own_body(encoder), self.shadow.pixels.shape, self.defence.name)
        return _without((pair, self.defence.outstanding(channel_lipschitz(pair))) for pair in pairs)


class IdlePruning(EncoderSurrogate[FinePrune]):
    """The network without the channels that fine-pruning would zero on the shadow images, a few steps of SGD later."""

    weight = 0.5

    def learn(self) -> None:
        """The images, and the steps unless the defence only prunes."""
        self.images = self.shadow.take(torch.arange(min(IMAGES, len(self.shadow))))
        self.steps = STEPS if self.defence.epochs else 0
        self.rate = self.defence.lr or RATE[self.defence.loss]

    def repaired(self, encoder: Encoder, names: Sequence[str]) -> Affine:
        """Scale and shift of those channels at zero.

        Raises:
            EncoderError: no convolution of the encoder is followed by BatchNorm.
        """
        body, shape = own_body(encoder), self.shadow.pixels.shape
        pairs = conv_norm_pairs(encoder, body, shape, self.defence.name)[-self.defence.layers :]
        activity = mean_activity(Encoder(body, encoder.card), pairs, self.images, self.runtime)
        return _without((pair, self.defence.idle(mean)) for pair, mean in zip(pairs, activity, strict=True))


def _without(silent: Iterable[tuple[Pair, Tensor]]) -> Affine:
    """Zero scale and shift for channels (bool [C]) of each pair."""
    affine: dict[str, tuple[Tensor, Tensor]] = {}
    for pair, channels in silent:
        if bool(channels.any()):
            kept = (~channels).float()
            affine |= {f"{pair.name}.{part}": (kept, torch.zeros(())) for part in ("weight", "bias")}
    return affine
