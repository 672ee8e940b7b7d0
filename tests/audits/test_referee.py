from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from foretaste.record import TrialRecord
from tests.audits.audit_fixture import audit, command, feature_audit, image_audit, trials_in

pytestmark = pytest.mark.usefixtures("cheats")


def judged(world: Path, folder: Path, cheat: str, *, images: bool, **fields: Any) -> tuple[TrialRecord, list[str]]:
    """The cheat's record, in an audit that goes on with an honest attack; and the checks that refused it."""
    spec = image_audit if images else feature_audit
    outcome = audit(spec(world, attacks=[{"name": cheat, **fields}, "label-flip"]), folder)
    *cheated, honest = outcome.records[1:]
    assert honest.status == "ok", honest.error
    assert all(check.ok for check in honest.referee)
    return cheated[0], [check.name for check in cheated[0].referee if not check.ok]


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("one row too many", "budget"),
        ("no row", "budget"),
        ("label outside", "labels"),
        ("negative label", "labels"),
        ("soft labels", "labels"),
        ("outside the box by one ulp", "constraint box"),
        ("far outside the box", "constraint box"),
        ("no constraint where a box was configured", "promise"),
        ("an unknown constraint", "promise"),
        ("double precision", "rows"),
        ("another width", "rows"),
        ("NaN", "rows"),
        ("infinity", "rows"),
        ("features and pixels", "rows"),
        ("nothing", "rows"),
        ("fewer rows declared", "ledger"),
        ("another base declared", "ledger"),
        ("a base that is no row", "ledger"),
        ("replaces rows", "promise"),
        ("replaced rows declared", "ledger"),
        ("changes training features", "clean rows untouched"),
        ("changes training labels", "clean rows untouched"),
        ("changes validation rows", "clean rows untouched"),
    ],
)
def test_poison_on_features_that_cheats_is_refused(how: str, check: str, world: Path, tmp_path: Path) -> None:
    record, refused = judged(world, tmp_path, "cheat", images=False, how=how)
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.type == "RefereeError"
    assert check in refused
    assert check in record.error.message
    assert not record.scores and not record.predictions


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("outside the ball by little", "constraint ball"),
        ("far outside the ball", "constraint ball"),
        ("a wider ball than configured", "promise"),
    ],
)
def test_poison_outside_its_ball_is_refused(how: str, check: str, world: Path, tmp_path: Path) -> None:
    record, refused = judged(world, tmp_path, "cheat", images=False, how=how, constraint="ball")
    assert record.status == "failed"
    assert check in refused


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("one row too many", "budget"),
        ("one row twice", "replacement"),
        ("another label", "replacement"),
        ("more rows than places", "ledger"),
        ("more replaced than declared", "ledger"),
        ("declared as added", "ledger"),
        ("adds all the same", "promise"),
        ("far outside the box", "constraint box"),
    ],
)
def test_replacement_that_cheats_is_refused(how: str, check: str, world: Path, tmp_path: Path) -> None:
    record, refused = judged(world, tmp_path, "replacer", images=False, how=how)
    assert record.status == "failed"
    assert check in refused


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("beyond the reach", "constraint box and L-inf ball"),
        ("a larger reach than configured", "promise"),
        ("no reach where one was configured", "promise"),
        ("no constraint where a box was configured", "promise"),
    ],
)
def test_replacement_outside_its_reach_is_refused(how: str, check: str, world: Path, tmp_path: Path) -> None:
    record, refused = judged(world, tmp_path, "replacer", images=False, how=how, reach=0.25)
    assert record.status == "failed"
    assert check in refused


