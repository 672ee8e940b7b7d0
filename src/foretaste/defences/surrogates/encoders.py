"""Surrogates of defences of an encoder: each plays its own kind through, and these are the answers of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from foretaste.encoders.affine import Affine
from foretaste.encoders.base import Encoder
from foretaste.images import Images
from foretaste.method import Method
from foretaste.runtime import Runtime

Kind = TypeVar("Kind", bound=Method)


class EncoderSurrogate(Generic[Kind]):
    """A defence of the encoder, played through by an attacker; as the protocol of `attacks.surrogates` says.

    Attributes:
        defence: with its fields.
        encoder: the clean one; stays.
        shadow: the attacker's images, in the place of the defender's.
        runtime: where to compute.
        weight, steps, rate, views, border: what the attack does with it; here nothing.
    """

    weight: float = 0.0
    steps: int = 0
    rate: float = 0.0
    views: int = 1
    border: float | None = None

    def __init__(self, defence: Kind, encoder: Encoder, shadow: Images, runtime: Runtime) -> None:
        self.defence, self.encoder, self.shadow, self.runtime = defence, encoder, shadow, runtime
        self.learn()

    def learn(self) -> None:
        """Keep what is needed of the clean encoder and the images."""

    def repaired(self, encoder: Encoder, names: Sequence[str]) -> Affine:
        """What a repair makes of tensors of the encoder, edited in those trained parameters; nothing here."""
        return {}

    def view(self, target: Tensor, count: int, random: torch.Generator) -> Tensor | None:
        """A guard's views of a target uint8 [3, H, W], uint8 [count, 3, H, W]; none here."""
        return None

    def settle(self, name: str, weight: Tensor) -> Tensor:
        """The weight nearby at which a scan sees nothing; here as it is."""
        return weight

    def suspicion(self, z: Tensor, wanted: Tensor, shadow: Tensor, clean: Tensor) -> Tensor | None:
        """How much a target stands out to a scan; none here."""
        return None

    def figures(self, encoder: Encoder, targets: Tensor) -> dict[str, float]:
        """What the attacker judges a finished edit by, beside what the attack itself measures; nothing here."""
        return {}
