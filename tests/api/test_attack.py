from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import foretaste as ft
from foretaste.attacks.labelled.label_flip import LabelFlip
from foretaste.attacks.weights.pacl import PACL
from foretaste.runtime import digest_tensors
from tests.api.fixture import parts, rows, sklearn_predictions, victim

QUIET: dict[str, Any] = {"progress": False}
SMALL = {"steps": 6}


class Twice(ft.LabelledAttack):
    """Rows as far out again, under the next label."""

    name: ClassVar[str] = "twice"
    length: float = 2.0

    def poison(self, known: ft.Knowledge, rows: int, seed: int, progress: Any = None) -> ft.Poisoning:
        base = np.arange(rows)
        y = (known.y.numpy()[base] + 1) % known.classes
        return ft.Poisoning(y=y, base=base, z=known.z.numpy()[base] * self.length)


class Greedy(Twice):
    name: ClassVar[str] = "greedy"

    def poison(self, known: ft.Knowledge, rows: int, seed: int, progress: Any = None) -> ft.Poisoning:
        return super().poison(known, rows + 1, seed)


@pytest.fixture(scope="module")
def one() -> ft.Victim:
    return victim()


@pytest.fixture(scope="module")
def pictures(world: Path) -> ft.Victim:
    return on_images(world)


def on_images(world: Path, **settings: Any) -> ft.Victim:
    fixed = {"encoder": f"{world / 'net.py'}:make", "precision": "float32"}
    return ft.Victim.from_data(world / "images.npz", **{**fixed, **settings})


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("label-flip", {"labels": "least-likely"}),
        ("label-flip:labels=least-likely", {}),
        (LabelFlip, {"labels": "least-likely"}),
        (LabelFlip(labels="least-likely"), {}),
    ],
    ids=str,
)
def test_an_attack_by_name_class_or_value(one: ft.Victim, method: Any, fields: dict[str, Any]) -> None:
    made = ft.attack(method, one, budget=0.1, seed=3, **fields, **QUIET)
    expected = ft.attack("label-flip", one, budget=0.1, seed=3, labels="least-likely", **QUIET)
    assert made.attack == LabelFlip(labels="least-likely") and made.rows == 12 == made.ledger.added
    assert made.z is not None and expected.z is not None and torch.equal(made.z, expected.z)
    assert torch.equal(made.y, expected.y) and torch.equal(made.base, expected.base)


def test_numbers_of_numpy_and_torch_are_numbers(one: ft.Victim) -> None:
    seed: Any
    for seed in (2, np.int64(2), torch.tensor(2)):
        made = ft.attack("label-flip", one, budget=np.float64(0.1), seed=seed, **QUIET)  # type: ignore[arg-type]
        assert made.order.seed == 2 and type(made.order.seed) is int and type(made.order.budget) is float


def test_seeds_are_used_and_the_same_call_gives_the_same_bytes(one: ft.Victim) -> None:
    def bases(seed: int) -> list[int]:
        return ft.attack("label-flip", one, budget=0.1, seed=seed, **QUIET).base.tolist()

    assert bases(0) == bases(0) != bases(1)


def test_the_victim_does_not_change(one: ft.Victim) -> None:
    before = one.train.z.clone(), one.predictions["exact"].clone()
    poison = ft.attack("exact", one, budget=0.1, **SMALL, **QUIET)
    one.poisoned_by(poison)
    poison.given.z.zero_()
    assert torch.equal(one.train.z, before[0]) and torch.equal(one.predictions["exact"], before[1])


def test_poisoned_by_is_the_head_on_both_kinds_of_rows(one: ft.Victim) -> None:
    poison = ft.attack("exact", one, budget=0.2, **SMALL, **QUIET)
    poisoned = one.poisoned_by(poison)
    assert poison.z is not None
    predicted = sklearn_predictions([rows(120), (poison.z.numpy(), poison.y.numpy())], parts()["test"][0])
    assert_array_equal(poisoned.predictions["exact"], predicted)
    assert poisoned.attacked and repr(poisoned).startswith(
        "Victim('features', 144 training rows, 24 of them poison, 90"
    )


