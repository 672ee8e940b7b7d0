"""Countermeasures against naive loops and scikit-learn, on planted outliers, and what the audit makes of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestCentroid

from foretaste.audits.evaluators.base import Case
from foretaste.audits.evaluators.preprocessing import CLIPS, FILTERS, Outcome, spare_classes
from foretaste.audits.grid import plan
from foretaste.audits.prepare import PreparedAudit, prepare
from foretaste.audits.spec import AuditSpec
from foretaste.audits.spec_parts import COUNTERMEASURES, chosen_countermeasures
from foretaste.audits.training import TrainingSet
from foretaste.errors import SpecError
from foretaste.features.embed import embed
from foretaste.record import TrialRecord, read, unpack_labels
from foretaste.report import render
from foretaste.report.summary import summarise
from tests.audits.audit_fixture import (
    audit,
    command,
    feature_audit,
    identities,
    image_audit,
    make_world,
    mixed,
    trained_on,
    trials_in,
)
from tests.audits.test_trial import sklearn_accuracy

ALL = ["clipped", "pixel-clipped", "norm-filtered", "centroid-filtered"]
ON_FEATURES = ["clipped", "norm-filtered", "centroid-filtered"]
FREE = {"name": "exact", "steps": 6, "constraint": "none", "rate": 2}
ONE_ROW = 1 / 75 + 1e-9


def rows(n: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    y = random.integers(3, size=n)
    return (random.normal(size=(n, 4)) * (1 + y[:, None]) + 5 * y[:, None]).astype(np.float32), y


def quantile(values: list[float], share: float) -> float:
    """Linear between order statistics (type 7 of Hyndman and Fan)."""
    ordered, place = sorted(values), share * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def naive_norms(z: Any, y: Any, own_z: Any, own_y: Any) -> list[bool]:
    norms = [math.sqrt(sum(float(value) ** 2 for value in row)) for row in own_z]
    low, high = quantile(norms, 0.005), quantile(norms, 0.995)
    return [low <= math.sqrt(sum(float(value) ** 2 for value in row)) <= high for row in z]


def naive_centroids(z: Any, y: Any, own_z: Any, own_y: Any) -> list[bool]:
    centroids = NearestCentroid().fit(own_z.astype(np.float64), own_y)
    centre = dict(zip(centroids.classes_.tolist(), centroids.centroids_, strict=True))
    limit = {
        label: quantile([math.dist(row, centre[label]) for row in own_z[own_y == label].astype(float)], 0.99)
        for label in centre
    }
    return [
        math.dist(row.astype(float), centre[label]) <= limit[label] for row, label in zip(z, y.tolist(), strict=True)
    ]


NAIVE = {"norm-filtered": naive_norms, "centroid-filtered": naive_centroids}


def test_every_name_has_a_function_and_the_other_way_round() -> None:
    assert {*CLIPS, *FILTERS} == set(COUNTERMEASURES) == set(ALL)
    assert set(NAIVE) == set(FILTERS)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("own", [True, False], ids=["clean reference", "mixed reference"])
def test_filters_are_the_naive_ones(name: str, own: bool) -> None:
    z, y = rows(400, 1)
    own_z, own_y = rows(150, 2) if own else (z, y)
    kept = FILTERS[name](*map(torch.from_numpy, (z, y, own_z, own_y)))
    assert kept.dtype == torch.bool
    assert kept.tolist() == NAIVE[name](z, y, own_z, own_y)
    assert 0 < int((~kept).sum()) < 40


@pytest.mark.parametrize("name", FILTERS)
def test_planted_outliers_are_dropped_and_counted(name: str) -> None:
    """Rows planted far away are all dropped; of the clean ones only the share that the quantiles ask for."""
    z, y = rows(3000, 1)
    far = np.full((30, 4), 500, np.float32)
    mixed_z, mixed_y = np.concatenate([z, far]), np.concatenate([y, np.arange(30) % 3])
    kept = FILTERS[name](*map(torch.from_numpy, (mixed_z, mixed_y, *rows(3000, 2))))
    assert not kept[3000:].any()
    assert 0.003 < float((~kept[:3000]).double().mean()) < 0.02


def test_the_centroid_filter_looks_at_the_label_that_a_row_carries() -> None:
    z, y = rows(3000, 1)
    moved = np.where(np.arange(3000) < 60, (y + 2) % 3, y)  # labels flipped; the features stay inside the cloud
    far = (moved != y) & (np.abs(moved - y) == 2)
    kept = FILTERS["centroid-filtered"](*map(torch.from_numpy, (z, moved, *rows(3000, 2)))).numpy()
    assert far.any() and (~kept[far]).mean() > 0.9
    assert kept[~(moved != y)].mean() > 0.97
    same = FILTERS["norm-filtered"](*map(torch.from_numpy, (z, moved, *rows(3000, 2)))).numpy()
    assert same[far].mean() > 0.9  # the norm does not see the label


def test_a_label_without_reference_rows_stays() -> None:
    z, y = rows(100, 1)
    own_z, own_y = rows(100, 2)
    kept = FILTERS["centroid-filtered"](
        *map(torch.from_numpy, (z + 1000 * (y[:, None] == 2), y, own_z[own_y != 2], own_y[own_y != 2]))
    ).numpy()
    assert kept[y == 2].all()
    assert not kept[y != 2].all()


def test_no_class_is_emptied() -> None:
    y = torch.tensor([0, 0, 1, 1, 2])
    kept, spared = spare_classes(torch.tensor([True, False, False, False, False]), y)
    assert kept.tolist() == [True, False, True, True, True]
    assert spared == [1, 2]
    kept, spared = spare_classes(torch.ones(5, dtype=torch.bool), y)
    assert kept.all() and spared == []


def test_channels_are_clipped_one_by_one() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (6, 3, 4, 5), dtype=np.uint8)
    reference = np.stack([random.integers(low, low + 60, (7, 4, 5)) for low in (20, 90, 180)], 1).astype(np.uint8)
    found = CLIPS["pixel-clipped"](torch.from_numpy(pixels), torch.from_numpy(reference))
    assert found.dtype == torch.uint8
    for channel in range(3):
        low, high = reference[:, channel].min(), reference[:, channel].max()
        for image, clipped in zip(pixels, found.numpy(), strict=True):
            for before, after in zip(image[channel].ravel(), clipped[channel].ravel(), strict=True):
                assert after == min(max(before, low), high)


# In an audit.


def test_filters_score_like_scikit_learn_on_the_rows_that_the_naive_filter_keeps(world: Path, tmp_path: Path) -> None:
    common = ["--features", world / "F.npz", "--validation", world / "V.npz"]
    flags = ["--steps", 6, "--constraint", "none", "--rate", 2]
    poison = tmp_path / "poison.npz"
    assert command("attack", "exact", *common, "--budget", 0.3, "--seed", 0, "--out", poison, *flags) == 0
    clean, record = audit(
        feature_audit(world, attacks=[FREE], budgets=[0.3], countermeasures=ON_FEATURES), tmp_path / "audit"
    ).records
    assert list(record.scores) == ["exact", *(f"exact, {name}" for name in ON_FEATURES)]
    assert list(clean.scores) == ["exact", "exact, norm-filtered", "exact, centroid-filtered"]
    train, test, added = (dict(np.load(path)) for path in (world / "F.npz", world / "T.npz", poison))
    for name, naive in NAIVE.items():
        key = f"exact, {name}"
        for twin, parts in ((True, [train]), (False, [train, added])):
            z, y = (np.concatenate([np.asarray(part[letter]) for part in parts]) for letter in ("z", "y"))
            kept = np.array(naive(z, y, z, y))  # files of features leave the defender no rows of its own
            assert len(set(y[kept])) == 3
            expected = sklearn_accuracy([{"z": z[kept], "y": y[kept]}], test)
            shown = (clean if twin else record).scores[key]
            assert (shown.clean if twin else shown.poisoned).value == pytest.approx(expected, abs=ONE_ROW)
            lost = (clean if twin else record).dropped[key]
            assert lost.reference == "mixed training rows"
            assert (lost.clean.value, lost.clean.n) == ((~kept[:90]).mean(), 90)
            if twin:
                assert lost.poison is None
            else:
                assert (lost.poison.value, lost.poison.n) == ((~kept[90:]).mean(), 27)
        before, after = (unpack_labels(one.predictions[key]) == test["y"] for one in (clean, record))
        assert record.scores[key].change.value == pytest.approx(after.mean() - before.mean())


def countered(prepared: PreparedAudit, rows: TrainingSet) -> dict[str, Outcome]:
    return prepared.defender.preprocessing.run(trained_on(prepared, rows), prepared.baseline, Case())


def test_thresholds_come_from_the_defenders_own_rows_where_there_are_some(world: Path) -> None:
    prepared = prepare(image_audit(world, attacks=["label-flip"], countermeasures=ALL))
    own, train = prepared.setting.parts["clean"], prepared.setting.train
    far = torch.full((5, train.z.shape[1]), 1e4)
    found = countered(prepared, mixed(prepared, far, torch.arange(5) % 3))
    assert list(found) == ["exact, clipped", "exact, norm-filtered", "exact, centroid-filtered"]
    for name, naive in NAIVE.items():
        lost = found[f"exact, {name}"].dropped
        expected = np.array(naive(*(tensor.numpy() for tensor in (train.z, train.y, own.z, own.y))))
        assert lost.reference == "defender's clean rows"
        assert lost.poison.value == 1
        assert lost.clean.value == (~expected).mean()


def test_each_score_stands_beside_the_clean_twin_under_the_same_countermeasure(world: Path, tmp_path: Path) -> None:
    """The defender's 12 rows make narrow thresholds: the clean head loses rows, and so other predictions."""
    spec = image_audit(world, attacks=["label-flip"], countermeasures=["norm-filtered", "centroid-filtered"])
    clean, record = audit(spec, tmp_path).records
    truth = unpack_labels(clean.truth)
    headline = unpack_labels(clean.predictions["exact"])
    others = [key for key in record.scores if (unpack_labels(clean.predictions[key]) != headline).any()]
    assert others
    for key in others:
        before, after = (unpack_labels(one.predictions[key]) == truth for one in (clean, record))
        assert clean.scores[key].clean.value == record.scores[key].clean.value == before.mean()
        assert record.scores[key].change.value == pytest.approx(after.mean() - before.mean())
        assert clean.dropped[key].clean.value > 0
    assert any(clean.scores[key].clean != clean.scores["exact"].clean for key in others)


