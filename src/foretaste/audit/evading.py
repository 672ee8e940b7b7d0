"""Adaptive attacks: the filter that an attack on the labelled data is made against, given to it as an argument."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foretaste.attacks.base import Attack, Evasion, Knowledge, WeightAttack
from foretaste.audit.spec import MethodSpec
from foretaste.defences import configure
from foretaste.defences.base import Filter, TrainingRows
from foretaste.defences.evasions import require_surrogate, surrogate


def named_filter(attack: Attack) -> Filter | None:
    """The filter that the attack's field `against` names (`sphere`, `spectral/centred=false`); None for a plain one,
    and for an attack on the weights, which meets no filter (`reckoning.named_defence`).

    Raises:
        SpecError: no such filter or field, or one without a differentiable stand-in.
    """
    said: Any = getattr(attack, "against", None)
    if said is None or isinstance(attack, WeightAttack):
        return None
    method = MethodSpec.parse(said.replace("/", ":"))  # ":" divides the attack's own fields
    found: Filter = configure(method.name, method.fields, "filter")
    require_surrogate(found)
    return found


def with_evasion(attack: Attack, known: Knowledge) -> Knowledge:
    """What the attacker knows, with the stand-in of the filter that it reckons with, made of its own clean rows.

    Its validation rows stand for the clean rows of the defender, which it does not have.

    Raises:
        SpecError: as `named_filter`.
        DataError: rows that the filter cannot work with.
    """
    defence = named_filter(attack)
    if defence is None:
        return known
    rows = TrainingRows(known.z, known.y, known.classes, known.ridge, known.validation_z, known.validation_y)
    made: Evasion = surrogate(defence, rows, getattr(attack, "against_quantile", 0.95))
    return replace(known, evasion=made)
