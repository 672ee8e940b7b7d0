"""`check_attack`: what an attack promises whatever its threat, and what its threat asks for beside."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import torch

from foretaste.attacks import find
from foretaste.attacks.base import Attack, LabelledAttack, PretrainingAttack, TargetedAttack, WeightAttack
from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.audits.crafted import Crafted, Order, Result, craft
from foretaste.audits.grid import on_features
from foretaste.audits.inputs import silent
from foretaste.audits.knowledge import know
from foretaste.audits.referee import judge, require
from foretaste.audits.spec_parts import AttackerSpec
from foretaste.audits.victim import Victim
from foretaste.errors import ConformanceError, RefereeError
from foretaste.features.cache import FeatureCache
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.testing import toy
from foretaste.testing.method import configured
from foretaste.testing.promise import Steps, digest, done, keep, tensor_like

ROWS = 9
"""Of 90 training rows, or of 90 images of the pool."""
WANTED = 1
PAIRS = ((0, WANTED), (2, WANTED))
"""Test rows of the classes 0 and 2."""


def check_attack(attack: str | type[Attack] | Attack, /, *, draws: bool | None = None, **fields: Any) -> None:
    """Mount an attack some times on a small toy and see that it keeps what its kind promises.

    Frozen, documented fields and an entry that makes it again; a result of the right kind, dtypes and shapes that the
    referee lets pass and that a victim can be trained on, with one poisoned row as with as many as there are; the same
    bytes for the same arguments; nothing that it was given is changed, nor any global random state or default dtype.
    An attack on the accuracy meets a victim on features and one on images, unless it says by
    `carrier` that it needs images.

    Args:
        attack: its class, a configured value, or a name as on the command line. Choose settings that are quick.
        draws: True: another seed has to give other poison; False: the same; None: either will do.
        fields: of the attack, beside a class or a name.

    Raises:
        ConformanceError: a promise is broken; it says which.
    """
    value: Attack = configured(attack, fields, find, "attack")
    keep(
        isinstance(value.variant, str) and "\n" not in value.variant,
        f"{value.name}: `variant` is a text on one line",
        got=repr(value.variant),
    )
    if isinstance(value, LabelledAttack):
        if on_features(value):
            _check(_Mount(value, toy.victim_on_features()), draws)
            _result(_Mount(value, toy.victim_on_images()), 1)
        else:
            _check(_Mount(value, toy.victim_on_images()), draws)
        return
    mount = _Mount(value, toy.victim_on_images())
    _check(mount, draws)
    if not isinstance(value, TargetedAttack):
        _blind_to_labels(mount)


class _Mount:
    """One attack on one victim.

    Args:
        attack: configured.
        victim: that nobody attacked.
    """

    def __init__(self, attack: Attack, victim: Victim) -> None:
        self.attack, self.victim, self.who = attack, victim, attack.name

    def order(self, seed: int, rows: int) -> Order:
        """What it is to do, by its threat."""
        budget = rows / toy.ROWS["train"]
        if isinstance(self.attack, LabelledAttack):
            return Order(budget, seed)
        if isinstance(self.attack, TargetedAttack):
            return Order(budget, seed, PAIRS[:1])
        return (
            Order(budget, seed, PAIRS) if isinstance(self.attack, PretrainingAttack) else Order(None, seed, PAIRS[:1])
        )

    def craft(self, seed: int, rows: int = ROWS, told: Steps | None = None, turned: int = 0) -> Crafted:
        """Mount it on fresh copies.

        Args:
            seed: of the attack.
            rows: that it may use.
            told: is told the progress.
            turned: by how much the labels of the images are turned that an attack must not read them of.
        """
        setting = self.victim.setting
        own = None if setting.images is None else _turned(setting.images.validation, turned)
        pool = own if isinstance(self.attack, PretrainingAttack) else None
        shadow = own if isinstance(self.attack, WeightAttack) else None
        view = know(AttackerSpec(), 0, setting, FeatureCache(), silent, pool, shadow)
        order, more = self.order(seed, rows), {} if told is None else {"progress": told}
        entry = self.attack.entry()
        made = done(
            self.who,
            f"works on {'features' if setting.images is None else 'images'}, {_amount(self.attack, rows)}",
            lambda: craft(self.attack, setting, view, order, **more),
            'if it cannot do without images, say carrier: ClassVar[str] = "pixels"' if setting.images is None else "",
        )
        keep(self.attack.entry() == entry, f"{self.who}: a value that does not change as it works", got="other fields")
        return made

    def pass_referee(self, made: Crafted) -> None:
        """The referee's word, and then the victim that the result makes."""
        try:
            if isinstance(made.result, Poisoning):
                self.victim.poisoned_by(made)
            elif isinstance(made.result, Corruption):
                self.victim.edited_by(made)
            else:
                require(judge(self.victim.setting, made))
        except RefereeError as error:
            raise ConformanceError(f"{self.who}: {error.expected}", got=error.got, do="see its base class") from error
        pixels = None if self.victim.setting.images is None else self.victim.setting.images.test.pixels
        same = pixels is None or all(
            torch.equal(target, pixels[row])
            for target, (row, _) in zip(made.targets, made.order.pairs, strict=bool(made.targets))
        )
        keep(same, f"{self.who}: target untouched", got="another image afterwards", do="work on a copy")


