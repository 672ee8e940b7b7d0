"""Adaptive attacks on the weights: the defence of the encoder that an attack is made against, given to it simulated."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from foretaste.attacks.base import Attack, Corruption, Progress, WeightAttack, quiet
from foretaste.attacks.weights.adaptive import AdaptiveWeightAttack
from foretaste.audit.evading import configured_against
from foretaste.defences.simulations import require_simulation, simulation
from foretaste.encoders.base import Encoder
from foretaste.images import Images
from foretaste.method import Method
from foretaste.runtime import Runtime


def named_encoder_defence(attack: Attack) -> Method | None:
    """The defence that the field `against` of an attack on the weights names (`clp/u=2`); None for a plain one.

    Raises:
        SpecError: no such defence or field, or one that cannot be simulated.
    """
    if not isinstance(attack, AdaptiveWeightAttack) or attack.against is None:
        return None
    found: Method = configured_against(attack.against)
    require_simulation(found)
    return found


def planned(attack: WeightAttack, encoder: Encoder, shadow: Images, runtime: Runtime) -> int:
    """What one run costs, see `WeightAttack.planned`, with what playing through its defence takes.

    Raises:
        SpecError: as `named_encoder_defence`.
    """
    defence = named_encoder_defence(attack)
    if defence is None:
        return attack.planned(len(shadow))
    assert isinstance(attack, AdaptiveWeightAttack)
    return attack.planned_against(len(shadow), simulation(defence, encoder, shadow, runtime))


def corrupted(
    attack: WeightAttack,
    encoder: Encoder,
    targets: Sequence[Tensor],
    references: Sequence[Images],
    shadow: Images,
    seed: int,
    runtime: Runtime,
    progress: Progress = quiet,
) -> Corruption:
    """One run of an attack on the weights, for one target or several, see `WeightAttack.corrupt_together`.

    Raises:
        SpecError: as `named_encoder_defence`, or as the attack.
        EncoderError: the defence cannot work on this encoder.
    """
    defence = named_encoder_defence(attack)
    if defence is not None:
        assert isinstance(attack, AdaptiveWeightAttack)
        made = simulation(defence, encoder, shadow, runtime)
        return attack.corrupt_against(encoder, targets, references, shadow, seed, runtime, made, progress)
    if len(targets) > 1:
        return attack.corrupt_together(encoder, targets, references, shadow, seed, runtime, progress)
    return attack.corrupt(encoder, targets[0], references[0], shadow, seed, runtime, progress)
