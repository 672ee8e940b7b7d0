from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import foretaste as ft
from foretaste.defences.certified.dpa import DPA
from foretaste.defences.filters.sphere import Sphere
from foretaste.record import unpack_labels
from tests.api.fixture import parts, rows, victim

QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(scope="module")
def one() -> ft.Victim:
    return victim(probes=["exact", "knn"])


@pytest.fixture(scope="module")
def poisoned(one: ft.Victim) -> ft.Victim:
    return one.poisoned_by(ft.attack("exact", one, budget=0.2, steps=6, **QUIET))


@pytest.fixture(scope="module")
def pictures(world: Path) -> ft.Victim:
    return ft.Victim.from_data(world / "images.npz", encoder=f"{world / 'net.py'}:make", precision="float32")


def test_the_change_is_the_paired_difference(one: ft.Victim, poisoned: ft.Victim) -> None:
    found = ft.compare(one, poisoned)
    assert list(found.probes) == ["exact", "knn"] and found.target is None
    for key, scores in found.probes.items():
        truth = one.truth.numpy()
        before, after = (each.predictions[key].numpy() == truth for each in (one, poisoned))
        paired = after.astype(float) - before.astype(float)
        assert scores.clean.value == pytest.approx(before.mean())
        assert scores.poisoned is not None and scores.poisoned.value == pytest.approx(after.mean())
        assert scores.change is not None and scores.change.value == pytest.approx(paired.mean())
        assert scores.change.n == 90
        # Under half of a percent of the bootstrap's means lies beyond three standard errors of the paired difference.
        error = paired.std() / np.sqrt(90)
        assert abs((scores.change.high - scores.change.low) / 2 - 1.96 * error) < 0.25 * 1.96 * error + 1 / 90
    assert (found.clean, found.poisoned, found.change) == tuple(
        getattr(found.probes["exact"], key) for key in ("clean", "poisoned", "change")
    )
    assert found.change.high < 0, "the attack did harm"
    back = ft.compare(poisoned, one)
    assert back.change.value == pytest.approx(-found.change.value)
    same = ft.compare(one, one).change
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_one_image_by_hand(pictures: ft.Victim) -> None:
    wanted = (int(pictures.truth[4]) + 1) % 3
    edit = ft.attack("pacl", pictures, target=4, wanted=wanted, steps=10, batch=16, **QUIET)
    edited = pictures.edited_by(edit)
    target = ft.compare(pictures, edited, target=np.int64(4), wanted=str(wanted)).target  # type: ignore[arg-type]
    assert target is not None
    before, after = pictures.predictions["exact"], edited.predictions["exact"]
    assert (target.index, target.target_class, target.true_class) == (4, wanted, int(pictures.truth[4]))
    assert target.success == (int(after[4]) == wanted) and target.clean_success == (int(before[4]) == wanted)
    moved = before != after
    moved[4] = False
    assert target.collateral.value == pytest.approx(int(moved.sum()) / (len(moved) - 1))
    stays = ft.compare(pictures, pictures, target=4, wanted=wanted).target
    assert stays is not None and stays.collateral.value == 0 and not stays.success


def test_victims_that_cannot_be_compared(one: ft.Victim, poisoned: ft.Victim) -> None:
    X, y = rows(120)
    others = {**parts(), "test": rows(90, 7)}
    with pytest.raises(ft.SpecError, match="two victims with the same test rows; got other test rows"):
        ft.compare(one, ft.Victim.from_features(X, y, **others, probes=["exact", "knn"]))
    with pytest.raises(ft.SpecError, match="the same probes; got exact, knn and exact"):
        ft.compare(one, victim())
    with pytest.raises(ft.SpecError, match=r"compare: a foretaste\.Victim; got a ndarray"):
        ft.compare(one, X)  # type: ignore[arg-type]
    with pytest.raises(ft.SpecError, match=r"compare: a foretaste\.Victim; got a Crafted"):
        ft.compare(ft.attack("label-flip", one, budget=0.1, **QUIET), one)  # type: ignore[arg-type]
    with pytest.raises(ft.SpecError, match="target and wanted; got one of them; pass both, or neither"):
        ft.compare(one, poisoned, target=1)
    with pytest.raises(ft.SpecError, match="no target, since the victims have no images; got target=1"):
        ft.compare(one, poisoned, target=1, wanted=2)


@pytest.mark.parametrize(
    ("defence", "fields", "value"),
    [
        ("sphere", {"reference": "clean"}, Sphere(reference="clean")),
        ("sphere:reference=clean", {}, Sphere(reference="clean")),
        (Sphere, {"reference": "clean"}, Sphere(reference="clean")),
        ("dpa", {"partitions": 6}, DPA(partitions=6)),
    ],
    ids=str,
)
def test_a_defence_by_name_class_or_value(
    one: ft.Victim, poisoned: ft.Victim, defence: Any, fields: dict[str, Any], value: Any
) -> None:
    assert ft.evaluate(defence, poisoned, baseline=one, **fields) == ft.evaluate(value, poisoned, baseline=one)


