from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from foretaste.audits.grid import plan
from foretaste.audits.prepare import PreparedAudit, prepare
from foretaste.audits.runner import perform
from foretaste.data import load, split
from foretaste.record import unpack_labels
from foretaste.runtime import digest_tensors
from tests.audits.audit_fixture import CLASSES, Watched, audit, command, feature_audit, image_audit, numbers
from tests.audits.cheats_fixture import SEEN

RIDGE = 1e-3
EXACT = {"name": "exact", "steps": 6}


@pytest.fixture(autouse=True)
def unseen(cheats: None) -> None:
    SEEN.clear()


def rows_of(tensors: list[torch.Tensor], shape: torch.Size) -> set[bytes]:
    """Every row of the given shape, by its bytes."""
    return {row.numpy().tobytes() for tensor in tensors if tensor.shape[1:] == shape for row in tensor}


def sklearn_accuracy(train: list[dict[str, Any]], test: dict[str, Any]) -> float:
    """The head's objective in scikit-learn's words; a column of ones, because its own bias is not regularised."""
    z, y = (np.concatenate([np.asarray(part[key]) for part in train]) for key in ("z", "y"))
    scaler = StandardScaler().fit(z.astype(np.float64))
    x, x_test = (np.hstack([scaler.transform(rows), np.ones((len(rows), 1))]) for rows in (z, test["z"]))
    head = LogisticRegression(C=1 / (RIDGE * len(z)), fit_intercept=False, tol=1e-10, max_iter=5000).fit(x, y)
    return float((head.predict(x_test) == test["y"]).mean())


@pytest.mark.parametrize("attack", ["label-flip", "exact"])
def test_scores_are_those_of_scikit_learn_on_the_poison_that_the_command_writes(
    attack: str, world: Path, tmp_path: Path
) -> None:
    flags = ["--steps", 6] if attack == "exact" else []
    files = {name: dict(np.load(world / f"{name}.npz")) for name in "FVT"}
    common = ["--features", world / "F.npz", "--validation", world / "V.npz"]
    poison = tmp_path / "poison.npz"
    assert command("attack", attack, *common, "--budget", 0.3, "--seed", 1, "--out", poison, *flags) == 0
    chosen = {"name": attack, **({"steps": 6} if attack == "exact" else {})}
    outcome = audit(feature_audit(world, attacks=[chosen], budgets=[0.3], seeds=2), tmp_path / "audit")
    clean, _, record = outcome.records
    added = dict(np.load(poison))
    assert len(added["y"]) == 27 == record.ledger.added
    content = {"rows": torch.from_numpy(added["z"]), "y": torch.from_numpy(added["y"])}
    assert record.digests["poison"] == digest_tensors(content)

    scores = record.scores["exact"]
    one_row = 1 / len(files["T"]["y"]) + 1e-9
    before, after = (sklearn_accuracy([files["F"], *more], files["T"]) for more in ([], [added]))
    assert scores.clean.value == clean.scores["exact"].clean.value
    assert scores.clean.value == pytest.approx(before, abs=one_row)
    assert scores.poisoned.value == pytest.approx(after, abs=one_row)
    assert scores.change.value == pytest.approx(scores.poisoned.value - scores.clean.value)

    clipped = {**added, "z": added["z"].clip(files["F"]["z"].min(0), files["F"]["z"].max(0))}
    if "exact, clipped" in record.scores:
        after = sklearn_accuracy([files["F"], clipped], files["T"])
        assert record.scores["exact, clipped"].poisoned.value == pytest.approx(after, abs=one_row)
    else:
        np.testing.assert_array_equal(clipped["z"], added["z"])


def test_clipping_is_scored_where_the_poison_leaves_the_clean_range(world: Path, tmp_path: Path) -> None:
    outcome = audit(feature_audit(world, attacks=[{**EXACT, "constraint": "none", "rate": 2}], seeds=1), tmp_path)
    assert list(outcome.records[1].scores) == ["exact", "exact, clipped"]


def test_scores_follow_from_the_packed_predictions(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=["label-flip", "weight-cheat"], probes=["exact", "knn", "sgd:epochs=2"])
    clean, *others = audit(spec, tmp_path).records
    truth = unpack_labels(clean.truth)
    np.testing.assert_array_equal(truth, np.load(world / "images.npz")["y_test"])
    assert list(clean.scores) == ["exact", "knn", "sgd"]
    for key, scores in clean.scores.items():
        assert scores.clean.value == (unpack_labels(clean.predictions[key]) == truth).mean()
        assert scores.clean.n == 60
    for record in others:
        assert list(record.scores) == ["exact", "knn", "sgd"]
        for key, scores in record.scores.items():
            assert scores.poisoned.value == (unpack_labels(record.predictions[key]) == truth).mean()
            assert scores.change.low <= scores.change.value <= scores.change.high
    target = others[-1].target
    before, after = (unpack_labels(record.predictions["exact"]) for record in (clean, others[-1]))
    assert (target.clean_prediction, target.poisoned_prediction) == (before[target.index], after[target.index])
    assert target.eligible and target.true_class == truth[target.index]
    assert target.collateral.value == np.delete(before != after, target.index).mean()
    assert target.success == (after[target.index] == target.target_class)


