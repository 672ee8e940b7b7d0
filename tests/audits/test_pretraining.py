"""Trials of poisoned pre-training images: shared runs, the twin that went on learning without poison, the referee."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from foretaste.audits import threats
from foretaste.audits.auxiliary_data import budgeted, open_pool
from foretaste.audits.cost import estimate_seconds
from foretaste.audits.grid import configured, plan
from foretaste.audits.prepare import prepare
from foretaste.audits.runner import run
from foretaste.audits.spec import AuditSpec
from foretaste.audits.spec_parts import PretrainingSpec
from foretaste.errors import BudgetError, SpecError
from foretaste.features.embed import embed
from foretaste.pretrain.continued import continued
from foretaste.record import unpack_labels
from foretaste.runtime import digest_tensors
from tests.audits import steered_fixture as fakes
from tests.audits.audit_fixture import Watched, audit, image_audit, numbers
from tests.audits.steered_fixture import steer

CLEAN = 40
QUICK = {"epochs": 1, "batch": 10, "hidden": 8, "projection": 4, "lr": 0.02}


@pytest.fixture(autouse=True)
def unseen(steering: None) -> None:
    fakes.CALLS.clear()
    fakes.SEEN.clear()


def poisoning(world: Path, *attacks: str, **values: Any) -> AuditSpec:
    fixed = {"pretraining": {"data": str(world / "pool.npz"), **QUICK}, "budgets": [0.2]}
    return steer(world, *attacks, **{**fixed, **values})


def learning(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    monkeypatch.setattr(threats, "continued", fakes.Learner(CLEAN, **options))


def test_poison_that_is_learned_by_heart_steers_beside_the_continued_twin(
    lookup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning(monkeypatch, drift=0.3)
    spec = poisoning(lookup, "pairs:together=2", targets=2, probes=["exact", "knn"])
    clean, *records = audit(spec, tmp_path).records
    prepared = prepare(spec)
    twin = fakes.Learner(CLEAN, 0.3)(prepared.setting.encoder, prepared.pool.images, None, 0, None)
    images, runtime = prepared.setting.images, prepared.setting.runtime
    train, test = (embed(twin, part.pixels, runtime) for part in (images.train, images.test))
    truth = prepared.setting.test.y
    for record in records:
        assert record.threat == "pretraining" and record.target.success
        assert record.digests["continued encoder"] == twin.sha256()
        for key, probe in prepared.setting.probes.items():
            before = probe.fit(train, prepared.setting.train.y, 3, 0, prepared.setting.runtime).predict(test)
            after = unpack_labels(record.predictions[key])
            found, scores = record.target.probes[key], record.scores[key]
            assert found.clean_prediction == before[record.target.index]
            assert found.eligible == (before[record.target.index] == truth[record.target.index])
            assert scores.clean.value == pytest.approx(float((before == truth).float().mean()))
            # Both learned the same drift: but for the two images by heart, nothing differs from the twin.
            targets = [one.target.index for one in records]
            assert np.delete(before.numpy() != after, targets).sum() == 0
    # The drift moved predictions of the original encoder, so the comparison above is not with that one.
    assert (
        clean.predictions["knn"] != ""
        and digest_tensors(twin.body.state_dict()) != prepared.setting.encoder.card.sha256
    )


def test_an_image_that_learning_alone_steers_counts_as_base_rate(
    lookup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = poisoning(lookup, "pairs:together=1", targets=1)
    prepared = prepare(spec)
    row, wanted = plan(prepared)[1].spec.target
    images = prepared.setting.images.train
    always = ([prepared.setting.images.test.pixels[row]], [images.pixels[images.labels == wanted]])
    learning(monkeypatch, always=always)
    clean, record = audit(spec, tmp_path).records
    assert unpack_labels(clean.predictions["exact"])[row] == prepared.setting.test.y[row]
    assert record.target.success and record.target.clean_success and not record.target.eligible
    assert record.target.clean_prediction == wanted


def test_a_group_shares_one_poisoned_run_and_all_share_the_twin_of_their_seed(
    lookup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning(monkeypatch)
    records = audit(poisoning(lookup, "pairs:together=2", targets=3, budgets=[0.2, 0.4]), tmp_path).records[1:]
    assert [record.seed for record in records] == [0, 1, 2] * 2
    assert [details for name, details in fakes.CALLS if name == "pairs"] == [
        (2, 8, 0),
        (1, 8, 2),
        (2, 16, 0),
        (1, 16, 2),
    ]
    learned = [details for name, details in fakes.CALLS if name == "continued"]
    assert sorted(learned) == [(40, 0), (40, 2), (48, 0), (48, 2), (56, 0), (56, 2)]
    assert [record.target.together for record in records] == [2, 2, 1] * 2
    assert all(record.target.success for record in records)
    shown = torch.stack([record_image(lookup, record.target.index) for record in records])
    assert torch.equal(torch.stack(fakes.SEEN), shown)


def record_image(world: Path, row: int) -> torch.Tensor:
    return torch.from_numpy(np.load(world / "images.npz")["x_test"][row]).permute(2, 0, 1)


def test_an_interrupted_group_ends_as_one_that_was_not(
    lookup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning(monkeypatch, drift=0.1)
    spec = poisoning(lookup, "pairs:together=2", targets=3)
    whole = audit(spec, tmp_path / "whole").records

    class Stopping(Watched):
        def started(self, label: str) -> None:
            if len(self.records) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "again", Stopping())
    assert numbers(run(spec, tmp_path / "again", Watched()).records) == numbers(whole)


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("one image too many", "budget"),
        ("all for one pair", "shares"),
        ("no pair", "shares"),
        ("floats", "images"),
        ("larger images", "images"),
        ("undeclared", "ledger"),
        ("claims to change images", "ledger"),
        ("changes the pool", "clean images untouched"),
        ("changes a target", "clean images untouched"),
        ("changes references", "clean images untouched"),
    ],
)
def test_cheating_poison_is_refused_before_anything_learns_from_it(
    how: str, check: str, lookup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning(monkeypatch)
    records = audit(poisoning(lookup, f"pairs:together=2:how={how}", targets=2), tmp_path).records[1:]
    for record in records:
        assert record.error.type == "RefereeError" and record.target is None
        assert check in [one.name for one in record.referee if not one.ok]
    assert not [name for name, _ in fakes.CALLS if name == "continued"]


def test_with_simclr_the_twin_is_what_continued_makes_of_the_same_images(world: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool.npz"
    random = np.random.default_rng(0)
    np.savez(pool, x=random.integers(0, 256, (30, 8, 8, 3)).astype(np.uint8), y=np.arange(30) % 3)
    spec = image_audit(
        world, attacks=["poisoned-encoder:together=2"], pretraining={"data": str(pool), **QUICK}, targets=2
    )
    records = audit(spec, tmp_path / "audit").records[1:]
    prepared = prepare(spec)
    twin = continued(prepared.setting.encoder, prepared.pool.images, prepared.pool.method, 0, prepared.setting.runtime)
    assert {record.digests["continued encoder"] for record in records} == {twin.sha256()}
    assert all(record.status == "ok" and record.ledger.added == 3 for record in records)
    assert "pre-training" in records[0].seconds and "pre-training" not in records[1].seconds
    assert numbers(audit(spec, tmp_path / "again").records[1:]) == numbers(records)


def test_the_pool_leaves_out_test_rows_and_keeps_its_limit(lookup: Path, tmp_path: Path) -> None:
    given = np.load(lookup / "images.npz")
    path = tmp_path / "mixed.npz"
    np.savez(path, x=np.concatenate([given["x_train"], given["x_test"][:7]]), y=np.zeros(127, int) + np.arange(127) % 3)
    test = prepare(steer(lookup, "copies")).setting.images.test
    pool = open_pool(PretrainingSpec(data=str(path), epochs=2), test)
    # The file has no test part of its own: all of it is to be learned from, but for the audit's test rows.
    assert len(pool.images) == 120 and pool.method.epochs == 2
    assert not {row.tobytes() for row in pool.images.pixels.numpy()} & {row.tobytes() for row in test.pixels.numpy()}
    few = open_pool(PretrainingSpec(data=str(path), limit=20), test)
    again = open_pool(PretrainingSpec(data=str(path), limit=20), test)
    assert len(few.images) == 20 and few.images.digest == again.images.digest
    assert {row.tobytes() for row in few.images.pixels.numpy()} < {r.tobytes() for r in pool.images.pixels.numpy()}


def test_identities_know_the_pool_and_the_group_only_where_there_is_one(lookup: Path) -> None:
    plain = plan(prepare(steer(lookup, "by-heart", "copies")))
    assert all("group" not in trial.spec.entry() and "pretraining" not in trial.spec.base for trial in plain)
    spec = poisoning(lookup, "pairs:together=2", targets=3)
    trials = plan(prepare(spec))
    assert trials[1].spec.base["pretraining"]["epochs"] == 1
    assert trials[1].spec.base["pretraining"]["temperature"] == 0.2  # defaults too: a later one makes another trial
    assert "pretraining" in trials[1].spec.inputs
    entries = [trial.spec.entry().get("group") for trial in trials[1:]]
    assert entries[0] == entries[1] and entries[0]["first"] == 0 and len(entries[0]["pairs"]) == 2 and not entries[2]
    grown = plan(prepare(spec.model_copy(update={"targets": 4})))
    mine, theirs = ([trial.spec.identity for trial in one[1:]] for one in (trials, grown))
    assert mine[:2] == theirs[:2] and mine[2] not in theirs  # its run has another pair now
    assert estimate_seconds(prepare(spec), trials) > 0
    assert AuditSpec.make(yaml.safe_load(spec.to_yaml())) == spec


def test_what_pretraining_needs_is_said_before_any_work(lookup: Path) -> None:
    with pytest.raises(SpecError, match=r"pretraining: the images that pairs adds to; got none; pass .*--pretraining"):
        configured(steer(lookup, "pairs"))
    with pytest.raises(SpecError, match="epoch = 3"):
        configured(poisoning(lookup, "pairs", pretraining=f"{lookup / 'pool.npz'},epoch=3"))
    with pytest.raises(SpecError, match=r"no pretraining\.data"):
        poisoning(lookup, "pairs", pretraining={"epochs": 3})
    with pytest.raises(SpecError, match="attacks on the labelled data"):
        configured(poisoning(lookup, "pairs", attacker={"rows": "subset"}))
    with pytest.raises(BudgetError, match=r"one for each of the 2 pairs of a run; got 0.04; pass at least 0.05"):
        plan(prepare(poisoning(lookup, "pairs:together=2", targets=2, budgets=[0.04])))
    assert budgeted(0.29, 100) == 29