def test_rows_that_poison_replaces_are_counted_as_poison(world: Path) -> None:
    prepared = prepare(feature_audit(world, countermeasures=["norm-filtered"]))
    at = torch.tensor([7, 3, 50])
    rows, train = mixed(prepared, torch.full((3, 6), 1e3), prepared.setting.train.y[at], at), prepared.setting.train
    assert len(rows.y) == len(rows.z) == 90 and rows.poison.nonzero()[:, 0].tolist() == [3, 7, 50]
    assert torch.equal(rows.z[~rows.poison], train.z[~rows.poison])
    assert torch.equal(rows.y, train.y) and (rows.z[at] == 1e3).all()
    lost = countered(prepared, rows)["exact, norm-filtered"].dropped
    assert (lost.poison.n, lost.clean.n) == (3, 87)


def test_filters_do_not_see_which_rows_are_poison(world: Path) -> None:
    prepared = prepare(feature_audit(world, countermeasures=["norm-filtered", "centroid-filtered"]))
    rows = mixed(prepared, prepared.setting.train.z[:9] * 3, (prepared.setting.train.y[:9] + 1) % 3)
    honest = countered(prepared, rows)
    blind = countered(prepared, replace(rows, poison=rows.poison.flip(0)))
    for key, one in honest.items():
        assert torch.equal(one.predictions, blind[key].predictions)