def _check(mount: _Mount, draws: bool | None) -> None:
    """All promises but those on labels."""
    who, told = mount.who, Steps()
    first = _result(mount, 1, told=told)
    told.check(who)
    again = _same_bytes(mount.craft(1).result)
    if again != first:
        third = _same_bytes(mount.craft(1).result)
        keep(third != again, f"{who}: the same bytes with or without a progress", got="others", do="only call it")
        keep(False, f"{who}: the same arguments give the same bytes", got="others", do="draw from the seed alone")
    if draws is not None:
        other = {_same_bytes(mount.craft(seed).result) for seed in (2, 3)} - {first}
        keep(
            not draws or bool(other), f"{who}: another seed gives other bytes", got="the same", do="draw from the seed"
        )
        keep(
            draws or not other, f"{who}: the same bytes whatever the seed, as said", got="others", do="pass draws=True"
        )
    if isinstance(mount.attack, LabelledAttack | TargetedAttack):
        for rows in (1, toy.ROWS["train"]):
            _result(mount, 1, rows)


def _result(mount: _Mount, seed: int, rows: int = ROWS, told: Steps | None = None) -> str:
    """The digest of a result that is as it must be."""
    made = mount.craft(seed, rows, told)
    result = made.result
    if isinstance(result, Poisoning):
        _rows(mount, result)
    elif isinstance(result, PretrainingPoison):
        size = [len(result.pixels), 3, toy.SIDE, toy.SIDE]
        tensor_like(f"{mount.who}: pixels", result.pixels, torch.uint8, size)
        tensor_like(f"{mount.who}: pair", result.pair, torch.int64, size[:1])
    else:
        _state(mount, result)
    mount.pass_referee(made)
    _ledger(mount.who, result.ledger)
    return _same_bytes(result)


def _rows(mount: _Mount, made: Poisoning) -> None:
    who, setting = mount.who, mount.victim.setting
    carriers = [name for name in ("z", "pixels") if getattr(made, name) is not None]
    keep(
        len(carriers) == 1,
        f"{who}: either z or pixels",
        got=" and ".join(carriers) or "neither",
        do="pass one of them to Poisoning",
    )
    m = len(made.y) if made.y.ndim else 0
    tensor_like(f"{who}: y", made.y, torch.int64, [m])
    tensor_like(f"{who}: base", made.base, torch.int64, [m])
    if made.pixels is not None:
        tensor_like(f"{who}: pixels", made.pixels, torch.uint8, [m, 3, toy.SIDE, toy.SIDE])
    else:
        do = "deliver features in the units of known.z"
        tensor_like(f"{who}: z", made.z, torch.float32, [m, setting.train.z.shape[1]], do)


def _state(mount: _Mount, made: Corruption) -> None:
    clean = mount.victim.setting.original.body.state_dict()
    keep(
        list(made.state) == list(clean),
        f"{mount.who}: a complete state dict with the encoder's own keys, in order",
        got=f"{len(made.state)} tensors of {len(clean)}",
        do="edit a copy of encoder.body.state_dict()",
    )
    for name, tensor in clean.items():
        tensor_like(f"{mount.who}: {name}", made.state[name], tensor.dtype, tensor.shape)


def _ledger(who: str, ledger: Ledger) -> None:
    """Numbers that a record can keep; whether they are true is the referee's."""
    numbers = [
        *ledger.objective,
        *ledger.figures.values(),
        *ledger.residuals.values(),
        *chain(*ledger.per_row.values()),
    ]
    keep(all(map(math.isfinite, numbers)), f"{who}: finite numbers in its ledger", got="NaN or infinity")
    keep(
        bool(ledger.objective) == bool(ledger.objective_name),
        f"{who}: a name for the objective in its ledger",
        got=repr(ledger.objective_name),
        do="set objective and objective_name, or neither",
    )
    keep(
        ledger.passes >= 0 and all(value >= 0 for value in ledger.residuals.values()),
        f"{who}: no negative count or residual in its ledger",
        got=f"passes {ledger.passes}",
    )
    same = Ledger.model_validate_json(ledger.model_dump_json()) == ledger
    keep(same, f"{who}: a ledger that JSON keeps", got="another one after the round trip")


def _blind_to_labels(mount: _Mount) -> None:
    """Attacks on the encoder are given images whose labels they are not to read."""
    one, other = (_same_bytes(mount.craft(1, turned=turned).result) for turned in (0, 1))
    what = "the pool" if isinstance(mount.attack, PretrainingAttack) else "the shadow images"
    keep(one == other, f"{mount.who}: the labels of {what} change nothing", got="other bytes", do="do not read them")


def _turned(images: Images, by: int) -> Images:
    """The same images under other labels."""
    return Images(images.pixels, (images.labels + by) % len(images.classes), images.classes, images.name)


def _same_bytes(result: Result) -> str:
    if isinstance(result, Poisoning):
        return digest(y=result.y, base=result.base, z=result.z, pixels=result.pixels)
    if isinstance(result, PretrainingPoison):
        return digest(pixels=result.pixels, pair=result.pair)
    return digest(**result.state)


def _amount(attack: Attack, rows: int) -> str:
    return f"{rows} rows" if isinstance(attack, LabelledAttack | TargetedAttack | PretrainingAttack) else "one encoder"