def test_the_same_as_an_audit_records_on_features(tmp_path: Path) -> None:
    files = {}
    for name, (X, y) in {"features": rows(120), "validation": parts()["validation"], "test": parts()["test"]}.items():
        files[name] = tmp_path / f"{name}.npz"
        np.savez(files[name], z=X, y=y)
    done = ft.audit(
        **files, attacks=["exact:steps=6"], budgets=[0.2], seeds=1, defences=["sphere", "knn:k=5", "dpa:partitions=6"],
        out=tmp_path / "out", **QUIET,
    )  # fmt: skip
    clean, record = done.records
    own = {name: part for name, part in parts().items() if name != "clean"}
    one = ft.Victim.from_features(*rows(120), **own)
    assert one.accuracy == clean.scores["exact"].clean
    poisoned = one.poisoned_by(ft.attack("exact", one, budget=0.2, steps=6, **QUIET))
    assert ft.compare(one, poisoned).probes["exact"] == record.scores["exact"]
    for name in ("sphere", "knn:k=5"):
        assert ft.evaluate(name, poisoned, baseline=one) == record.defences[name]
        assert ft.evaluate(name, one) == clean.defences[name]
    head = ft.evaluate("dpa", poisoned, baseline=one, partitions=6)
    assert isinstance(head, type(record.certified["dpa:partitions=6"]))
    assert head.scores == record.certified["dpa:partitions=6"].scores
    at_rest = ft.evaluate("dpa", one, partitions=6)
    assert at_rest.radii == clean.certified["dpa:partitions=6"].radii  # type: ignore[union-attr]
    assert at_rest.predictions == clean.certified["dpa:partitions=6"].predictions  # type: ignore[union-attr]


def test_the_same_as_an_audit_records_on_an_encoder(world: Path, pictures: ft.Victim, tmp_path: Path) -> None:
    done = ft.audit(
        data=world / "images.npz", encoder=f"{world / 'net.py'}:make", attacks=["pacl:steps=4:batch=16"], targets=1,
        defences=["clp", "views-vote:votes=4", "weight-statistics"], precision="float32", out=tmp_path / "out", **QUIET,
    )  # fmt: skip
    clean, record = done.records
    assert record.target is not None
    pair: dict[str, Any] = {"target": record.target.index, "wanted": record.target.target_class}
    edited = pictures.edited_by(ft.attack("pacl", pictures, **pair, seed=record.seed, steps=4, batch=16, **QUIET))
    for name, entries in (("clp", "repaired"), ("views-vote:votes=4", "guarded"), ("weight-statistics", "scanned")):
        found = ft.evaluate(name, edited, baseline=pictures, seed=record.seed, **pair)
        assert found == getattr(record, entries)[name], name
    assert ft.evaluate("clp", pictures) == clean.repaired["clp"]


def test_a_certificate_by_hand(one: ft.Victim) -> None:
    """Bounds count the test rows that are right with a radius of at least so many changes."""
    head = ft.evaluate("dpa", one, partitions=12)
    assert isinstance(head, type(head)) and head.radii is not None  # type: ignore[union-attr]
    predictions, radii = unpack_labels(head.predictions), unpack_labels(head.radii) - 1  # type: ignore[union-attr]
    right = predictions == one.truth.numpy()
    for bound in head.bounds:  # type: ignore[union-attr]
        assert bound.accuracy.value == pytest.approx((right & (radii >= bound.changes)).mean())
    assert head.scores.clean.value == pytest.approx(right.mean())  # type: ignore[union-attr]
    assert max(radii) == 6, "of 12 votes 6 have to change, or 5 and a tie"


class Far(ft.Filter):
    name = "far"

    def score(self, rows: ft.TrainingRows, seed: int = 0) -> torch.Tensor:
        return rows.z.double().norm(dim=1)


def test_a_filter_of_ones_own_against_far_rows(one: ft.Victim) -> None:
    class Out(ft.LabelledAttack):
        name = "out"

        def poison(self, known: ft.Knowledge, rows: int, seed: int, progress: Any = None) -> ft.Poisoning:
            return ft.Poisoning(y=known.y[:rows], base=np.arange(rows), z=known.z[:rows] * 50)

    out = one.poisoned_by(ft.attack(Out, one, budget=0.1, **QUIET))
    found = ft.evaluate(Far, out, baseline=one)
    assert found.auroc.value == 1 and [alarm.poison.value for alarm in found.alarms] == [1, 1]  # type: ignore[union-attr]
    assert found.filter["name"] == "far"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"defence": "spere"}, "got 'spere'; did you mean sphere?"),
        ({"defence": "exact"}, "defence: one of sphere, .*; got 'exact'"),
        ({"defence": None}, "defence: a name, a class or a configured value; got a NoneType"),
        ({"defence": int}, "defence builtins:int: a class that extends Filter or"),
        ({"size": 3}, "got size = 3 .*see `foretaste list sphere`"),
        ({"defence": Sphere(), "reference": "all"}, "fields beside a name or a class; got a configured sphere"),
        ({"defence": "clp"}, "since the victim has no encoder; got clp; use Victim.from_data"),
        ({"defence": "dpa", "partitions": 5000}, "dpa: at least 5,000 training rows, one for each partition; got 144"),
        ({"victim": np.eye(3)}, r"evaluate: a foretaste\.Victim; got a ndarray"),
        ({"baseline": np.eye(3)}, r"evaluate: baseline: a foretaste\.Victim; got a ndarray"),
        ({"baseline": None}, "the victim without the attack, beside one that was attacked; got none; pass it as base"),
        ({"null": "x"}, "null: a scan, which compares with clean encoders; got sphere"),
        ({"seed": "x"}, "seed: an integer of at least 0; got 'x'"),
        ({"target": 1}, "target and wanted; got one of them"),
    ],
    ids=str,
)
def test_wrong_evaluations_are_told_in_one_line(
    one: ft.Victim, poisoned: ft.Victim, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ft.ForetasteError, match=message) as raised:
        ft.evaluate(**{"defence": "sphere", "victim": poisoned, "baseline": one, **arguments})
    assert "\n" not in str(raised.value)


def test_a_baseline_that_was_attacked_is_refused(one: ft.Victim, poisoned: ft.Victim) -> None:
    with pytest.raises(ft.SpecError, match="evaluate: baseline: a victim that nobody has attacked"):
        ft.evaluate("sphere", one, baseline=poisoned)