def test_a_class_that_would_vanish_is_kept_with_a_warning(world: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(world / "F.npz"))
    arrays["z"][arrays["y"] == 0] *= 1e-3  # the smallest norms; of 90 rows the quantile alone would not take 30
    np.savez(tmp_path / "F.npz", **arrays)
    prepared = prepare(feature_audit(world, features=tmp_path / "F.npz", countermeasures=["norm-filtered"]))
    clean = prepared.setting.train.take((prepared.setting.train.y != 0).nonzero()[:, 0])
    setting = replace(prepared.setting, parts={**prepared.setting.parts, "clean": clean})
    victim = replace(prepared.victim, setting=setting)
    one = prepared.defender.preprocessing.run(victim, None, Case())["exact, norm-filtered"]
    assert one.notes == ["norm-filtered: every row of class 0 would have been dropped; they were kept"]
    assert one.dropped.clean.value < 1 / 3


def dim_world(folder: Path) -> Path:
    """As the world, but no clean image is brighter than 200 or darker than 50, in a file of its own."""
    found = dict(np.load(folder / "images.npz"))
    for part in ("train", "test"):
        found[f"x_{part}"] = found[f"x_{part}"].clip(50, 200)
    np.savez(folder / "dim.npz", **found)
    return folder


def test_clipped_pixels_are_embedded_again(tmp_path: Path) -> None:
    world = dim_world(make_world(tmp_path))
    attack = {"name": "exact", "carrier": "pixels", "steps": 8, "rate": 0.5}
    spec = image_audit(world, data=str(world / "dim.npz"), attacks=[attack], countermeasures=ALL, budgets=[0.3])
    prepared = prepare(spec)
    clean, record = audit(spec, tmp_path / "out").records
    key = "exact, pixel-clipped"
    assert key in record.scores and key not in clean.scores
    assert record.scores[key].clean == clean.scores["exact"].clean
    assert key not in record.dropped
    made = plan(prepared)[1].attack.poison(prepared.view.lend(prepared.setting), 18, 0)
    assert int(made.pixels.min()) < 50 and int(made.pixels.max()) > 200
    limits = prepared.setting.images.clean.pixels
    clipped = CLIPS["pixel-clipped"](made.pixels, limits)
    z = torch.cat([prepared.setting.train.z, embed(prepared.setting.encoder, clipped, prepared.setting.runtime)])
    y = torch.cat([prepared.setting.train.y, made.y])
    probe = prepared.setting.probes["exact"].fit(z, y, 3, 0, prepared.setting.runtime)
    expected = float((probe.predict(prepared.setting.test.z) == prepared.setting.test.y).double().mean())
    assert record.scores[key].poisoned.value == pytest.approx(expected, abs=1 / 60 + 1e-9)


