"""Adaptive attacks: the defence that an attack on the labelled data is made against, given to it as an argument."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from foretaste.attacks.base import Attack, WeightAttack
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.surrogates import FilterSurrogate
from foretaste.audit.spec import MethodSpec
from foretaste.defences import configure
from foretaste.defences.base import Filter, TrainingRows
from foretaste.defences.certified.base import CertifiedHead
from foretaste.defences.certified.dpa import DPA
from foretaste.defences.evasions import require_surrogate, surrogate, vote_surrogate
from foretaste.defences.evasions.votes import Own
from foretaste.errors import SpecError

UNREAD = ("inversion", "labels", "leader", "against_quantile")
"""Fields that mean nothing against a certified head: all poison carries one label, and there is no threshold."""


def named_defence(attack: Attack, keys: Iterable[str] = ()) -> Filter | CertifiedHead | None:
    """The defence that the attack's field `against` names (`sphere`, `dpa/partitions=250`); None for a plain one,
    and for an attack on the weights, which meets neither (`reckoning.named_encoder_defence`).

    Args:
        attack: any.
        keys: the audit's defences as they were typed. One of them has to choose a number of partitions that is left
            open; see `with_evasion`.

    Raises:
        SpecError: no such defence or field; a filter without a differentiable stand-in; a certified head where the
            attack has no form against one, or an open number of partitions that nobody chooses.
    """
    said: Any = getattr(attack, "against", None)
    if said is None or isinstance(attack, WeightAttack):
        return None
    found = configured_against(said, "filter", "certified")
    if isinstance(found, Filter):
        require_surrogate(found)
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


def with_evasion(
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
        own = Own(rows, known.validation_z, known.validation_y, poisons, seed, known.victim_rows)
        return replace(known, vote_surrogate=vote_surrogate(chosen, own))
    made: FilterSurrogate = surrogate(defence, rows, getattr(attack, "against_quantile", 0.95))
    return replace(known, filter_surrogate=made)


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
