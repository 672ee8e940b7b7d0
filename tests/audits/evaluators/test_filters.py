"""Filters in an audit: the referee's thresholds, what is dropped, what the head is then worth, and who knows what."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from foretaste.audits.calibration import halves, threshold
from foretaste.audits.defender import configured_defences
from foretaste.audits.evaluators.base import Case
from foretaste.audits.evaluators.filters import BASELINE, OWN, Outcome
from foretaste.audits.grid import plan
from foretaste.audits.prepare import PreparedAudit, prepare
from foretaste.audits.spec import AuditSpec
from foretaste.audits.training import TrainingSet
from foretaste.defences import configure
from foretaste.defences.base import TrainingRows
from foretaste.errors import DataError, SpecError
from foretaste.features.file import FeatureSet
from foretaste.record import Screening, TrialRecord, json_schema, unpack_labels
from foretaste.report import render
from foretaste.report.summary import summarise
from foretaste.report.tables.defences import filters
from foretaste.statistics import auroc
from tests.audits.audit_fixture import audit, command, feature_audit, identities, image_audit, mixed, trained_on
from tests.audits.test_trial import sklearn_accuracy

BOX = {"name": "exact", "steps": 6}
ONE_ROW = 1 / 75 + 1e-9


# Thresholds.


@pytest.mark.parametrize(
    ("k", "rate", "rank"),
    [
        (99, 0.01, 99),
        (100, 0.01, 100),
        (199, 0.01, 198),
        (199, 0.05, 190),
        (19, 0.05, 19),
        (10, 0.05, 10),
        (1, 0.01, 1),
    ],
)
def test_threshold_is_an_order_statistic(k: int, rate: float, rank: int) -> None:
    scores = torch.from_numpy(np.random.default_rng(0).permutation(k) + 1.0)
    assert threshold(scores, rate) == rank


@pytest.mark.parametrize(("k", "rate"), [(99, 0.01), (150, 0.01), (40, 0.05), (400, 0.05)])
def test_a_further_clean_row_exceeds_it_at_most_at_the_rate(k: int, rate: float) -> None:
    """Of k + 1 rows of one kind each in turn is the further one: the exact chance; no lower one keeps the rate."""
    ranks = torch.arange(k + 1, dtype=torch.float64)
    alarms = sum(float(ranks[i]) > threshold(ranks[ranks != i], rate) for i in range(k + 1))
    assert alarms / (k + 1) <= rate < (alarms + 1) / (k + 1) + 1e-12


def test_halves_share_out_every_class() -> None:
    y = torch.tensor([0, 1, 0, 1, 1, 0, 0, 2, 2])
    own = FeatureSet(torch.arange(18.0).reshape(9, 2), y, ("a", "b", "c"), "own")
    reference, calibration = halves(own)
    both = torch.cat([reference.z, calibration.z])
    assert sorted(both[:, 0].tolist()) == own.z[:, 0].tolist()
    assert torch.bincount(reference.y).tolist() == [2, 2, 1] and torch.bincount(calibration.y).tolist() == [2, 1, 1]
    alone, nothing = halves(own.take(torch.tensor([4])))
    assert len(alone) == 1 and len(nothing) == 0


# In an audit.


def naive_sphere(z: Any, y: Any) -> Any:
    return np.array([math.dist(row, z[y == label].mean(0)) for row, label in zip(z, y, strict=True)])


def test_scores_thresholds_and_heads_are_the_naive_ones(world: Path, tmp_path: Path) -> None:
    """Features from files: no clean part, so that the clean twin sets the thresholds."""
    common = ["--features", world / "F.npz", "--validation", world / "V.npz", "--budget", 0.2, "--seed", 0]
    flags = ["--steps", 6, "--out", tmp_path / "p.npz"]
    assert command("attack", "exact", *common, *flags) == 0
    spec = feature_audit(world, attacks=[BOX], budgets=[0.2], defences=["sphere"])
    clean, record = audit(spec, tmp_path / "audit").records
    train, test, added = (dict(np.load(path)) for path in (world / "F.npz", world / "T.npz", tmp_path / "p.npz"))
    z, y = (np.concatenate([train[key], added[key]]) for key in ("z", "y"))
    before, after = naive_sphere(train["z"].astype(float), train["y"]), naive_sphere(z.astype(float), y)
    found, twin = record.defences["sphere"], clean.defences["sphere"]
    assert found.calibration == twin.calibration == BASELINE and found.calibration_rows == len(before) == 90
    assert found.filter == {"name": "sphere", "reference": "all"}
    pairs = [(a > b) + 0.5 * (a == b) for a in after[90:] for b in after[:90]]
    assert found.auroc is not None and found.auroc.value == pytest.approx(np.mean(pairs))
    assert twin.auroc is None
    for rate, mine, theirs in zip((0.01, 0.05), found.alarms, twin.alarms, strict=True):
        limit = sorted(before)[min(90, math.ceil(91 * (1 - rate))) - 1]
        assert mine.rate == theirs.rate == rate
        assert mine.threshold == theirs.threshold == pytest.approx(limit)
        assert mine.poison is not None and theirs.poison is None and theirs.scores.poisoned is None
        assert mine.poison.value == pytest.approx(np.mean(after[90:] > limit)) and mine.poison.n == 18
        assert mine.clean.value == pytest.approx(np.mean(after[:90] > limit)) and mine.clean.n == 90
        assert theirs.clean.value == pytest.approx(np.mean(before > limit * (1 + 1e-9))) and theirs.clean.value <= rate
        kept = after <= limit
        assert len(set(y[kept])) == 3
        assert mine.scores.poisoned is not None and mine.scores.change is not None
        for part, score, rows in (
            (mine, mine.scores.poisoned, {"z": z[kept], "y": y[kept]}),
            (theirs, theirs.scores.clean, {key: train[key][before <= limit * (1 + 1e-9)] for key in ("z", "y")}),
        ):
            assert score.value == pytest.approx(sklearn_accuracy([rows], test), abs=ONE_ROW)
            assert score.value == pytest.approx(np.mean(unpack_labels(part.predictions) == test["y"]))
        assert mine.scores.clean == theirs.scores.clean
    validator = jsonschema.Draft202012Validator(json_schema())
    for one in (clean, record):
        validator.validate(one.model_dump(mode="json"))
        assert TrialRecord.model_validate_json(one.model_dump_json()) == one
    assert any("90 calibration rows cannot set a false-alarm rate of 1%" in text for text in clean.warnings)


@pytest.fixture(scope="module")
def prepared(world: Path) -> PreparedAudit:
    """With a clean part: images."""
    return prepare(image_audit(world, attacks=["label-flip"], defences=["sphere", "influence"]))


def poisoned(prepared: PreparedAudit, rows: int = 9) -> TrainingSet:
    train = prepared.setting.train
    return mixed(prepared, train.z[:rows] * 3, (train.y[:rows] + 1) % 3)


def screened(prepared: PreparedAudit, rows: TrainingSet) -> dict[str, Outcome]:
    return prepared.defender.filters.run(trained_on(prepared, rows), prepared.baseline, Case())


def screening(prepared: PreparedAudit, rows: TrainingSet, found: dict[str, Outcome]) -> dict[str, Screening]:
    victim = trained_on(prepared, rows)
    return prepared.defender.filters.findings(victim, found, prepared.baseline, Case()).entries["defences"]


@pytest.mark.parametrize("key", ["sphere", "influence"])
def test_the_clean_part_is_for_reference_and_for_calibration(prepared: PreparedAudit, key: str) -> None:
    train = poisoned(prepared)
    every = screened(prepared, train)
    found = every[key]
    reference, held = halves(prepared.setting.parts["clean"])
    assert not set(map(tuple, held.z.tolist())) & set(map(tuple, reference.z.tolist()))
    rows = TrainingRows(
        torch.cat([train.z, held.z]), torch.cat([train.y, held.y]), 3, prepared.spec.ridge, reference.z, reference.y
    )
    scores = configure(key, {}).score(rows)
    assert torch.equal(found.scores, scores[: len(train.y)]) and torch.equal(found.calibration, scores[len(train.y) :])
    assert found.thresholds == [float(found.calibration.max())] * 2  # too few for either rate
    entry = screening(prepared, train, every)[key]
    assert (entry.calibration, entry.calibration_rows) == (OWN, len(held))
    kept = ~found.flagged[0]  # the head is fitted to training rows alone
    head = prepared.setting.probes["exact"].fit(train.z[kept], train.y[kept], 3, 0, prepared.setting.runtime)
    assert torch.equal(head.predict(prepared.setting.test.z), found.predictions[0])


def test_filters_do_not_see_which_rows_are_poison(prepared: PreparedAudit) -> None:
    train = poisoned(prepared)
    other = replace(train, poison=train.poison.flip(0))
    honest, blind = (screened(prepared, one) for one in (train, other))
    for key, one in honest.items():
        assert torch.equal(one.scores, blind[key].scores) and one.thresholds == blind[key].thresholds
        for place in range(2):
            assert torch.equal(one.flagged[place], blind[key].flagged[place])
            assert torch.equal(one.predictions[place], blind[key].predictions[place])
        told, mistaken = (screening(prepared, *pair)[key].auroc for pair in ((train, honest), (other, blind)))
        assert told != mistaken


def test_a_class_that_would_vanish_is_kept_with_a_warning(world: Path) -> None:
    prepared = prepare(feature_audit(world, defences=["norm"]))
    at = (prepared.setting.train.y == 1).nonzero()[:, 0]
    train = prepared.setting.train
    found = screened(prepared, mixed(prepared, train.z[at] * 1e4, train.y[at], at))["norm"]
    assert found.notes("norm") == [
        f"norm at {rate}: every row of class 1 would have been dropped; they were kept" for rate in ("1%", "5%")
    ]
    assert not any(flagged[at].any() for flagged in found.flagged)


def test_a_filter_that_drops_a_whole_class_of_clean_rows_is_refused_before_any_trial(
    world: Path, tmp_path: Path
) -> None:
    """A class of two clean rows far away: no poison did that, so the user is told what to pass."""
    rows = np.load(world / "F.npz")
    z, y = rows["z"].copy(), rows["y"]
    few = np.flatnonzero(y == 1)[:2]
    z[few] *= 1e4
    kept = np.sort(np.concatenate([np.flatnonzero(y != 1), few]))
    np.savez(tmp_path / "F.npz", **{**rows, "z": z[kept], "y": y[kept]})
    spec = feature_audit(world, features=tmp_path / "F.npz", defences=["norm"])
    expected = "norm at a false-alarm rate of 5% keeps a clean row of every class; got none of the 2 of class 1; "
    with pytest.raises(DataError, match=expected + "pass more training rows of class 1, or drop norm"):
        audit(spec, tmp_path / "out")
    assert not (tmp_path / "out" / "record.jsonl").exists()


def test_clean_rows_that_a_filter_needs_are_asked_for_before_any_trial(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="influence: clean rows of the defender's own; got none"):
        audit(feature_audit(world, defences=["influence"]), tmp_path / "out")
    assert not (tmp_path / "out" / "record.jsonl").exists()


# What is said, and what is shown.


def test_without_defences_every_trial_keeps_its_identity(world: Path) -> None:
    plain, other = feature_audit(world), feature_audit(world, defences=["norm"])
    assert "defences" not in plain.base() and plain == feature_audit(world, defences=[])
    found = [identities(plan(prepare(spec))) for spec in (plain, other)]
    assert not set(found[0]) & set(found[1])
    assert plan(prepare(other))[1].spec.base["defences"] == [{"name": "norm"}]


def test_a_spec_with_defences_is_read_back() -> None:
    spec = AuditSpec.make({"defences": ["sphere", "spectral:centred=false", {"name": "spectral"}]})
    assert list(configured_defences(spec)) == ["sphere", "spectral:centred=False", "spectral"]
    assert AuditSpec.make({"defences": list(configured_defences(spec))}) == spec


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["spere"], "defence: one of sphere, slab, .*; got 'spere'"),
        (["sphere", "sphere"], "defences: each one once; got sphere, sphere; drop one"),
        (["knn:k=0"], "knn: fields k; got k = 0"),
    ],
)
def test_wrong_defences(said: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        configured_defences(AuditSpec.make({"defences": said}))


def test_the_command_and_the_report(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    files = ["--features", "F.npz", "--validation", "V.npz", "--test", "T.npz", "--budgets", 0.2, "--seeds", 2]
    flags = ["--attacks", "label-flip", "--out", tmp_path / "out", "--defences"]
    assert command("audit", *files, *flags, "spere") == 2
    assert "defence: one of sphere" in capsys.readouterr().err
    assert command("audit", *files, *flags, "sphere,spectral:centred=false") == 0
    page = (tmp_path / "out" / "report.md").read_text()
    assert (
        "| attack | budget | filter | without | AUROC | accuracy at 1 % | poison dropped at 1 % | clean dropped |"
        in page
    )
    assert page.count("| spectral:centred=False |") == 2  # the clean twin's line and the attack's


def test_the_table_pairs_seeds_with_the_twin_under_the_same_filter(world: Path, tmp_path: Path) -> None:
    spec = feature_audit(world, attacks=["label-flip"], budgets=[0.3], seeds=2, defences=["sphere"])
    records = audit(spec, tmp_path).records
    twin, *trials = records
    shown = filters(summarise(records))
    assert shown is not None
    assert [line.cells[:3] for line in shown.lines] == [
        ["none (clean twin)", "0 %", "sphere"],
        ["label-flip", "30 %", "sphere"],
    ]
    truth = unpack_labels(twin.truth)
    for place, column in ((0, 5), (1, 8)):
        right = [unpack_labels(t.defences["sphere"].alarms[place].predictions) == truth for t in (twin, *trials)]
        cell = shown.lines[1].cells[column]
        assert cell.startswith(f"{100 * np.mean(right[1:]):.1f} [")
        change = round(100 * (np.mean(right[1:]) - np.mean(right[0])), 1)
        assert cell.endswith(f"({change:+.1f})".replace("-", "−") if change else "(0.0)")
    assert "Filters of the training rows" in render(records).html
    assert filters(summarise([r.model_copy(update={"defences": {}}) for r in records])) is None


def test_auroc_counts_pairs_and_its_interval_covers() -> None:
    random = np.random.default_rng(0)
    high, low = random.integers(2, 9, 40), random.integers(0, 7, 70)
    naive = np.mean([(a > b) + 0.5 * (a == b) for a in high for b in low])
    assert auroc(high, low).value == pytest.approx(naive)
    covered, truth = 0, 0.7602499  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt(2))
    for _ in range(400):
        found = auroc(random.normal(1, 1, 30), random.normal(0, 1, 90))
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98
    perfect, lost = auroc(np.ones(20), np.zeros(50)), auroc(np.zeros(20), np.ones(50))
    assert (perfect.value, perfect.high, lost.value, lost.low) == (1, 1, 0, 0)
    assert 0.8 < perfect.low < 0.9 and lost.high == pytest.approx(1 - perfect.low)
    assert 0 <= auroc(np.ones(1), np.array([0, 2])).low <= 0.5
    with pytest.raises(ValueError, match="both kinds"):
        auroc(np.ones(0), np.ones(3))