def test_a_poison_of_features_has_no_pixels_to_clip(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=[FREE], countermeasures=["pixel-clipped"])
    record = audit(spec, tmp_path).records[1]
    assert list(record.scores) == ["exact"]


# What is said, and what is shown.


@pytest.mark.parametrize("said", [[], ["none"], "none"])
def test_none(said: Any, world: Path, tmp_path: Path) -> None:
    spec = feature_audit(world, attacks=[FREE], countermeasures=said)
    assert spec.countermeasures == ()
    assert list(audit(spec, tmp_path).records[1].scores) == ["exact"]
    assert AuditSpec.read(tmp_path / "audit.yaml").countermeasures == ()


def test_the_default_keeps_every_identity_and_others_do_not(world: Path) -> None:
    plain, said = feature_audit(world), feature_audit(world, countermeasures=["clipped"])
    assert plain == said
    assert "countermeasures" not in plain.base()
    found = [identities(plan(prepare(spec))) for spec in (plain, feature_audit(world, countermeasures=ON_FEATURES))]
    turned = identities(plan(prepare(feature_audit(world, countermeasures=ON_FEATURES[::-1]))))
    assert not set(found[0]) & set(found[1])
    assert turned == found[1]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["cliped"], "clipped, pixel-clipped, norm-filtered, centroid-filtered, none; got 'cliped'"),
        (["clipped", "clipped"], "each one once"),
        (["none", "clipped"], "`none` alone"),
    ],
)
def test_wrong_names(said: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        chosen_countermeasures(said)
    with pytest.raises(SpecError, match=r"^audit.yaml: countermeasures"):
        AuditSpec.make({"countermeasures": said}, "audit.yaml")


def test_the_command(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    files = ["--features", "F.npz", "--validation", "V.npz", "--test", "T.npz", "--budgets", 0.2, "--seeds", 2]
    flags = ["--attacks", "exact:steps=6:constraint=none:rate=2"]
    for wrong in ("cliped", "pixel-clipped", "none,clipped"):
        assert command("audit", *files, *flags, "--countermeasures", wrong, "--out", tmp_path / "x") == 2
        error = capsys.readouterr().err
        assert "countermeasures" in error and "Traceback" not in error
    assert not (tmp_path / "x").exists()
    assert command("audit", *files, *flags, "--countermeasures", ",".join(ON_FEATURES), "--out", tmp_path / "y") == 0
    assert "exact, centroid-filtered" in capsys.readouterr().out
    report = (tmp_path / "y" / "report.md").read_text()
    assert "| thresholds from | poison dropped | clean dropped |" in report
    records = read(tmp_path / "y")
    summary = summarise(records)
    row = summary.rows[0]
    clean = next(iter(trials_in(tmp_path / "y").values()))
    for name in ON_FEATURES[1:]:
        cell = row.cells[f"exact, {name}"]
        assert cell.clean == clean.scores[f"exact, {name}"].clean
        assert cell.change.method == "paired bootstrap over rows and 2 seeds 0.95"
    assert not any("scores differ" in warning.text for warning in summary.warnings)
    assert "poison dropped" in render(records).html


def test_records_from_before_still_load(world: Path, tmp_path: Path) -> None:
    record = audit(feature_audit(world), tmp_path).records[1]
    old = record.model_dump(mode="json", exclude={"dropped"})
    assert TrialRecord.model_validate(old) == record
