"""Audits of attacks of every threat, of filters and of probes that come from a file of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import foretaste as ft
from tests.audits.audit_fixture import audit, image_audit

FILE = '''
from typing import ClassVar

import torch
from pydantic import Field

import foretaste as ft


class Brighten(ft.LabelledAttack):
    """Images of the training set, a little brighter, under the next label."""

    name: ClassVar[str] = "brighten"
    carrier: ClassVar[str] = "pixels"
    epsilon: int = Field(4, ge=0, le=255, description="grey levels")

    def poison(self, known, rows, seed, progress):
        base = torch.arange(rows)
        pixels = (known.images.pixels[base].int() + self.epsilon).clamp(max=255).to(torch.uint8)
        y = (known.y[base] + 1) % known.classes
        return ft.Poisoning(y=y.numpy(), base=base.numpy(), pixels=pixels.numpy(), limits={"epsilon": self.epsilon})


class Anywhere(Brighten):
    """The same, but promises nothing about how far: two levels beyond, and no word about it."""

    name: ClassVar[str] = "anywhere"

    def poison(self, known, rows, seed, progress):
        made = super().poison(known, rows, seed, progress)
        return ft.Poisoning(y=made.y, base=made.base, pixels=255 - made.pixels, limits=made.limits)


class Copy(ft.TargetedAttack):
    """Copies of the target under the wanted label."""

    name: ClassVar[str] = "copy"

    def poison_for(self, known, target, wanted, rows, seed, progress):
        return ft.Poisoning(
            y=torch.full((rows,), wanted), base=torch.arange(rows), pixels=target.expand(rows, -1, -1, -1).clone()
        )


class Blend(ft.PretrainingAttack):
    """Half the target and half a reference."""

    name: ClassVar[str] = "blend"

    def poison(self, targets, references, pool, rows, seed):
        pair = torch.arange(rows) % len(targets)
        blends = [(targets[p].float() + references[p].pixels[0].float()) / 2 for p in pair.tolist()]
        return ft.PretrainingPoison(torch.stack(blends).to(torch.uint8), pair)


class Nudge(ft.WeightAttack):
    """The last tensor, a little longer; no ledger."""

    name: ClassVar[str] = "nudge"

    def corrupt(self, problem, surrogate, progress):
        state = {name: tensor.clone() for name, tensor in problem.encoder.body.state_dict().items()}
        last = [name for name, tensor in state.items() if tensor.is_floating_point()][-1]
        state[last] = state[last] * 1.5 + 0.1
        return ft.Corruption(state)


class Brightness(ft.Filter):
    """The norm of a row."""

    name: ClassVar[str] = "brightness"

    def score(self, rows, seed=0):
        return rows.z.double().norm(dim=1)


class First(ft.Probe):
    """The class of the first training row's label, whatever comes."""

    name: ClassVar[str] = "first"

    def fit(self, z, y, classes, seed, runtime):
        label = int(y[0])
        return ft.FittedProbe(predict=lambda new: torch.full((len(new),), label))
'''
EVERY = {
    "brighten": ft.testing.check_attack,
    "copy": ft.testing.check_attack,
    "blend": ft.testing.check_attack,
    "nudge": ft.testing.check_attack,
    "brightness": ft.testing.check_filter,
    "first": ft.testing.check_probe,
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path / "out"


@pytest.mark.parametrize("name", EVERY)
def test_they_keep_what_their_kind_promises(mine: Path, name: str) -> None:
    EVERY[name](f"mine.py:{name.capitalize()}")


def test_attacks_on_rows_and_weights_with_defences_of_ones_own(world: Path, mine: Path) -> None:
    attacks = ["mine.py:Brighten", "mine.py:Brighten:epsilon=2", "mine.py:Anywhere", "mine.py:Copy", "mine.py:Nudge"]
    spec = image_audit(
        world, attacks=attacks, targets=1, defences=["mine.py:Brightness"], probes=["exact", "mine.py:First"]
    )
    records = audit(spec, mine).records
    assert [(record.threat, record.attack, record.status) for record in records] == [
        ("clean", "none", "ok"),
        ("labelled", "brighten", "ok"),
        ("labelled", "brighten", "ok"),
        ("labelled", "anywhere", "failed"),
        ("targeted", "copy", "ok"),
        ("weights", "nudge", "ok"),
    ]
    _, wide, narrow, failed, copied, nudged = records
    found = {check.name: check.found for check in wide.referee}
    assert found["range and L-inf ball"].endswith("at most 4 grey levels from the base image, 4 allowed")
    assert found["promise"] == "pixels: pixels, epsilon 4"
    assert [check.found for check in narrow.referee if check.name == "promise"] == ["pixels: pixels, epsilon 2"]
    assert failed.error is not None and "range and L-inf ball as promised" in failed.error.message
    assert copied.ledger is not None and copied.ledger.added == len(copied.ledger.changed) == 6
    assert nudged.ledger is not None and len(nudged.ledger.changed) == 1
    assert [list(record.scores)[:2] for record in records] == [["exact", "first"]] * 3 + [[]] + [["exact", "first"]] * 2
    assert all("brightness" in record.defences for record in (wide, narrow, copied))


def test_pretraining_images_of_ones_own(world: Path, mine: Path) -> None:
    pool = np.load(world / "images.npz")
    np.savez("pool.npz", x_train=pool["x_train"], y_train=pool["y_train"])
    quick = {"epochs": 1, "batch": 20, "hidden": 8, "projection": 4, "lr": 0.02}
    spec = image_audit(
        world, attacks=["mine.py:Blend"], targets=1, budgets=[0.2], pretraining={"data": "pool.npz", **quick}
    )
    _, record = audit(spec, mine).records
    assert (record.threat, record.attack, record.status) == ("pretraining", "blend", "ok")
    assert record.ledger is not None and record.ledger.added == 24 and record.ledger.changed == []


def test_from_python_without_a_ledger(world: Path, mine: Path) -> None:
    victim = ft.Victim.from_data(world / "images.npz", f"{world / 'net.py'}:make", precision="float32")
    target = 0
    wanted = (int(victim.truth[target]) + 1) % 3
    poison = ft.attack("mine.py:Copy", victim, budget=0.1, target=target, wanted=wanted, progress=False)
    assert poison.ledger.added == len(poison.y) and poison.pixels is not None
    steered = ft.compare(victim, victim.poisoned_by(poison), target=target, wanted=wanted).target
    assert steered is not None and torch.equal(poison.pixels[0], victim.setting.split.test.pixels[target])
    edit = ft.attack("mine.py:Nudge", victim, target=target, wanted=wanted, progress=False)
    assert len(edit.ledger.changed) == 1 and victim.edited_by(edit).encoder is not victim.encoder