@pytest.mark.parametrize(("name", "fields"), [("label-flip", {}), ("exact", SMALL), ("emn", {"rounds": 1, "steps": 2})])
def test_the_same_as_an_audit_records_on_images(
    world: Path, pictures: ft.Victim, tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    encoder = f"{world / 'net.py'}:make"
    spec = {"name": name, **fields}
    done = ft.audit(
        data=str(world / "images.npz"), encoder=encoder, attacks=[spec], budgets=[0.1], seeds=2, precision="float32",
        out=tmp_path / "out", **QUIET,
    )  # fmt: skip
    clean, first, second = done.records
    assert pictures.accuracy == clean.scores["exact"].clean
    for record in (first, second):
        poison = ft.attack(name, pictures, budget=0.1, seed=record.seed, **fields, **QUIET)
        delivered = poison.z if poison.pixels is None else poison.pixels
        assert delivered is not None
        assert record.digests["poison"] == digest_tensors({"rows": delivered, "y": poison.y})
        found = ft.compare(pictures, pictures.poisoned_by(poison))
        assert found.probes["exact"] == record.scores["exact"]


def test_an_edit_is_that_of_an_audit(world: Path, pictures: ft.Victim, tmp_path: Path) -> None:
    done = ft.audit(
        data=str(world / "images.npz"), encoder=f"{world / 'net.py'}:make", attacks=["pacl:steps=4:batch=16"],
        targets=1, precision="float32", out=tmp_path / "out", **QUIET,
    )  # fmt: skip
    record = done.records[-1]
    assert record.status == "ok" and record.target is not None
    wanted = pictures.setting.train.classes[record.target.target_class]
    edit = ft.attack(
        PACL, pictures, target=record.target.index, wanted=wanted, seed=record.seed, steps=4, batch=16, **QUIET
    )
    assert record.digests["poisoned encoder"] == digest_tensors(edit.state)
    edited = pictures.edited_by(edit)
    found = ft.compare(pictures, edited, target=record.target.index, wanted=wanted)
    assert found.target is not None and found.probes["exact"] == record.scores["exact"]
    assert found.target.model_dump(exclude={"probes"}) == record.target.model_dump(exclude={"probes"})
    assert edited.attacked and ", edited, " in repr(edited)
    with pytest.raises(ft.SpecError, match="y, z, pixels and base: poison of training rows; got what pacl gives"):
        _ = edit.y


def spoil(change: Callable[[ft.Crafted], Any]) -> Callable[[ft.Victim], ft.Victim]:
    def refused(one: ft.Victim) -> ft.Victim:
        poison = ft.attack("exact", one, budget=0.1, constraint="box", **SMALL, **QUIET)
        change(poison)
        return one.poisoned_by(poison)

    return refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda poison: poison.z[3].fill_(100.0), "constraint box"),
        (lambda poison: poison.z[0].fill_(float("nan")), "rows"),
        (lambda poison: poison.y.fill_(7), "label"),
        (lambda poison: poison.base.fill_(500), "ledger"),
        (lambda poison: poison.ledger.changed.clear(), "ledger"),
        (lambda poison: poison.given.z[0].add_(1), "clean rows untouched"),
        (lambda poison: vars(poison.result).update(constraint="none"), "promise"),
        (lambda poison: None, ""),
    ],
    ids=["features", "NaN", "labels", "bases", "ledger", "knowledge", "constraint", "honest"],
)
def test_tampered_poison_is_refused(one: ft.Victim, change: Any, words: str) -> None:
    if not words:
        assert spoil(change)(one).attacked
        return
    with pytest.raises(ft.RefereeError, match=rf"referee: [^;]*{words}.* as promised; got .*; mend the attack"):
        spoil(change)(one)


def test_tampered_weights_are_refused(pictures: ft.Victim) -> None:
    target, wanted = 0, (int(pictures.truth[0]) + 1) % 3
    edit = ft.attack("pacl", pictures, target=target, wanted=wanted, steps=2, batch=16, **QUIET)
    assert pictures.edited_by(edit).attacked
    next(iter(edit.state.values())).view(-1)[0] = float("inf")
    with pytest.raises(ft.RefereeError, match=r"referee: finite, ledger as promised; got NaN, infinity"):
        pictures.edited_by(edit)


def test_what_was_made_for_another_victim_is_refused(world: Path, one: ft.Victim, pictures: ft.Victim) -> None:
    wanted = (int(pictures.truth[0]) + 1) % 3
    edit = ft.attack("pacl", pictures, target=0, wanted=wanted, steps=2, batch=16, **QUIET)
    poison = ft.attack("label-flip", one, budget=0.1, **QUIET)
    other_encoder = on_images(world, encoder={"reference": "resnet18-small", "width": 8})
    other_rows = on_images(world, split={"seed": 1})
    for other in (other_encoder, other_rows):
        with pytest.raises(ft.SpecError, match="an attack on this victim; got one made for other rows or another enc"):
            other.edited_by(edit)
    with pytest.raises(ft.SpecError, match="an attack on this victim"):
        ft.Victim.from_features(*rows(120, 9), **parts()).poisoned_by(poison)
    with pytest.raises(
        ft.SpecError, match="an edit of an encoder; got what label-flip gives; pass it to `poisoned_by`"
    ):
        pictures.edited_by(poison)
    with pytest.raises(ft.SpecError, match="rows of the training data; got what pacl gives; pass it to `edited_by`"):
        pictures.poisoned_by(edit)
    for wrong in (poison.result, poison.z, "exact", None):
        with pytest.raises(ft.SpecError, match=r"rows of the training data, as foretaste\.attack gives it; got "):
            one.poisoned_by(wrong)  # type: ignore[arg-type]


