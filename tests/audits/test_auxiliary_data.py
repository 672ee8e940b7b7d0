"""A shadow set of another origin: what attacks on the weights are given, and what they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste import attacks
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.audits.auxiliary_data import open_shadow
from foretaste.audits.grid import plan
from foretaste.audits.prepare import prepare
from foretaste.audits.spec_parts import ShadowSpec
from foretaste.errors import SpecError
from tests.audits.audit_fixture import audit, feature_audit
from tests.audits.steered_fixture import ByHeart, steer

GIVEN: list[Tensor] = []


class Looking(ByHeart):
    """Remembers its shadow images, and may change one."""

    name: ClassVar[str] = "looking"

    def corrupt(self, problem: EditProblem, *rest: Any, **named: Any) -> Corruption:
        shadow = problem.shadow
        GIVEN.append(shadow.pixels.clone())
        if self.how == "edits the shadow":
            shadow.pixels[0].zero_()
        return super().corrupt(problem, *rest, **named)


@pytest.fixture
def other(lookup: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """30 images of another origin, and behind them four test rows of the audited data."""
    GIVEN.clear()
    monkeypatch.setitem(attacks.ATTACKS, "looking", ("weights", f"{__name__}:Looking", ""))
    foreign = np.random.default_rng(7).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    seen = np.load(lookup / "images.npz")["x_test"][:4]
    x = np.concatenate([foreign, seen])
    np.savez(lookup / "other.npz", x_train=x, y_train=np.arange(34) % 2, x_test=x[:2], y_test=[0, 1])
    return lookup / "other.npz"


def foreign(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path)["x_train"][:30]).permute(0, 3, 1, 2)


def test_attacks_get_the_other_images_without_the_test_rows_among_them(
    lookup: Path, other: Path, tmp_path: Path
) -> None:
    records = audit(steer(lookup, "looking", shadow={"data": str(other)}, targets=2), tmp_path).records[1:]
    assert all(record.status == "ok" and record.target.success for record in records)
    assert len(GIVEN) == 2 and all(torch.equal(given, foreign(other)) for given in GIVEN)
    assert "shadow" in records[0].spec["inputs"]


def test_by_default_they_get_the_attackers_own_rows_and_trials_keep_their_identities(
    lookup: Path, other: Path, tmp_path: Path
) -> None:
    plain, moved = steer(lookup, "looking", targets=1), steer(lookup, "looking", targets=1, shadow=str(other))
    prepared = prepare(plain)
    assert "shadow" not in plain.base() and "shadow" not in prepared.inputs()
    assert moved.base()["shadow"] == {"data": str(other), "limit": None}
    assert plan(prepared)[1].spec.identity != plan(prepare(moved))[1].spec.identity
    audit(plain, tmp_path)
    assert torch.equal(GIVEN[0], prepared.setting.images.validation.pixels)


def test_a_changed_shadow_image_is_noticed(lookup: Path, other: Path, tmp_path: Path) -> None:
    spec = steer(lookup, "looking:how=edits the shadow", shadow={"data": str(other)}, targets=1)
    record = audit(spec, tmp_path).records[-1]
    assert [check.name for check in record.referee if not check.ok] == ["clean rows untouched"]


def test_a_limit_draws_the_same_images_every_time(lookup: Path, other: Path) -> None:
    test = prepare(steer(lookup, "looking")).setting.images.test
    spec = ShadowSpec.parse(f"{other},limit=12")
    first, second = (open_shadow(spec, test).pixels for _ in range(2))
    assert len(first) == 12 and torch.equal(first, second)
    rows = {row.numpy().tobytes() for row in foreign(other)}
    assert len({row.numpy().tobytes() for row in first} & rows) == 12


def test_bad_input_is_named(lookup: Path, other: Path, tmp_path: Path) -> None:
    larger = torch.zeros(5, 16, 16, 3, dtype=torch.uint8).numpy()
    np.savez(tmp_path / "larger.npz", x_train=larger, y_train=np.arange(5) % 2, x_test=larger[:2], y_test=[0, 1])
    with pytest.raises(SpecError, match="images of 8 x 8 pixels, as the audited ones; got 16 x 16"):
        prepare(steer(lookup, "looking", shadow=str(tmp_path / "larger.npz")))
    with pytest.raises(SpecError, match="shadow"):
        steer(lookup, "looking", shadow={"data": str(other), "epochs": 3})
    with pytest.raises(SpecError, match="shadow: DATA or DATA,limit=ROWS"):
        ShadowSpec.parse("other,limit")
    with pytest.raises(SpecError, match="shadow images of attacks on an encoder"):
        feature_audit(lookup, shadow=str(other))
