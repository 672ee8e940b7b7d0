from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.audits.cost import estimate_seconds
from foretaste.audits.grid import Trial, configured, draw_pairs, plan
from foretaste.audits.prepare import prepare
from foretaste.audits.spec import AuditSpec
from foretaste.errors import BudgetError, SpecError
from tests.audits.audit_fixture import (
    audit,
    feature_audit,
    identities,
    image_audit,
    make_world,
)

pytestmark = pytest.mark.usefixtures("cheats")

EXACT = "exact:steps=4"


def planned(spec: AuditSpec) -> list[Trial]:
    return plan(prepare(spec))


def test_the_grid_is_what_was_asked_for(world: Path) -> None:
    spec = image_audit(world, attacks=["label-flip", EXACT, "weight-spy"], budgets=[0.1, 0.2], seeds=3, targets=4)
    trials = planned(spec)
    assert trials[0].attack is None
    cells = [(t.spec.attack["name"], t.spec.budget, t.spec.seed) for t in trials[1:]]
    labelled = [(name, b, s) for name in ("label-flip", "exact") for b in (0.1, 0.2) for s in range(3)]
    assert cells == labelled + [("weight-spy", None, seed) for seed in range(4)]
    assert [t.label for t in trials][:2] == ["clean twin", "label-flip at 0.1, seed 0"]
    assert trials[-1].label.startswith("weight-spy, test row ")


def test_identities_are_distinct_and_stay(world: Path) -> None:
    spec = image_audit(world, attacks=["label-flip", EXACT, "weight-spy"], budgets=[0.1, 0.2], seeds=2, targets=3)
    first, again = identities(planned(spec)), identities(planned(spec))
    assert first == again
    assert len(set(first)) == len(first)
    grown = identities(planned(spec.model_copy(update={"budgets": (0.05, 0.1, 0.2), "seeds": 3, "targets": 5})))
    assert set(first) < set(grown)
    other = identities(planned(spec.model_copy(update={"ridge": 0.5})))
    assert not set(first) & set(other)


def test_identities_do_not_depend_on_how_a_field_is_written(world: Path) -> None:
    spellings = ["exact:epsilon=8:carrier=pixels", "exact:carrier=pixels:epsilon=8.0"]
    found = [identities(planned(image_audit(world, attacks=[text]))) for text in spellings]
    typed = [{"name": "exact", "carrier": "pixels", "epsilon": 8}]
    found.append(identities(planned(image_audit(world, attacks=typed, probes=[{"name": "exact", "ridge": 1e-3}]))))
    assert found[0] == found[1] == found[2]


def test_identities_do_not_depend_on_rounding_in_the_encoder(world: Path) -> None:
    """Another machine computes other last bits; the command in the report must find its trial there too."""
    spec = image_audit(world, attacks=["label-flip"])
    prepared = prepare(spec)
    for part in prepared.setting.parts.values():
        part.z.mul_(1 + 1e-6)
    assert identities(plan(prepared)) == identities(planned(spec))


def test_identities_follow_the_content_of_the_data(world: Path, tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    spec = image_audit(folder, attacks=["label-flip"])
    before = identities(planned(spec))
    arrays = dict(np.load(folder / "images.npz"))
    arrays["x_train"][0, 0, 0, 0] ^= 1
    np.savez(folder / "images.npz", **arrays)
    assert not set(before) & set(identities(planned(spec)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attacks": ["nonsense"]}, "attack: one of label-flip"),
        ({"attacks": ["exact:stepz=3"]}, "stepz = 3"),
        ({"attacks": ["exact:steps=0"]}, "steps = 0"),
        ({"attacks": ["exact", "exact:constraint=box"]}, "exact twice with the same fields"),
    ],
    ids=str,
)
def test_attacks_that_cannot_be_configured(values: dict[str, Any], message: str, world: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        audit(image_audit(world, **values), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("attack", ["pacl", "exact:carrier=pixels"])
def test_attacks_that_need_an_encoder(attack: str, world: Path) -> None:
    with pytest.raises(SpecError, match=r"attacks that work on features.*F\.npz"):
        configured(feature_audit(world, attacks=[attack]))


def test_a_budget_that_leaves_no_row_is_found_before_any_trial(world: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"at least one row; got 0\.001"):
        audit(image_audit(world, attacks=["label-flip"], budgets=[0.1, 0.001]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # Attacks on the weights have no budget.
    assert len(planned(image_audit(world, attacks=["weight-spy"], budgets=[0.001]))) == 3


@pytest.mark.parametrize("probe", ["nonsense", "knn:k=0", "exact:rigde=1"])
def test_probes_that_cannot_be_configured(probe: str, world: Path) -> None:
    with pytest.raises(SpecError, match=r"probe: one of|knn: fields k|exact: fields ridge"):
        prepare(feature_audit(world, probes=[probe]))
    with pytest.raises(SpecError, match="probes: each one once"):
        prepare(feature_audit(world, probes=["knn", "knn:k=3"]))


def test_pairs_are_of_rows_that_the_clean_head_gets_right(world: Path) -> None:
    prepared = prepare(image_audit(world, attacks=["weight-spy"]))
    truth, found = prepared.setting.test.y, prepared.victim.predictions[prepared.setting.headline]
    right = int((truth == found).sum())
    pairs = draw_pairs(prepared, 2 * right + 5)
    assert all(truth[row] == found[row] and truth[row] != wanted for row, wanted in pairs)
    rows = [row for row, _ in pairs]
    assert len(set(rows[:right])) == right  # no image twice before each was there once
    assert {wanted for _, wanted in pairs} == {0, 1, 2}
    for fewer in (1, right, right + 1):
        assert draw_pairs(prepared, fewer) == pairs[:fewer]


def test_time_is_estimated_for_the_trials_alone(world: Path) -> None:
    prepared = prepare(image_audit(world, attacks=["label-flip", "exact", "pacl"]))
    trials = plan(prepared)
    assert estimate_seconds(prepared, trials[:1]) == 0
    assert 0 < estimate_seconds(prepared, trials) < 600
