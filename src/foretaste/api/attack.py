"""`foretaste.attack`: mount one attack on a victim."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console

from foretaste import attacks as table
from foretaste.api.checks import a_budget, a_kind, a_victim, a_whole, one_of
from foretaste.attacks.base import Attack, PretrainingAttack, RowAttack, TargetedAttack, WeightAttack
from foretaste.attacks.budget import require_replaceable
from foretaste.audits.adaptive import named_defence, named_encoder_defence
from foretaste.audits.attack_once import attack_once
from foretaste.audits.attack_request import Request
from foretaste.audits.crafted import Crafted, Order, craft
from foretaste.audits.grid import on_features
from foretaste.audits.inputs import silent
from foretaste.audits.knowledge import AttackerView, know
from foretaste.audits.methods import configured
from foretaste.audits.spec_parts import AttackerSpec
from foretaste.audits.victim import Victim
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache
from foretaste.images import Images
from foretaste.method import describe
from foretaste.progress import Following

References = Literal["own", "training"]


def attack(
    attack: str | type[Attack] | Attack,
    victim: Victim,
    *,
    budget: float | None = None,
    seed: int = 0,
    target: int | None = None,
    wanted: int | str | None = None,
    references: References = "own",
    attacker: dict[str, Any] | AttackerSpec | None = None,
    shadow: Images | None = None,
    pool: Images | None = None,
    progress: bool = True,
    **fields: Any,
) -> Crafted:
    """Mount one attack; nothing of the victim changes, and no attack is given a test row but its target.

    Args:
        attack: a name (`foretaste list`), `file.py:Class`, a class, or a configured value.
        victim: that nobody has attacked yet.
        budget: added or replaced rows / training rows (of pre-training images: / images of the pool), for all attacks
            but those on weights. The attack may use floor(budget * n) rows.
        seed: of the attack's own random stream.
        target: row of the test part that is to be steered, for attacks on one image.
        wanted: class that it is to get: number or name.
        references: which images of the wanted class the attacker holds: its own, or the head's training images.
        attacker: what the attacker of the training rows knows, see `AttackerSpec`: {"rows": "subset", "share": 0.1}.
        shadow: images whose features an attack on the weights keeps; None: the attacker's own.
        pool: clean pre-training images, for attacks that add to them.
        progress: draw a bar in a terminal or a notebook.
        fields: of the attack, where it is a name or a class, as in `foretaste list NAME`. One that is called like an
            argument of this function goes into the name: "pacl:references=10".

    Returns:
        The result with its evidence: `.y`, `.base`, `.ledger` and `.z` or `.pixels`; `.state` of an edited encoder.
        It has not been checked: `victim.poisoned_by`, `edited_by` and `pretrained_by` ask the referee first.

    Raises:
        SpecError: an unknown attack or field, one that does not fit the victim or the other arguments, or a victim that
            was attacked already.
        BudgetError: the budget leaves no row.
        AttackError: the attack found no valid poison.
    """
    a_victim("attack", victim, clean=True)
    seed, budget = a_whole("seed", seed, 0), None if budget is None else a_budget(budget)
    one_of("references", references, References, 'a field of that name goes into the attack: "pacl:references=10"')
    for name, images in (("shadow", shadow), ("pool", pool)):
        if not isinstance(images, Images | None):
            raise SpecError(f"{name}: foretaste.Images", got=a_kind(images))
    method: Attack = configured(table, attack, fields, "attack")
    _fits(method, victim, budget, target, wanted, pool)
    pairs = () if target is None or wanted is None else (pair_of(victim, target, wanted),)
    view = _view(victim, attacker, shadow, pool)
    order = Order(budget, seed, pairs, references)
    with Following(Console(stderr=True, quiet=not progress), method.name) as following:
        return craft(method, victim.setting, view, order, following.step)


def attack_to_file(attack: Attack, request: Request, out: Path, *, progress: bool = True) -> list[str]:
    """Run one attack on files, let the referee look, and write the result, whole or not at all.

    Args:
        attack: configured.
        request: what it is run on; see the flags of `foretaste attack`.
        out: .npz of poison, or .safetensors of an edited encoder.
        progress: draw a bar in a terminal or a notebook.

    Returns:
        Lines that say what it did.

    Raises:
        ForetasteError: bad input, an attack that failed, or one that broke its promise.
    """
    with Following(Console(stderr=True, quiet=not progress), attack.name) as following:
        return attack_once(attack, request, out, following.step)


def pair_of(victim: Victim, target: int, wanted: int | str) -> tuple[int, int]:
    """(test row, class), checked.

    Raises:
        SpecError: no such row or class, or the row's own class.
    """
    test = victim.setting.test
    rows, names = len(test), test.classes
    row, number = _number(target), names.index(wanted) if wanted in names else _number(wanted)
    if row is None or not 0 <= row < rows:
        raise SpecError(f"target: a test row in [0, {rows - 1}]", got=repr(target))
    if number is None or not 0 <= number < len(names):
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise SpecError(f"wanted: a class in [0, {len(names) - 1}] or a name ({some})", got=repr(wanted))
    if int(test.y[row]) == number:
        raise SpecError(
            "wanted: another class than the target's own", got=f"its own, {names[number]!r}", do="pass another"
        )
    return row, number


def _number(value: Any) -> int | None:
    try:
        return a_whole("", value)
    except SpecError:
        return None


def _fits(
    method: Attack,
    victim: Victim,
    budget: float | None,
    target: int | None,
    wanted: int | str | None,
    pool: Images | None,
) -> None:
    name = method.name
    if victim.setting.images is None and not on_features(method):
        raise SpecError(
            "an attack that works on features, since the victim has no images", got=name, do="use Victim.from_data"
        )
    if isinstance(method, WeightAttack) != (budget is None):
        got, do = ("none", "pass for instance budget=0.03") if budget is None else (f"{budget:g}", "leave it out")
        raise SpecError(
            f"{name}: {'a budget' if budget is None else 'no budget, since it adds no row'}", got=got, do=do
        )
    single = isinstance(method, TargetedAttack | PretrainingAttack | WeightAttack)
    if single and (target is None or wanted is None):
        raise SpecError(f"{name}: target and wanted", got="one of them or none", do="pass both")
    if not single and (target is not None or wanted is not None):
        raise SpecError(
            f"{name}: no target, since it lowers the accuracy",
            got="target or wanted",
            do=f'leave it out; a field of that name goes into the attack: "{name}:target=..."'
            if "target" in type(method).model_fields
            else "leave it out",
        )
    if isinstance(method, PretrainingAttack) != (pool is not None):
        raise SpecError(
            f"{name}: {'the pre-training images that it adds to' if pool is None else 'no pre-training images'}",
            got="none" if pool is None else "a pool",
            do="pass pool=" if pool is None else "leave it out",
        )
    if isinstance(method, RowAttack) and budget is not None:
        require_replaceable(method, budget)
    named_defence(method)
    named_encoder_defence(method)


def _view(
    victim: Victim, attacker: dict[str, Any] | AttackerSpec | None, shadow: Images | None, pool: Images | None
) -> AttackerView:
    try:
        spec = AttackerSpec.model_validate(attacker or {})
    except ValidationError as error:
        raise SpecError("attacker: what it knows, as in AttackerSpec", got=describe(error)) from None
    return know(spec, 0, victim.setting, FeatureCache(), silent, pool, shadow)