def test_a_victim_is_attacked_once(one: ft.Victim) -> None:
    poison = ft.attack("label-flip", one, budget=0.1, **QUIET)
    poisoned = one.poisoned_by(poison)
    with pytest.raises(ft.SpecError, match=r"attack: a victim that nobody has attacked; got Victim\('features', 132"):
        ft.attack("label-flip", poisoned, budget=0.1, **QUIET)
    with pytest.raises(ft.SpecError, match="a victim that nobody has attacked"):
        poisoned.poisoned_by(poison)


def test_pretraining_on_poison_is_that_of_an_audit(world: Path, tmp_path: Path) -> None:
    """The encoder of the baseline, the poisoned one, and what became of the image."""
    pool = tmp_path / "pool.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)
    np.savez(pool, x=pixels, y=np.arange(30) % 3)
    quick = {"epochs": 1, "batch": 8, "hidden": 16, "projection": 8}
    done = ft.audit(
        data=world / "images.npz",
        encoder=f"{world / 'net.py'}:make",
        attacks=["poisoned-encoder:together=1"],
        budgets=[0.2],
        targets=1,
        pretraining={"data": str(pool), **quick},
        out=tmp_path / "audit",
        **QUIET,
    )
    record = done.records[1]
    pictures, target = on_images(world), record.target
    poison = ft.attack(
        "poisoned-encoder:together=1",
        pictures,
        budget=0.2,
        target=target.index,
        wanted=target.target_class,
        pool=ft.Images(pixels.transpose(0, 3, 1, 2), np.arange(30) % 3, ("a", "b", "c"), "pool"),
        **QUIET,
    )
    assert record.digests["poison"] == digest_tensors({"pixels": poison.pixels})
    clean, poisoned = (pictures.pretrained_by(poison, poisoned=one, **quick) for one in (False, True))
    assert record.digests["continued encoder"] == clean.used_encoder.sha256() != pictures.used_encoder.sha256()
    assert record.digests["poisoned encoder"] == poisoned.used_encoder.sha256() != clean.used_encoder.sha256()
    found = ft.compare(clean, poisoned, target=target.index, wanted=target.target_class)
    assert (found.probes["exact"], found.target) == (record.scores["exact"], target)
    with pytest.raises(ft.SpecError, match="got what poisoned-encoder gives; pass it to `pretrained_by`"):
        pictures.poisoned_by(poison)
    with pytest.raises(ft.SpecError, match="epoch"):
        pictures.pretrained_by(poison, epoch=1)
    poison.pixels[0] = 0
    pictures.pretrained_by(poison, **quick)  # any image is allowed
    with pytest.raises(ft.RefereeError, match="budget"):
        pictures.pretrained_by(replace(poison, rows=1), **quick)


def test_an_attack_of_ones_own(one: ft.Victim) -> None:
    poison = ft.attack(Twice, one, budget=0.1, length=3, **QUIET)
    assert poison.z is not None and torch.equal(poison.z, one.train.z[:12] * 3) and poison.ledger.added == 12
    assert one.poisoned_by(poison).train.poison.sum() == 12
    same = ft.attack(Twice(length=3), one, budget=0.1, **QUIET)
    assert same.z is not None and torch.equal(same.z, poison.z)
    with pytest.raises(ft.RefereeError, match="referee: budget as promised; got 13 rows"):
        one.poisoned_by(ft.attack(Greedy, one, budget=0.1, **QUIET))


def typed(factor: float) -> type[ft.LabelledAttack]:
    """A class that no module holds, as in a notebook cell that is run again with other code."""
    cell = f"""
class Typed(ft.LabelledAttack):
    name: ClassVar[str] = "typed"

    def poison(self, known, rows, seed, progress=None):
        return ft.Poisoning(y=known.y[:rows], base=np.arange(rows), z=known.z[:rows] * {factor})
"""
    names: dict[str, Any] = {"__name__": "a_notebook", "ft": ft, "ClassVar": ClassVar, "np": np}
    exec(cell, names)
    made: type[ft.LabelledAttack] = names["Typed"]
    return made


