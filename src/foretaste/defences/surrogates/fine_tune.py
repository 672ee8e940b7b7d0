"""Fine-tuning, simulated: a few steps of a victim that trains on, at each step of the attack: `durable`'s.

The repair takes hundreds of steps, in all weights; the attacker looks a few ahead, in those that it edits. It has no
labels for its shadow images, so that supervised fine-tuning is simulated without labels too.
"""

from __future__ import annotations

from foretaste.defences.repairs.fine_tune import RATE, FineTune
from foretaste.defences.surrogates.encoders import EncoderSurrogate

STEPS = 3


class FineTuning(EncoderSurrogate[FineTune]):
    """A victim's first steps, at the repair's own learning rate over its momentum's share."""

    weight = 0.5
    steps = STEPS

    def learn(self) -> None:
        """The rate that steps without momentum must have to go as far."""
        self.rate = (self.defence.lr or RATE[self.defence.loss]) / (1 - self.defence.momentum)