def test_attacks_on_labelled_data_never_receive_a_test_row(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=["spy"], seeds=2)
    prepared = prepare(spec)
    audit(spec, tmp_path)
    given = np.load(world / "images.npz")
    test_pixels = torch.from_numpy(given["x_test"]).permute(0, 3, 1, 2).contiguous()
    assert not rows_of(SEEN, test_pixels.shape[1:]) & rows_of([test_pixels], test_pixels.shape[1:])
    width = prepared.setting.test.z.shape[1:]
    assert not rows_of(SEEN, width) & rows_of([prepared.setting.test.z], width)
    # The spy did see what an attacker may see, so the test above can fail.
    assert rows_of(SEEN, width) == rows_of([prepared.setting.train.z, prepared.setting.parts["validation"].z], width)


def test_attacks_on_features_from_files_never_receive_a_test_row(world: Path, tmp_path: Path) -> None:
    audit(feature_audit(world, attacks=["spy"]), tmp_path)
    shape = torch.Size([6])
    files = {name: torch.from_numpy(np.load(world / f"{name}.npz")["z"]) for name in "FVT"}
    assert rows_of(SEEN, shape) == rows_of([files["F"], files["V"]], shape)
    assert not rows_of(SEEN, shape) & rows_of([files["T"]], shape)


def test_attacks_on_weights_see_their_one_image_and_no_other_test_row(world: Path, tmp_path: Path) -> None:
    outcome = audit(image_audit(world, attacks=["weight-spy"], targets=3), tmp_path)
    targets = [record.target.index for record in outcome.records[1:]]
    parts = split(load(str(world / "images.npz")), image_audit(world).split)
    shape = parts.test.pixels.shape[1:]
    chosen = parts.test.pixels[torch.tensor(targets)]
    assert rows_of(SEEN, shape) & rows_of([parts.test.pixels], shape) == rows_of([chosen], shape)
    assert rows_of(SEEN, shape) == rows_of([chosen, parts.validation.pixels], shape)
    for index, record in enumerate(outcome.records[1:]):
        references = SEEN[3 * index + 1]
        wanted = parts.validation.labels == record.target.target_class
        assert torch.equal(references, parts.validation.pixels[wanted])


def test_nothing_of_the_defender_reaches_an_attack(world: Path, tmp_path: Path) -> None:
    audit(image_audit(world, attacks=["spy", "weight-spy"]), tmp_path)
    parts = split(load(str(world / "images.npz")), image_audit(world).split)
    shape = parts.clean.pixels.shape[1:]
    assert len(parts.clean) and not rows_of(SEEN, shape) & rows_of([parts.clean.pixels], shape)


def everything(prepared: PreparedAudit) -> str:
    """A digest of the victim's encoder with all its buffers and flags, its images and its features."""
    encoder, images = prepared.setting.encoder, prepared.setting.images
    assert encoder is not None and images is not None
    tensors = {f"state {key}": value for key, value in encoder.state_dict().items()}
    tensors |= {f"buffer {key}": value for key, value in encoder.named_buffers()}
    tensors |= {
        f"{name} {part}": getattr(rows, part) for name, rows in prepared.setting.parts.items() for part in ("z", "y")
    }
    tensors |= {f"{name} pixels": getattr(images, name).pixels for name in ("train", "validation", "clean", "test")}
    modes = str([module.training for module in encoder.modules()] + [p.requires_grad for p in encoder.parameters()])
    return digest_tensors(tensors) + modes


@pytest.mark.parametrize(
    "attack",
    [
        "label-flip",
        EXACT,
        {**EXACT, "carrier": "pixels"},
        {"name": "pacl", "steps": 2, "batch": 16},
        {"name": "cheat", "carrier": "pixels", "how": "moves BatchNorm statistics"},
        {"name": "cheat", "carrier": "pixels", "how": "changes a weight"},
        {"name": "cheat", "carrier": "pixels", "how": "changes training images"},
        {"name": "cheat", "how": "changes training features"},
        {"name": "weight-cheat", "how": "edits the victim"},
        {"name": "weight-cheat", "how": "edits the rows"},
    ],
    ids=str,
)
def test_the_victim_is_bit_identical_before_and_after_every_attack(attack: Any, world: Path, tmp_path: Path) -> None:
    prepared = prepare(image_audit(world, attacks=[attack], probes=["exact", "sgd:epochs=2", "knn"]))
    before = everything(prepared)
    for trial in plan(prepared):
        perform(prepared, trial, tmp_path, Watched())
        assert everything(prepared) == before


def test_the_same_spec_gives_the_same_record(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=["label-flip", {**EXACT, "carrier": "pixels", "steps": 2}])
    one, two = (audit(spec, tmp_path / name).records for name in "ab")
    assert numbers(one) == numbers(two)


def test_record_holds_what_reproduces_it(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=[{**EXACT, "carrier": "pixels", "epsilon": 8}])
    clean, record = audit(spec, tmp_path).records
    assert record.spec["attack"]["epsilon"] == 8
    assert record.spec["base"]["data"] == str(world / "images.npz")
    assert record.spec["base"]["probes"][0] == {"name": "exact", "ridge": RIDGE}
    assert record.encoder.sha256 == record.spec["inputs"]["encoder"]
    assert set(clean.digests) >= {"train", "test", "encoder", "train features"}
    assert record.data.rows == {"train": 60, "validation": 48, "clean": 12, "test": 60}
    assert record.data.chance == pytest.approx(1 / CLASSES)
    assert {"attack", "referee", "embed", "probes"} <= set(record.seconds)
    assert {"controls", "embed", "fit"} <= set(clean.seconds)
    assert {"torch", "numpy", "foretaste", "python"} <= set(record.versions)
    assert {"cpu", "cores", "device"} <= set(record.machine)
    assert len(record.exhibits) == 6 and all("8 of 255" in shown.caption for shown in record.exhibits)
    assert len(record.projection.poison) == 6 and len(record.projection.clean) == 60