def test_a_class_of_a_notebook_is_found_again_and_told_from_its_next_version(tmp_path: Path) -> None:
    X, y = rows(120)
    np.savez(tmp_path / "F.npz", z=X, y=y)
    counts = []
    for factor in (2.0, 3.0, 2.0):
        done = ft.audit(
            features=tmp_path / "F.npz", attacks=[typed(factor)], budgets=[0.1], seeds=1, out=tmp_path / "out", **QUIET
        )
        assert [record.status for record in done.records] == ["ok"] * len(done.records)
        counts.append(len(ft.read_records(tmp_path / "out")))
    assert counts == [2, 3, 3], "other code is another attack"
    assert len({record.digests["poison"] for record in ft.read_records(tmp_path / "out")[1:]}) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attack": "exat"}, "got 'exat'; did you mean exact?"),
        ({"attack": "sphere"}, "attack: one of label-flip, .*; got 'sphere'"),
        ({"attack": None}, "attack: a name, a class or a configured value; got a NoneType"),
        ({"attack": 3}, "a configured value; got a int"),
        ({"attack": int}, "attack builtins:int: a class that extends LabelledAttack"),
        ({"attack": "none.py:Mine"}, "attack none.py:Mine: a Python file; got no file at"),
        ({"attack": LabelFlip(), "labels": "random"}, "fields beside a name or a class; got a configured label-flip"),
        ({"step": 3}, "got step = 3 .*see `foretaste list exact`"),
        ({"steps": "x"}, "got steps = 'x'"),
        ({"budget": None}, "exact: a budget; got none; pass for instance budget=0.03"),
        ({"budget": "0.1"}, r"budget: a share above 0 and at most 10; got '0\.1'"),
        ({"budget": True}, "budget: a share above 0 and at most 10; got True"),
        ({"budget": 11}, "at most 10; got 11"),
        ({"budget": 0}, r"of the 120 training rows that gives at least one row; got 0; pass at least 0\.0084"),
        ({"budget": float("nan")}, "at least one row; got nan"),
        ({"seed": "a"}, "seed: an integer of at least 0; got 'a'"),
        ({"seed": 1.5}, "seed: an integer of at least 0; got 1.5"),
        ({"seed": -1}, "seed: an integer of at least 0; got -1"),
        ({"victim": np.eye(3)}, "attack: a foretaste.Victim; got a ndarray"),
        ({"victim": None}, "attack: a foretaste.Victim; got None"),
        ({"target": 1, "wanted": 2}, "exact: no target, since it lowers the accuracy"),
        (
            {"attack": "pacl", "budget": None, "target": 1, "wanted": 2},
            "works on features, .* got pacl; use Victim.from",
        ),
        ({"references": "x"}, "references: own or training; got 'x'"),
        ({"references": 10}, 'a field of that name goes into the attack: "pacl:references=10"'),
        ({"attack": "gradient-canceling", "target": "exact"}, 'goes into the attack: "gradient-canceling:target='),
        ({"attacker": "subset"}, "attacker: what it knows, as in AttackerSpec"),
        ({"attacker": {"rows": "some"}}, "got rows = 'some'"),
        ({"shadow": "x"}, r"shadow: foretaste\.Images; got a str"),
        ({"pool": 3}, r"pool: foretaste\.Images; got a int"),
        ({"against": "spere"}, "did you mean sphere"),
    ],
    ids=str,
)
def test_wrong_orders_are_told_in_one_line(one: ft.Victim, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ft.SpecError, match=message) as raised:
        ft.attack(**{"attack": "exact", "victim": one, "budget": 0.1, **QUIET, **arguments})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "pacl: target and wanted; got one of them or none; pass both"),
        ({"target": 60, "wanted": 1}, r"target: a test row in \[0, 59\]; got 60"),
        ({"target": "7", "wanted": 1}, r"target: a test row in \[0, 59\]; got '7'"),
        ({"target": 0, "wanted": "cat"}, r"wanted: a class in \[0, 2\] or a name \(0, 1, 2\); got 'cat'"),
        ({"target": 0, "wanted": 3}, r"wanted: a class in \[0, 2\]"),
        ({"target": 0, "wanted": 0}, "another class than the target's own; got its own, '0'"),
        ({"target": 0, "wanted": 1, "budget": 0.1}, "pacl: no budget, since it adds no row; got 0.1; leave it out"),
    ],
    ids=str,
)
def test_wrong_targets_are_told_in_one_line(pictures: ft.Victim, arguments: dict[str, Any], message: str) -> None:
    assert int(pictures.truth[0]) == 0
    with pytest.raises(ft.SpecError, match=message):
        ft.attack("pacl", pictures, steps=2, batch=16, **QUIET, **arguments)
