"""What an attack on the weights is told of a defence of the encoder that it reckons with.

Attacks import no defence: whoever joins the two makes a `Simulation` of the one that the field `against` names, and
passes it. A simulation is made of what the attacker holds (the encoder and its shadow images), never of the defender's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor

from foretaste.attacks.base import Corruption, Progress, WeightAttack, quiet
from foretaste.attacks.weights.ground import floored
from foretaste.attacks.weights.scene import Pair, Scene
from foretaste.encoders.base import Encoder
from foretaste.features.embed import embed
from foretaste.heads.scaler import Scaler
from foretaste.images import Images
from foretaste.method import Since
from foretaste.runtime import Runtime

Affine = Mapping[str, tuple[Tensor, Tensor]]
"""Name of a tensor w in the body's state dict -> (keep, add), which broadcast: the repair makes it keep * w + add."""

SAMPLE = 512
"""Shadow images that give the units of a repaired encoder's features."""


class Simulation(Protocol):
    """A defence of the encoder as an adaptive attack is given it; what a kind of defence has not is 0 or does nothing.

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


class AdaptiveWeightAttack(WeightAttack):
    """An attack on the weights that can be made against a defence of the encoder."""

    against: Annotated[str | None, Since("0.1")] = Field(
        None,
        description="a repair, scan or guard of the encoder that the edit reckons with, with its fields: average, "
        "clp/u=2, fine-prune, views-vote ...; the attacker knows them, not the defender's images",
    )

    @abstractmethod
    def planned_against(self, shadow: int, simulation: Simulation | None) -> int:
        """As `WeightAttack.planned`, with what the simulation of the defence takes; None: there is no defence."""

    @abstractmethod
    def corrupt_against(
        self,
        encoder: Encoder,
        targets: Sequence[Tensor],
        references: Sequence[Images],
        shadow: Images,
        seed: int,
        runtime: Runtime,
        simulation: Simulation | None,
        progress: Progress = quiet,
    ) -> Corruption:
        """As `corrupt_together`, also of one target, with the defence that `against` names; None: it names none."""


@contextmanager
def behind(encoder: Encoder, affine: Affine) -> Iterator[None]:
    """Within the block the encoder is the repaired one; then it is what it was, to the bit.

    No graph that began before may be used in or after the block.
    """
    state = encoder.body.state_dict(keep_vars=True)
    before = {name: state[name].detach().clone() for name in affine}
    try:
        for name, (keep, add) in affine.items():
            state[name].data.copy_(keep.to(state[name]) * before[name] + add.to(state[name]))
        yield
    finally:
        for name, tensor in before.items():
            state[name].data.copy_(tensor)


def scene_behind(encoder: Encoder, affine: Affine, scene: Scene) -> Scene:
    """The scene as the repaired encoder sees it: features of the references, and the unit of each feature."""
    rows = scene.ground.rows[:SAMPLE]
    with behind(encoder, affine):
        z = embed(encoder, torch.cat([scene.ground.pixels[rows], scene.references]), scene.runtime)
    shadow, *own = z.split([len(rows), *scene.counts])
    pairs = tuple(Pair(p.target, p.references, z_p) for p, z_p in zip(scene.pairs, own, strict=True))
    return replace(scene, pairs=pairs, ground=replace(scene.ground, scaler=floored(Scaler.of([shadow]))))


def pulled_back(gradients: Sequence[Tensor], names: Sequence[str], affine: Affine) -> list[Tensor]:
    """Gradients to the repaired weights as gradients to the weights before the repair."""
    return [
        gradient * affine[name][0].to(gradient) if name in affine else gradient
        for name, gradient in zip(names, gradients, strict=True)
    ]
