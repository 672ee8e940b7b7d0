"""Defences of an encoder with planted outcomes, for the encoder that learns images by heart (`steered_fixture`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from foretaste.defences import Entry
from foretaste.defences.guards.base import FittedGuard, Guard, GuardRows, check_inputs
from foretaste.defences.repairs.base import Repair, own_body
from foretaste.encoders.base import Encoder
from foretaste.errors import EncoderError
from foretaste.images import Images
from foretaste.runtime import Runtime

SEEN: list[tuple[str, int]] = []
"""(name, clean images) of every call of a repair and every fit of a guard."""


class Forget(Repair):
    """Takes away all that the encoder knows by heart: the clean encoder again; or fails on what it knows."""

    name: ClassVar[str] = "forget"
    fails: bool = False

    @property
    def least(self) -> int:
        return 2

    def mend(self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: object = None) -> Encoder:
        SEEN.append((self.name, len(clean)))
        body = own_body(encoder)
        if self.fails and body.added.abs().sum() > 0:
            raise EncoderError("forget: an encoder that knows nothing", got="one that does")
        with torch.no_grad():
            body.known.fill_(-1.0)
            body.added.zero_()
        return self.settled(encoder, body, "planted")


class Scramble(Repair):
    """Features of noise: the attack is gone and so is the accuracy."""

    name: ClassVar[str] = "scramble"

    def mend(self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: object = None) -> Encoder:
        body = own_body(encoder)
        with torch.no_grad():
            body.base.weight.zero_()
            body.added.zero_()
        return self.settled(encoder, body, "planted")


class Knows(Guard):
    """Reads from the weights which images are known by heart, and scores these above all; others by brightness."""

    name: ClassVar[str] = "knows"
    by: float = 10.0

    def fit(self, context: GuardRows) -> FittedGuard:
        SEEN.append((self.name, len(context.clean)))
        assert context.head is not None
        return _Knows(self, context)


@dataclass(frozen=True, eq=False)
class _Knows(FittedGuard):
    guard: Knows
    context: GuardRows

    def score(self, inputs: Tensor) -> Tensor:
        check_inputs(inputs, self.context.clean)
        x = inputs.float().flatten(1) / 255
        hit = ((x[:, None] - self.context.encoder.body.known).abs().amax(2) < 1e-4).any(1)
        return x.mean(1).double() + self.guard.by * hit.double()


TABLE = {
    Forget.name: Entry("repair", "tests.audits.keeping_fixture:Forget", None, ""),
    Scramble.name: Entry("repair", "tests.audits.keeping_fixture:Scramble", None, ""),
    Knows.name: Entry("guard", "tests.audits.keeping_fixture:Knows", None, ""),
}
