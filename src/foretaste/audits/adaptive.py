"""Adaptive attacks: the defence that an attack is made against is given to it as a surrogate, an argument."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from foretaste.attacks.base import Attack, WeightAttack
from foretaste.attacks.editing.adaptive import AdaptiveWeightAttack
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.surrogates import EncoderSurrogate, FilterSurrogate
from foretaste.audits.spec import MethodSpec
from foretaste.defences import configure
from foretaste.defences.base import Filter, TrainingRows
from foretaste.defences.certified.base import CertifiedHead
from foretaste.defences.certified.dpa import DPA
from foretaste.defences.surrogates import ENCODER, filter_surrogate, require_surrogate, vote_surrogate
from foretaste.defences.surrogates import encoder_surrogate as surrogate_of
from foretaste.defences.surrogates.votes import AttackerRows
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.images import Images
from foretaste.method import Method
from foretaste.runtime import Runtime

UNREAD = ("inversion", "labels", "leader", "against_quantile")
"""Fields that mean nothing against a certified head: all poison carries one label, and there is no threshold."""


def named_defence(attack: Attack, keys: Iterable[str] = ()) -> Filter | CertifiedHead | None:
    """The defence that the attack's field `against` names (`sphere`, `dpa/partitions=250`); None for a plain one,
    and for an attack on the weights, which meets neither (`named_encoder_defence`).

    Args:
        attack: any.
        keys: the audit's defences as they were typed. One of them has to choose a number of partitions that is left
            open; see `with_surrogate`.

    Raises:
        SpecError: no such defence or field; a filter without a differentiable stand-in; a certified head where the
            attack has no form against one, or an open number of partitions that nobody chooses.
    """
    said: Any = getattr(attack, "against", None)
    if said is None or isinstance(attack, WeightAttack):
        return None
    found = configured_against(said, "filter", "certified")
    if isinstance(found, Filter):
        require_surrogate(found, "filter")
        return found
    head: CertifiedHead = found
    named = f"{attack.name} against {said}"
    if not getattr(attack, "follows_votes", False):
        raise SpecError(f"{named}: an attack with a form against certified heads", got=attack.name, do="use exact")
    if getattr(attack, "carrier", "features") != "features":
        raise SpecError(
            f"{named}: carrier features",
            got="pixels, whose features nobody can place to the last bit as a hash asks",
            do="drop carrier",
        )
    for name in UNREAD:
        if getattr(attack, name) != type(attack).model_fields[name].default:
            raise SpecError(f"{named}: fields that it reads", got=name, do=f"drop {name}: it is for plain attacks")
    if isinstance(head, DPA) and head.partitions is None and not any(_is(key, head) for key in keys):
        raise SpecError(
            f"{named}: a number of partitions",
            got="none, nor a defence of that name that would choose it",
            do="pass for instance against=dpa/partitions=250",
        )
    return head


def with_surrogate(
    attack: Attack, known: Knowledge, poisons: int = 1, seed: int = 0, heads: dict[str, CertifiedHead] | None = None
) -> Knowledge:
    """What the attacker knows, with the stand-in of the defence that it reckons with, made of its own clean rows.

    Its validation rows stand for the clean rows of the defender, which it does not have.

    Args:
        attack: any.
        known: without the defence.
        poisons: rows that the attack will add.
        seed: of the attack.
        heads: the audit's certified heads with nothing left open, by key: an attacker who leaves the number of
            partitions open learns the one that the defender of that name has chosen.

    Raises:
        SpecError: as `named_defence`.
        DataError: rows that the defence cannot work with.
    """
    heads = heads or {}
    defence = named_defence(attack, heads)
    if defence is None:
        return known
    rows = TrainingRows(known.z, known.y, known.classes, known.ridge, known.validation_z, known.validation_y)
    if isinstance(defence, CertifiedHead):
        chosen = next((one for key, one in heads.items() if _is(key, defence)), defence)
        own = AttackerRows(rows, known.validation_z, known.validation_y, poisons, seed, known.victim_rows)
        return replace(known, vote_surrogate=vote_surrogate(chosen, own))
    made: FilterSurrogate = filter_surrogate(defence, rows, getattr(attack, "against_quantile", 0.95))
    return replace(known, filter_surrogate=made)


def named_encoder_defence(attack: Attack) -> Method | None:
    """The defence that the field `against` of an attack on the weights names (`clp/u=2`); None for a plain one.

    Raises:
        SpecError: no such defence or field, or one that no attack can reckon with.
    """
    if not isinstance(attack, AdaptiveWeightAttack) or attack.against is None:
        return None
    found: Method = configured_against(attack.against)
    require_surrogate(found, *ENCODER)
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
    return None if defence is None else surrogate_of(defence, encoder, shadow, runtime)


def planned(attack: WeightAttack, encoder: Encoder, shadow: Images, runtime: Runtime) -> int:
    """What one run costs, see `WeightAttack.planned`, with what playing through its defence takes.

    Raises:
        SpecError, EncoderError: as `encoder_surrogate`.
    """
    return attack.planned(len(shadow), encoder_surrogate(attack, encoder, shadow, runtime))


def configured_against(said: str, *kinds: str) -> Any:
    """The defence that a field `against` names, or a defence's key, which has colons already.

    Raises:
        SpecError: no such defence of those kinds, or field.
    """
    method = MethodSpec.parse(said.replace("/", ":"))  # ":" divides the attack's own fields
    return configure(method.name, method.fields, *kinds)


def _is(key: str, head: CertifiedHead) -> bool:
    """Whether a defence's key means this head, as it was typed."""
    return bool(MethodSpec.parse(key).name == head.name and configured_against(key) == head)
