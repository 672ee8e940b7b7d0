"""Adaptive attacks on the weights: the defence of the encoder that an attack is made against, given to it simulated."""

from __future__ import annotations

from foretaste.attacks.base import Attack, Progress, WeightAttack, quiet
from foretaste.attacks.editing.adaptive import AdaptiveWeightAttack
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.attacks.surrogates import EncoderSurrogate
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


def encoder_surrogate(
    attack: WeightAttack, encoder: Encoder, shadow: Images, runtime: Runtime
) -> EncoderSurrogate | None:
    """The surrogate of the defence that an attack on the weights reckons with, made of what the attacker holds.

    Args:
        attack: any.
        encoder: the clean one, which the attacker edits.
        shadow: the attacker's images; they stand for the defender's.
        runtime: where to compute.

    Raises:
        SpecError: as `named_encoder_defence`.
        EncoderError: the defence cannot work on this encoder.
    """
    defence = named_encoder_defence(attack)
    return None if defence is None else simulation(defence, encoder, shadow, runtime)


def planned(attack: WeightAttack, encoder: Encoder, shadow: Images, runtime: Runtime) -> int:
    """What one run costs, see `WeightAttack.planned`, with what playing through its defence takes.

    Raises:
        SpecError, EncoderError: as `encoder_surrogate`.
    """
    return attack.planned(len(shadow), encoder_surrogate(attack, encoder, shadow, runtime))


def corrupted(attack: WeightAttack, problem: EditProblem, progress: Progress = quiet) -> Corruption:
    """One run of an attack on the weights, see `WeightAttack.corrupt`, with the surrogate of its defence.

    Raises:
        SpecError: as `named_encoder_defence`, or as the attack.
        EncoderError: the defence cannot work on this encoder.
    """
    surrogate = encoder_surrogate(attack, problem.encoder, problem.shadow, problem.runtime)
    return attack.corrupt(problem, surrogate, progress)
