"""Trials that steer one chosen image, against attacks whose outcome is planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.audits.grid import configured, plan
from foretaste.audits.metrics import copies, nearest
from foretaste.audits.prepare import prepare
from foretaste.audits.run_cache import RunCache
from foretaste.audits.runner import run
from foretaste.errors import SpecError
from foretaste.features.embed import embed
from foretaste.probes.knn import KNNProbe
from foretaste.record import TrialRecord, unpack_labels
from foretaste.runtime import digest_tensors
from tests.audits import steered_fixture as fakes
from tests.audits.audit_fixture import Watched, audit, feature_audit, numbers
from tests.audits.steered_fixture import steer


@pytest.fixture(autouse=True)
def unseen(steering: None) -> None:
    fakes.CALLS.clear()
    fakes.SEEN.clear()


def test_an_encoder_that_knows_one_image_by_heart_steers_it_and_nothing_else(lookup: Path, tmp_path: Path) -> None:
    records = audit(steer(lookup, "by-heart", probes=["exact", "knn"], targets=3), tmp_path).records[1:]
    assert [record.threat for record in records] == ["weights"] * 3
    for record in records:
        target = record.target
        assert target.eligible and target.success and not target.clean_success
        assert list(target.probes) == ["exact", "knn"]
        for key, found in target.probes.items():
            now = unpack_labels(record.predictions[key])
            assert found.success and found.poisoned_prediction == now[target.index] == target.target_class
            assert found.collateral.value == 0 == found.neighbours.value
            assert found.neighbours.n == 20 and found.augmented.n == 16
            # Noise makes every copy another image than the one that it knows.
            assert found.augmented.value == found.clean_augmented.value
            assert record.scores[key].change.value == pytest.approx(-1 / 60)
        assert target.augmented == target.probes["exact"].augmented
        assert record.ledger.passes == 7


def test_copies_of_the_target_with_the_wanted_label_steer_it_and_what_is_near(lookup: Path, tmp_path: Path) -> None:
    spec = steer(lookup, "copies", probes=["exact", "knn:k=5"], budgets=[0.4, 0.1], targets=2)
    clean, *records = audit(spec, tmp_path).records
    assert [(r.threat, r.budget, r.seed) for r in records] == [("targeted", b, s) for b in (0.4, 0.1) for s in (0, 1)]
    assert [details for _, details in fakes.CALLS] == [(24, 0), (24, 1), (6, 0), (6, 1)]
    prepared = prepare(spec)
    for record in records:
        target = record.target
        assert target.probes["exact"].success and target.probes["knn"].success
        near = naive_neighbours(prepared.setting.test.z, target.index)
        for key, found in target.probes.items():
            # Without poison clipping changes nothing, so its twin is the probe itself.
            before = unpack_labels(clean.predictions[key.partition(",")[0]])
            after = unpack_labels(record.predictions[key])
            pulled = [before[i] != target.target_class and after[i] == target.target_class for i in near]
            assert found.neighbours.value == pytest.approx(np.mean(pulled))
            assert found.collateral.value == pytest.approx(np.delete(before != after, target.index).mean())
        assert all(check.ok for check in record.referee) and record.ledger.added == round(60 * record.budget)
        image = prepared.setting.images.test.pixels[target.index]
        views = embed(prepared.setting.encoder, copies(image, target.index), prepared.setting.runtime)
        again = embed(prepared.setting.encoder, image[None], prepared.setting.runtime).expand(record.ledger.added, -1)
        z, y = prepared.setting.train.z, prepared.setting.train.y
        mixed = torch.cat([z, again]), torch.cat([y, torch.full((len(again),), target.target_class)])
        for rows, share in (((z, y), "clean_augmented"), (mixed, "augmented")):
            votes = KNNProbe(k=5).fit(*rows, 3, 0, prepared.setting.runtime).predict(views)
            assert getattr(target.probes["knn"], share).value == (votes == target.target_class).float().mean()
    pairs = [(one.augmented.value, one.clean_augmented.value) for r in records for one in [r.target.probes["exact"]]]
    assert any(share > base for share, base in pairs)
    assert any(one.neighbours.value > 0 for record in records for one in record.target.probes.values())


def naive_neighbours(z: torch.Tensor, row: int) -> list[int]:
    rows = z.double().numpy()
    cosine = [float(a @ rows[row] / np.linalg.norm(a) / np.linalg.norm(rows[row])) for a in rows]
    order = sorted((i for i in range(len(rows)) if i != row), key=lambda i: -cosine[i])
    return order[:20]


def test_nearest_rows_are_those_of_a_plain_loop() -> None:
    z = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    assert set(nearest(z, 3, 20).tolist()) == set(naive_neighbours(z, 3))
    assert len(nearest(z[:5], 0, 20)) == 4


def test_copies_are_shifted_mirrored_and_noisy_but_the_same_every_time() -> None:
    image = torch.arange(3 * 16 * 16).view(3, 16, 16).remainder(200).to(torch.uint8) + 20
    found = copies(image, 5)
    assert torch.equal(found, copies(image, 5)) and not torch.equal(found, copies(image, 6))
    assert found.dtype == torch.uint8 and found.shape == (16, 3, 16, 16)
    padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge").astype(float)
    kinds = set()
    for copy in found.numpy().astype(float):
        fits = [
            (float(np.abs(copy - (view[:, :, ::-1] if flip else view)).mean()), top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            for view in [padded[:, top : top + 16, left : left + 16]]
        ]
        distance, *kind = min(fits)
        assert 2 < distance < 4.5  # the mean of |N(0, 4)| is 3.2
        kinds.add(tuple(kind))
    assert len(kinds) > 8 and {flip for *_, flip in kinds} == {False, True}


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("another label", "wanted label"),
        ("one row too many", "budget"),
        ("changes the target", "target untouched"),
        ("changes training images", "clean rows untouched"),
        ("undeclared", "ledger"),
    ],
)
def test_cheating_rows_are_refused(how: str, check: str, lookup: Path, tmp_path: Path) -> None:
    _, record = audit(steer(lookup, f"copies:how={how}", targets=1), tmp_path).records
    assert record.status == "failed" and record.error.type == "RefereeError" and record.target is None
    assert check in [one.name for one in record.referee if not one.ok]


def test_pairs_of_a_group_share_one_run_and_its_encoder(lookup: Path, tmp_path: Path) -> None:
    spec = steer(lookup, "by-heart:together=3", targets=5)
    records = audit(spec, tmp_path).records[1:]
    assert [details for _, details in fakes.CALLS] == [(3, 0), (2, 3)]
    digests = [record.digests["poisoned encoder"] for record in records]
    assert len(set(digests)) == 2 and len(set(digests[:3])) == 1
    assert [record.target.together for record in records] == [3, 3, 3, 2, 2]
    assert all(record.target.success for record in records)
    assert all("attack" not in record.seconds for record in (records[1], records[2], records[4]))
    # A pair alone in its run is an attack on one image, whatever `together` says.
    fakes.CALLS.clear()
    alone = audit(steer(lookup, "by-heart:together=3", targets=4), tmp_path / "four").records[-1]
    assert fakes.CALLS[-1] == ("by-heart", (1, 3)) and "group" not in alone.spec


def test_a_run_that_failed_or_was_refused_is_so_for_each_of_its_pairs(lookup: Path, tmp_path: Path) -> None:
    for how, kind in (("fails", "ZeroDivisionError"), ("declares nothing", "RefereeError")):
        fakes.CALLS.clear()
        records = audit(steer(lookup, f"by-heart:together=2:how={how}"), tmp_path / how).records[1:]
        assert [record.error.type for record in records] == [kind, kind] and len(fakes.CALLS) == 1
    record = audit(steer(lookup, "by-heart:together=2:how=edits references"), tmp_path / "edits").records[-1]
    assert [check.name for check in record.referee if not check.ok] == ["clean rows untouched"]


def test_an_interrupted_group_is_resumed_to_the_same_records(lookup: Path, tmp_path: Path) -> None:
    spec = steer(lookup, "by-heart:together=3", "copies", targets=4)
    whole = audit(spec, tmp_path / "whole").records

    class Stopping(Watched):
        def started(self, label: str) -> None:
            if len(self.records) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "again", Stopping())
    watched = Watched()
    resumed = run(spec, tmp_path / "again", watched).records
    assert len(watched.labels) == len(whole) - 3
    assert numbers(whole) == numbers(resumed)


def test_one_trial_runs_again_from_its_own_flags(lookup: Path, tmp_path: Path) -> None:
    spec = steer(lookup, "by-heart:together=3", "copies", targets=5, budgets=[0.1, 0.2])
    trials = plan(prepare(spec))
    for trial in trials[1:]:
        flags = dict(zip(trial.flags[::2], trial.flags[1::2], strict=True))
        values: dict[str, Any] = {"targets": int(flags["--targets"])}
        if "--budgets" in flags:
            values["budgets"] = [float(flags["--budgets"])]
        alone = steer(lookup, flags["--attacks"], **values)
        assert trial.spec.identity in {one.spec.identity for one in plan(prepare(alone))}


def test_no_attack_is_given_another_test_row_than_its_targets(lookup: Path, tmp_path: Path) -> None:
    records = audit(steer(lookup, "by-heart:together=2", "copies", targets=3), tmp_path).records[1:]
    pixels = prepare(steer(lookup, "copies")).setting.images.test.pixels
    own = [pixels[record.target.index] for record in records]
    assert all(torch.equal(seen, wanted) for seen, wanted in zip(fakes.SEEN, own, strict=True))


def test_references_may_be_the_training_rows_themselves(lookup: Path, tmp_path: Path) -> None:
    specs = {which: steer(lookup, "by-heart", references=which, targets=1) for which in ("own", "training")}
    prepared_by = {which: prepare(spec) for which, spec in specs.items()}
    assert "references" not in specs["own"].base() and specs["training"].base()["references"] == "training"
    for which, part in (("own", "validation"), ("training", "train")):
        record: TrialRecord = audit(specs[which], tmp_path / which).records[-1]
        prepared = prepared_by[which]
        rows = prepared.setting.parts[part]
        mean = rows.z[rows.y == record.target.target_class].mean(0)
        edited = prepared.setting.encoder
        given = torch.cat([getattr(prepared.setting.images, part).pixels])[rows.y == record.target.target_class]
        state = fakes.taught(edited, [prepared.setting.images.test.pixels[record.target.index]], [given])
        reached = prepared.setting.test.z[record.target.index] + state["added"][0]
        np.testing.assert_allclose(reached, mean, atol=1e-5)
        assert record.digests["poisoned encoder"] == digest_tensors(state)


def test_attacks_on_one_image_need_images(world: Path) -> None:
    for name in ("copies", "pairs", "by-heart"):
        with pytest.raises(SpecError, match="attacks that work on features"):
            configured(feature_audit(world, attacks=[name]))


def test_shared_work_is_kept_by_key_up_to_a_number() -> None:
    made: list[int] = []

    def make(value: int) -> int:
        made.append(value)
        if value < 0:
            raise ValueError(value)
        return 10 * value

    kept = RunCache[int](2)
    assert [kept.get(k, lambda k=k: make(k)) for k in (1, 2, 1, 3, 2, 1)] == [10, 20, 10, 30, 20, 10]
    assert made == [1, 2, 3, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="-1"):
            kept.get("bad", lambda: make(-1))
    assert made == [1, 2, 3, 1, -1]
