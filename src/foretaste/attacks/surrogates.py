"""What an adaptive attack is handed of the defence that it reckons with: a surrogate, of one of three kinds.

Attacks import no defence: whoever joins the two makes the surrogate of the one that the field `against` names, of what
the attacker itself holds, and passes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from foretaste.encoders.affine import Affine
from foretaste.encoders.base import Encoder


class FilterSurrogate(Protocol):
    """A filter of training rows: a differentiable stand-in for its score.

    It is made of the attacker's own clean rows alone; features are in the encoder's units.
    """

    def among(self, z: Tensor, y: Tensor) -> FilterSurrogate:
        """The stand-in of the filter that finds rows z float [m, d] with labels y int64 [m] among the clean ones.

        The same object where what the filter learns from rows is, for the attacker, that of the clean rows.
        """
        ...

    def flagged(self, z: Tensor, y: Tensor) -> Tensor:
        """Which of rows z [m, d] with labels y [m] the filter itself would drop were they added, bool [m]."""
        ...

    def left(self, z: Tensor, y: Tensor, softness: float) -> tuple[Tensor, Tensor]:
        """How far each row is let through, [m] in (0, 1), and the gradient of each in its own row, [m, d].

        A half at the threshold; `softness` is the way to about 3/4, in units of what lies between the clean rows'
        median score and the threshold.
        """
        ...

    @property
    def threshold(self) -> float:
        """The score that the poison is to stay at or below: a quantile of the attacker's own clean rows' scores."""
        ...

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """How suspicious rows z float [m, d] with labels y int64 [m] are, [m], higher for more."""
        ...

    def penalty(self, z: Tensor, y: Tensor) -> tuple[float, Tensor]:
        """Mean excess of the scores over the threshold, and its gradient with respect to z, [m, d]."""
        ...

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """The nearest rows [m, d] at or below the threshold where that has a closed form; else z as it is."""
        ...


class VoteSurrogate(Protocol):
    """A certified head: the harm to its vote that added rows do, to follow uphill.

    It is made for a number m of rows, of what the attacker holds alone; features are in the encoder's units.
    """

    def damage(self, z: Tensor, y: Tensor, *, gradient: bool = True) -> tuple[float, Tensor | None]:
        """Smooth share in [0, 1] of the attacker's validation rows that the vote gets wrong when rows z float [m, d]
        with labels y int64 [m] are added, and its gradient with respect to z, [m, d].
        """
        ...

    def settled(self, z: Tensor, y: Tensor) -> Tensor:
        """The rows with each in the base learner that it is meant for, which takes a change of a hair."""
        ...


class EncoderSurrogate(Protocol):
    """A repair, scan or guard of the encoder, played through; what a kind of defence has not is 0 or does nothing.

    It is made of the encoder and the attacker's shadow images, never of the defender's.

    Attributes:
        weight: of the target's loss behind the repair, in [0, 1]; the rest is for the encoder as it is handed on.
        steps: SGD steps of a victim's training on clean images, after what `repaired` says.
        rate: learning rate of that victim.
        views: views of the target per step, at least.
        border: how much nearer to the class than to its own kind (difference of cosines) the target shall just come;
            None: as near as it can.
    """

    weight: float
    steps: int
    rate: float
    views: int
    border: float | None

    def repaired(self, encoder: Encoder, names: Sequence[str]) -> Affine:
        """What the repair would make of the encoder with the weights that it has now, were it to act at once.

        Args:
            encoder: the edited one; stays.
            names: parameters of its body that are trained; all others are the clean encoder's.
        """
        ...

    def view(self, target: Tensor, count: int, random: torch.Generator) -> Tensor | None:
        """Views of a target uint8 [3, H, W] as the guard makes them, uint8 [count, 3, H, W]; None: it makes none."""
        ...

    def settle(self, name: str, weight: Tensor) -> Tensor:
        """The weight nearby at which the scan sees nothing; called after each step, and the same where it can be."""
        ...

    def suspicion(self, z: Tensor, wanted: Tensor, shadow: Tensor, clean: Tensor) -> Tensor | None:
        """How much the target stands out to the scan, a scalar with a graph to be lowered; None: no such scan.

        Args:
            z: [v, d], the target's edited features, all in standard units.
            wanted: [d], the class mean of the clean references.
            shadow: [b, d], edited features of shadow images.
            clean: [b, d], their clean features.
        """
        ...

    def figures(self, encoder: Encoder, targets: Tensor) -> dict[str, float]:
        """What the attacker judges the finished edit by, for the ledger; targets are uint8 [k, 3, H, W]."""
        ...