@pytest.mark.parametrize(
    ("how", "fields"),
    [
        ("not at all", {}),
        ("at the reach", {"reach": 0.25}),
        ("not at all", {"carrier": "pixels", "epsilon": 8}),
        ("beyond epsilon by one level", {"carrier": "pixels", "epsilon": 8}),
    ],
    ids=str,
)
def test_replacement_is_judged_at_the_very_edge(how: str, fields: dict[str, Any], world: Path, tmp_path: Path) -> None:
    record, refused = judged(world, tmp_path, "replacer", images="carrier" in fields, how=how, **fields)
    assert refused == (["range and L-inf ball"] if "beyond" in how else [])
    assert record.ledger is not None
    assert (record.ledger.added, record.ledger.replaced) == (0, len(record.ledger.changed))
    if not refused:  # rows in their own place change nothing
        assert record.scores["exact"].poisoned is not None
        if how == "not at all":
            assert record.scores["exact"].poisoned.value == record.scores["exact"].clean.value


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("beyond epsilon by one level", "range and L-inf ball"),
        ("a larger epsilon than configured", "promise"),
        ("no epsilon where one was configured", "promise"),
        ("features where pixels were configured", "promise"),
        ("float pixels", "rows"),
        ("larger images", "rows"),
        ("changes training images", "clean rows untouched"),
        ("changes a weight", "clean encoder untouched"),
        ("moves BatchNorm statistics", "clean encoder untouched"),
    ],
)
def test_poison_images_that_cheat_are_refused(how: str, check: str, world: Path, tmp_path: Path) -> None:
    record, refused = judged(world, tmp_path, "cheat", images=True, how=how, carrier="pixels", epsilon=8)
    assert record.status == "failed"
    assert check in refused


@pytest.mark.parametrize(
    ("how", "fields"),
    [
        ("not at all", {}),
        ("at the edge of the box", {}),
        ("not at all", {"constraint": "ball"}),
        ("inside the ball by a hair", {"constraint": "ball"}),
    ],
    ids=str,
)
def test_honest_poison_passes_at_the_very_edge(how: str, fields: dict[str, Any], world: Path, tmp_path: Path) -> None:
    record, refused = judged(world, tmp_path, "cheat", images=False, how=how, **fields)
    assert record.status == "ok", record.error
    assert not refused
    assert record.scores["exact"].poisoned is not None


def test_what_an_attack_raises_is_in_its_record_on_one_line(world: Path, tmp_path: Path) -> None:
    record, _ = judged(world, tmp_path, "cheat", images=False, how="crashes")
    assert record.error is not None
    assert record.error.type == "ZeroDivisionError"
    assert record.error.message.startswith("an attack's own mistake (cheats_fixture.py, line ")
    record, _ = judged(world, tmp_path / "b", "cheat", images=False, how="returns something else")
    assert record.error is not None
    assert "no message" in record.error.message


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("declares nothing", "ledger"),
        ("declares too much", "ledger"),
        ("hidden statistics", "ledger"),
        ("missing tensor", "keys and shapes"),
        ("extra tensor", "keys and shapes"),
        ("another shape", "keys and shapes"),
        ("another dtype", "keys and shapes"),
        ("no tensor", "keys and shapes"),
        ("NaN", "finite"),
        ("edits the victim", "clean encoder untouched"),
        ("edits the rows", "clean rows untouched"),
        ("edits the references", "clean rows untouched"),
    ],
)
def test_poisoned_encoders_that_cheat_are_refused(how: str, check: str, world: Path, tmp_path: Path) -> None:
    record, refused = judged(world, tmp_path, "weight-cheat", images=True, how=how)
    assert record.status == "failed"
    assert record.error is not None
    assert check in refused
    assert check in record.error.message


def test_honest_poisoned_encoder_passes(world: Path, tmp_path: Path) -> None:
    record, refused = judged(world, tmp_path, "weight-cheat", images=True)
    assert record.status == "ok", record.error
    assert not refused
    assert record.target is not None
    assert record.target.true_class != record.target.target_class


def test_a_refused_trial_ends_the_command_with_exit_code_1(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--validation", world / "V.npz", "--test", world / "T.npz", "--budgets", "0.1,0.2", "--seeds", 1]
    code = command(
        "audit", "--features", world / "F.npz", *flags, "--attacks", "cheat:how=NaN,label-flip", "--out", tmp_path
    )
    assert code == 1
    printed = capsys.readouterr()
    assert "2 of 5 trials failed" in printed.err
    assert "Traceback" not in printed.err
    found = trials_in(tmp_path).values()
    assert [record.status for record in found] == ["ok", "failed", "failed", "ok", "ok"]
    assert (tmp_path / "report.html").is_file()


def test_the_checks_that_passed_are_kept_beside_the_one_that_did_not(world: Path, tmp_path: Path) -> None:
    record, _ = judged(world, tmp_path, "cheat", images=False, how="far outside the box")
    names = {check.name: check.ok for check in record.referee}
    assert names == {
        "budget": True,
        "labels": True,
        "rows": True,
        "ledger": True,
        "promise": True,
        "constraint box": False,
        "clean rows untouched": True,
    }
    assert record.ledger is not None
    assert record.ledger.added == math.floor(0.1 * 90)
