"""Certified heads in an audit: naive votes and bounds, the referee's check, identities, and the bracket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.audits.evaluators.base import Case
from foretaste.audits.evaluators.certified import Outcome
from foretaste.audits.grid import plan
from foretaste.audits.prepare import PreparedAudit, prepare
from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.base import Certified
from foretaste.defences.certified.dpa import DPA, partition
from foretaste.errors import DataError
from foretaste.heads.fit import fit_head
from foretaste.record import TrialRecord, read, unpack_labels
from foretaste.report import render
from foretaste.report.summary import summarise
from foretaste.report.tables.certified import steps, table
from tests.audits.audit_fixture import audit, command, feature_audit, identities, image_audit, mixed, trained_on

HEADS = ["dpa:partitions=9", "bagging:learners=50:bag=10"]


@pytest.fixture(scope="module")
def records(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    spec = feature_audit(
        world, attacks=["label-flip", {"name": "exact", "steps": 4}], budgets=[0.03, 0.1], seeds=2, defences=HEADS
    )
    folder = tmp_path_factory.mktemp("certified") / "out"
    audit(spec, folder)
    return read(folder)


def test_votes_and_bounds_are_the_naive_ones(world: Path, records: list[TrialRecord]) -> None:
    """A head per partition by `fit_head`, one vote each, and the radius by its formula for every test row."""
    train, test = (dict(np.load(world / name)) for name in ("F.npz", "T.npz"))
    z, y = torch.from_numpy(train["z"]), torch.from_numpy(train["y"])
    groups = partition(z, y, 9)
    votes = np.zeros((75, 3), int)
    for rows in groups.rows.split(groups.sizes.tolist()):
        if len(rows):
            votes[np.arange(75), fit_head(z[rows], y[rows], 3, 5e-2).predict(torch.from_numpy(test["z"]))] += 1
    first = votes.argmax(1)
    radius = np.array(
        [min((row[c] - row[o] - (o < c)) // 2 for o in range(3) if o != c) for row, c in zip(votes, first, strict=True)]
    )
    found = records[0].certified["dpa:partitions=9"]
    assert found.radii is not None and found.certain
    assert (unpack_labels(found.predictions) == first).all() and (unpack_labels(found.radii) == radius + 1).all()
    assert [(b.share, b.changes) for b in found.bounds] == [(0.03, 2), (0.1, 9)], "0.1, 0.5 and 1 % leave no row of 90"
    for bound in found.bounds:
        assert bound.accuracy.value == pytest.approx(np.mean((first == test["y"]) & (radius >= bound.changes)))
    assert found.scores.clean.value == pytest.approx(np.mean(first == test["y"]))
    assert found.scores.clean.value > 0.5
    assert found.bounds[0].accuracy.value > 0.1


def test_each_trial_is_held_against_the_certificate(records: list[TrialRecord]) -> None:
    for trial in records[1:]:
        assert trial.status == "ok" and list(trial.certified) == HEADS
        found = trial.certified["dpa:partitions=9"]
        check = next(check for check in trial.referee if check.name == "certificate of dpa:partitions=9")
        assert check.ok and " 0 moved" in check.found
        assert found.scores.poisoned is not None and found.scores.poisoned.value >= found.bounds[0].accuracy.value
        assert not any("bagging" in check.name for check in trial.referee)
        assert found.radii is None and len(found.bounds) == 1 and found.bounds[0].changes in (2, 9)


@pytest.fixture(scope="module")
def prepared(world: Path) -> PreparedAudit:
    return prepare(feature_audit(world, defences=["dpa:partitions=9"]))


def test_a_broken_certificate_is_found(prepared: PreparedAudit) -> None:
    evaluator, key = prepared.defender.certified, "dpa:partitions=9"
    twin = prepared.baseline.outcomes(evaluator)[key].found
    row = int(twin.radii.argmax())
    wrong = twin.predictions.clone()
    wrong[row] = (wrong[row] + 1) % 3
    vote = Outcome(Certified(wrong, twin.radii), int(twin.radii[row]))
    found = evaluator.findings(prepared.victim, {key: vote}, prepared.baseline, Case())
    (check,) = found.checks
    assert not check.ok and check.found.endswith("1 moved")
    assert found.entries["certified"][key].scores.change is not None


def test_what_an_attack_changes_is_counted(prepared: PreparedAudit) -> None:
    """Three rows are replaced: one with other features, one with another label, one with itself."""
    at = torch.tensor([3, 5, 8])
    z, y = prepared.setting.train.z[at].clone(), prepared.setting.train.y[at].clone()
    z[0] += 1
    y[1] = (y[1] + 1) % 3
    for place, changes in ((at, 2 + 1), (None, 3)):
        victim = trained_on(prepared, mixed(prepared, z, y, place))
        found = prepared.defender.certified.run(victim, prepared.baseline, Case())
        assert found["dpa:partitions=9"].changes == changes


def test_open_partitions_are_chosen_before_the_trials(world: Path) -> None:
    spec = feature_audit(world, defences=["dpa"], budgets=[0.02, 0.03])
    prepared = prepare(spec)
    head = prepared.defender.certified.defences["dpa"]
    assert isinstance(head, DPA) and head.partitions in (10,)  # 25 would leave fewer than 4 rows each
    assert plan(prepared)[1].spec.base["defences"] == [head.entry()]
    fixed = prepare(feature_audit(world, defences=["dpa:partitions=10"], budgets=[0.02, 0.03]))
    assert identities(plan(fixed))[1:] == identities(plan(prepared))[1:]


def test_images_use_the_defenders_clean_rows(world: Path) -> None:
    spec = image_audit(world, attacks=["label-flip"], defences=["dpa:partitions=5:standardise=clean"])
    prepared = prepare(spec)
    vote = next(iter(prepared.baseline.outcomes(prepared.defender.certified).values()))
    assert len(vote.found.radii) == 60 and int(vote.found.radii.max()) >= 1


def test_too_few_rows_stop_the_audit_before_its_trials(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dpa: at least 500 training rows, one for each partition; got 90; ask for"):
        audit(feature_audit(world, defences=["dpa:partitions=500"]), tmp_path / "out")


def test_without_certified_heads_identities_stay(world: Path) -> None:
    plain, other = feature_audit(world, defences=["norm"]), feature_audit(world, defences=["norm", HEADS[0]])
    assert plan(prepare(plain))[1].spec.base["defences"] == [{"name": "norm"}]
    kinds: list[dict[str, Any]] = plan(prepare(other))[1].spec.base["defences"]
    assert [kind["name"] for kind in kinds] == ["norm", "dpa"]


def test_command_line(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--features", world / "F.npz", "--validation", world / "V.npz", "--test", world / "T.npz"]
    flags += ["--attacks", "label-flip", "--budgets", "0.05", "--seeds", 1, "--out", tmp_path / "out"]
    assert command("audit", *flags, "--defences", "norm,dpa:partitions=8") == 0
    last = read(tmp_path / "out")[-1]
    assert list(last.defences) == ["norm"] and list(last.certified) == ["dpa:partitions=8"]
    assert "bracket" in (tmp_path / "out" / "report.html").read_text()


# The bracket.


def test_bracket_takes_the_worst_attack_and_the_bound(records: list[TrialRecord]) -> None:
    key = HEADS[0]
    clean, *found = steps(summarise(records), key)
    assert clean.share == 0 and clean.voted is not None
    assert [step.share for step in found] == [0.03, 0.1] and [step.changes for step in found] == [2, 9]
    for step in found:
        trials = [trial for trial in records if trial.budget == step.share]
        assert len(trials) == 4
        plain = {t.attack: t.scores["exact"].poisoned.value for t in reversed(trials) if t.scores["exact"].poisoned}
        voted = [t.certified[key].scores.poisoned.value for t in trials if t.certified[key].scores.poisoned]
        assert step.plain is not None and step.voted is not None and step.bound is not None
        assert step.plain.accuracy.value <= min(plain.values()) and step.plain.attack.split()[0] in plain
        assert step.voted.accuracy.value == min(voted) >= step.bound.value
        assert step.bound == next(b.accuracy for b in records[0].certified[key].bounds if b.share == step.share)


def test_bracket_is_in_both_reports_with_its_caveat(records: list[TrialRecord]) -> None:
    report = render(records)
    for text in (report.html, report.markdown):
        assert "say nothing about one that was edited" in text
    assert 'id="bracket-0"' in report.html and 'id="bracket-1"' in report.html
    found = table(summarise(records))
    assert found is not None and len(found.lines) == 2 * 3 and all(len(line.cells) == 8 for line in found.lines)
    bare = [record.model_copy(update={"certified": {}}) for record in records]
    assert table(summarise(bare)) is None and "bracket" not in render(bare).markdown


def test_old_records_read(records: list[TrialRecord], tmp_path: Path) -> None:
    import json

    line = json.loads(records[0].model_dump_json())
    del line["certified"]
    assert TrialRecord.model_validate(line).certified == {}


def test_rows_of_a_head_are_all_the_rows(world: Path) -> None:
    """Partitions share out every row once, so that what a trial adds is in the vote."""
    prepared = prepare(feature_audit(world, defences=["dpa:partitions=9"]))
    rows = TrainingRows(prepared.setting.train.z, prepared.setting.train.y, 3)
    assert sorted(partition(rows.z, rows.y, 9).rows.tolist()) == list(range(90))
