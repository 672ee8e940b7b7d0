"""One attack, mounted: what it was given, what it made of it, and all that the referee needs to look it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from torch import Tensor

from foretaste.attacks.base import (
    Attack,
    LabelledAttack,
    PretrainingAttack,
    Progress,
    TargetedAttack,
    WeightAttack,
    quiet,
)
from foretaste.attacks.budget import poisoned_rows
from foretaste.attacks.knowledge import EditProblem, Knowledge
from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.audits.adaptive import encoder_surrogate, with_surrogate
from foretaste.audits.auxiliary_data import budgeted
from foretaste.audits.knowledge import AttackerView
from foretaste.audits.setting import Setting
from foretaste.defences.certified.base import CertifiedHead
from foretaste.errors import AttackError, SpecError
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.runtime import fixed_threads

Result = Poisoning | Corruption | PretrainingPoison
Made = TypeVar("Made", Poisoning, Corruption, PretrainingPoison)


@dataclass(frozen=True)
class Order:
    """What an attack is to do.

    Attributes:
        budget: added or replaced rows / training rows (or pre-training images); None for edits of weights.
        seed: of the named stream `attack`.
        pairs: (test row, wanted class) each, of attacks on chosen images.
        references: which images of the wanted class the attacker holds: its own, or the head's training images.
        heads: the defender's certified heads with nothing left open, by key, for attacks made against one.
    """

    budget: float | None = None
    seed: int = 0
    pairs: tuple[tuple[int, int], ...] = ()
    references: Literal["own", "training"] = "own"
    heads: Mapping[str, CertifiedHead] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Crafted:
    """What one attack made.

    Attributes:
        attack: the configured attack.
        setting: of the victim that it was made for.
        order: what it was to do.
        view: what it was to know, as the referee keeps it.
        given: the copies that it worked on.
        result: as it came back; nobody has checked it.
        rows: rows or images that the budget allows; 0 for an edit of weights.
        targets: the copies of the chosen images that it was given, uint8 [3, H, W] each.
        references: likewise, for each target.
    """

    attack: Attack
    setting: Setting
    order: Order
    view: AttackerView
    given: Knowledge
    result: Result
    rows: int = 0
    targets: tuple[Tensor, ...] = ()
    references: tuple[Images, ...] = ()

    @property
    def ledger(self) -> Ledger:
        """What the attack says of itself."""
        return self.result.ledger

    @property
    def y(self) -> Tensor:
        """Labels that the poison carries, int64 [m].

        Raises:
            SpecError: it is no poison of training rows; so for `z` and `base`.
        """
        return self._poisoning.y

    @property
    def z(self) -> Tensor | None:
        """The poison as features, float32 [m, d]; None where it is images."""
        return self._poisoning.z

    @property
    def pixels(self) -> Tensor | None:
        """The poison as images, uint8 [m, 3, H, W]; None where it is features."""
        return self.result.pixels if isinstance(self.result, PretrainingPoison) else self._poisoning.pixels

    @property
    def base(self) -> Tensor:
        """Rows that each poison started from, int64 [m]."""
        return self._poisoning.base

    @property
    def state(self) -> dict[str, Tensor]:
        """Of an edited encoder: its complete state dict, name -> tensor.

        Raises:
            SpecError: it is no edit of an encoder.
        """
        if not isinstance(self.result, Corruption):
            raise SpecError("state: an edit of an encoder", got=f"what {self.attack.name} gives")
        return self.result.state

    @property
    def _poisoning(self) -> Poisoning:
        if not isinstance(self.result, Poisoning):
            raise SpecError("y, z, pixels and base: poison of training rows", got=f"what {self.attack.name} gives")
        return self.result

    def __repr__(self) -> str:
        asked = self.order
        budget = "" if asked.budget is None else f", budget={asked.budget:g}"
        pairs = "".join(f", row {row} to class {wanted}" for row, wanted in asked.pairs)
        return f"Crafted({self.attack!r}{budget}, seed={asked.seed}{pairs})"


@fixed_threads()
def craft(attack: Attack, setting: Setting, view: AttackerView, order: Order, progress: Progress = quiet) -> Crafted:
    """Mount an attack on what it is to know.

    Raises:
        ForetasteError: a budget that gives no row, or as the attack.
        AttackError: the attack gave back something else than its threat asks for.
    """
    known = view.lend(setting)
    if isinstance(attack, LabelledAttack | TargetedAttack):
        return _on_rows(attack, setting, view, known, order, progress)
    targets, references = _chosen(setting, known, order)
    if isinstance(attack, PretrainingAttack):
        assert known.pool is not None
        assert view.pool is not None
        assert order.budget is not None
        rows = budgeted(order.budget, len(view.pool), len(order.pairs))
        result = _is(PretrainingPoison, attack, attack.poison(targets, references, known.pool, rows, order.seed))
        return Crafted(attack, setting, order, view, known, result, rows, targets, references)
    assert isinstance(attack, WeightAttack)
    assert known.encoder is not None
    assert known.kept is not None
    surrogate = encoder_surrogate(attack, known.encoder, known.kept, setting.runtime)
    problem = EditProblem(known.encoder, targets, references, known.kept, order.seed, setting.runtime)
    edit = _is(Corruption, attack, attack.corrupt(problem, surrogate, progress))
    edit = edit.with_ledger(setting.original.body.state_dict())
    return Crafted(attack, setting, order, view, known, edit, 0, targets, references)


def _on_rows(
    attack: LabelledAttack | TargetedAttack,
    setting: Setting,
    view: AttackerView,
    known: Knowledge,
    order: Order,
    progress: Progress,
) -> Crafted:
    assert order.budget is not None
    rows = poisoned_rows(order.budget, len(setting.train))
    if isinstance(attack, LabelledAttack):
        reckoned = with_surrogate(attack, known, rows, order.seed, dict(order.heads))
        made = _is(Poisoning, attack, attack.poison(reckoned, rows, order.seed, progress))
        return Crafted(attack, setting, order, view, known, made, rows)
    ((row, wanted),) = order.pairs
    target = setting.split.test.pixels[row].clone()
    made = _is(Poisoning, attack, attack.poison_for(known, target, wanted, rows, order.seed, progress))
    return Crafted(attack, setting, order, view, known, made, rows, (target,))


def _chosen(setting: Setting, known: Knowledge, order: Order) -> tuple[tuple[Tensor, ...], tuple[Images, ...]]:
    """Copies of the target images, uint8 [3, H, W] each, and for each the attacker's references."""
    held = known.images if order.references == "training" else known.validation_images
    assert held is not None
    targets = tuple(setting.split.test.pixels[row].clone() for row, _ in order.pairs)
    return targets, tuple(held.take((held.labels == wanted).nonzero()[:, 0]) for _, wanted in order.pairs)


def _is(kind: type[Made], attack: Attack, made: object) -> Made:
    if not isinstance(made, kind):
        raise AttackError(
            f"{attack.name}: a {kind.__name__} as its result", got=type(made).__name__, do="see the base class"
        )
    return made
