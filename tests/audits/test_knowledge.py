"""What the attacker knows: which rows it is shown, what the referee holds it to, and what its poison does."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.audits.artifacts import png
from foretaste.audits.grid import plan
from foretaste.audits.prepare import PreparedAudit, prepare
from foretaste.audits.spec import AuditSpec
from foretaste.audits.spec_parts import AttackerSpec
from foretaste.errors import SpecError
from foretaste.record import TrialRecord, read
from foretaste.report import render
from tests.audits.audit_fixture import audit, command, feature_audit, identities, image_audit, make_world
from tests.audits.cheats_fixture import SEEN

SUBSET, SURROGATE = {"rows": "subset", "share": 0.2}, {"rows": "surrogate"}
PIXELS = {"name": "exact", "carrier": "pixels", "steps": 6, "rate": 0.02}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("world"))
    code = (folder / "net.py").read_text()
    (folder / "other.py").write_text(code.replace("nn.Linear(32, 8)", "nn.Linear(32, 5)"))
    return folder


@pytest.fixture(autouse=True)
def unseen(cheats: None) -> None:
    SEEN.clear()


def other(world: Path) -> dict[str, Any]:
    return {"encoder": f"{world / 'other.py'}:make"}


def as_set(rows: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in rows}


def pairs(rows: torch.Tensor, labels: torch.Tensor) -> set[tuple[bytes, int]]:
    return {(row.numpy().tobytes(), int(label)) for row, label in zip(rows, labels, strict=True)}


# Which rows.


@pytest.mark.parametrize("kind", ["images", "features"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.33, 1.0])
def test_a_subset_is_a_share_of_each_class(kind: str, share: float, world: Path) -> None:
    make = image_audit if kind == "images" else feature_audit
    spec = make(world, attacks=["label-flip"], attacker={"rows": "subset", "share": share})
    prepared = prepare(spec)
    known, train = prepared.view.lend(prepared.setting), prepared.setting.train
    assert pairs(known.z, known.y) <= pairs(train.z, train.y)
    assert len(as_set(known.z)) == len(known.y)  # no row twice
    for label in range(3):
        count, of = int((known.y == label).sum()), int((train.y == label).sum())
        assert count >= 1 and abs(count - share * of) <= 1
    assert known.victim_rows == len(train)
    assert torch.equal(known.validation_z, prepared.setting.parts["validation"].z)
    if known.images is not None:
        shown = pairs(prepared.setting.images.train.pixels, prepared.setting.images.train.labels)
        assert pairs(known.images.pixels, known.images.labels) <= shown
        assert torch.equal(known.images.labels, known.y)
        rows = {
            pixels.tobytes(): z for pixels, z in zip(prepared.setting.images.train.pixels.numpy(), train.z, strict=True)
        }
        for pixels, z in zip(known.images.pixels.numpy(), known.z, strict=True):
            assert torch.equal(rows[pixels.tobytes()], z)  # aligned
    again, whole = (prepare(one).view.rows.z for one in (spec, full(spec)))
    assert torch.equal(again, known.z)
    assert not torch.equal(again, whole) or share == 1


def full(spec: AuditSpec) -> AuditSpec:
    return spec.model_copy(update={"attacker": AttackerSpec()})


@pytest.mark.parametrize("kind", ["images", "features"])
def test_a_surrogate_is_half_of_the_attackers_own_rows(kind: str, world: Path) -> None:
    make = image_audit if kind == "images" else feature_audit
    prepared = prepare(make(world, attacks=["label-flip"], attacker=SURROGATE))
    known, own = prepared.view.lend(prepared.setting), prepared.setting.parts["validation"]
    rows, rest = pairs(known.z, known.y), pairs(known.validation_z, known.validation_y)
    assert not rows & rest
    assert rows | rest == pairs(own.z, own.y)
    assert not rows & pairs(prepared.setting.train.z, prepared.setting.train.y)
    for label in range(3):
        assert abs(int((known.y == label).sum()) - int((known.validation_y == label).sum())) <= 2
    assert known.victim_rows == len(prepared.setting.train)
    if known.images is not None:
        shown = pairs(prepared.setting.images.validation.pixels, prepared.setting.images.validation.labels)
        assert pairs(known.images.pixels, known.images.labels) < shown


def test_by_default_the_attacker_knows_all(world: Path) -> None:
    prepared = prepare(feature_audit(world))
    known = prepared.view.lend(prepared.setting)
    assert torch.equal(known.z, prepared.setting.train.z) and torch.equal(
        known.validation_z, prepared.setting.parts["validation"].z
    )
    assert known.victim_rows is None


def test_too_few_rows_for_a_surrogate(world: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(world / "V.npz"))
    np.savez(tmp_path / "V.npz", z=arrays["z"][:3], y=arrays["y"][:3])
    with pytest.raises(SpecError, match="two validation rows of some class; got 3 validation rows"):
        prepare(feature_audit(world, validation=tmp_path / "V.npz", attacker=SURROGATE))


def test_a_surrogate_encoder_gives_the_attacker_its_own_features(world: Path) -> None:
    prepared = prepare(image_audit(world, attacks=[PIXELS], attacker={**SUBSET, **other(world)}))
    known = prepared.view.lend(prepared.setting)
    assert prepared.setting.train.z.shape[1] == 8 and known.z.shape[1] == known.validation_z.shape[1] == 5
    with torch.no_grad():
        expected = known.encoder(known.images.pixels.float() / 255)
    torch.testing.assert_close(known.z, expected, rtol=1e-4, atol=1e-5)
    assert known.encoder.sha256() == prepared.inputs()["attacker encoder"] != prepared.setting.encoder.sha256()
    assert known.victim_rows == 60 and 9 <= len(known.y) <= 15


# What the referee holds it to.


def judged(world: Path, folder: Path, cheat: dict[str, Any], attacker: Any, *, images: bool = False) -> TrialRecord:
    make = image_audit if images else feature_audit
    return audit(make(world, attacks=[{"name": "cheat", **cheat}], attacker=attacker), folder).records[1]


def refused(record: TrialRecord) -> list[str]:
    return [check.name for check in record.referee if not check.ok]


def test_the_box_is_that_of_the_known_rows(world: Path, tmp_path: Path) -> None:
    """One ulp outside the known range and well inside the victim's."""
    prepared = prepare(feature_audit(world, attacker=SUBSET))
    assert float(prepared.view.rows.z[:, 0].max()) < 0.95 * float(prepared.setting.train.z[:, 0].max())
    assert refused(judged(world, tmp_path / "a", {"how": "outside the box by one ulp"}, SUBSET)) == ["constraint box"]
    honest = judged(world, tmp_path / "b", {"how": "outside the box by one ulp"}, {"rows": "full"})
    assert refused(honest) == ["constraint box"]


def test_at_the_edge_of_the_known_box_it_is_inside(world: Path, tmp_path: Path) -> None:
    """The edge of the surrogate rows lies outside the victim's range, and that is all the attacker can know."""
    prepared = prepare(feature_audit(world, attacker=SURROGATE))
    assert (prepared.view.rows.z.amax(0) > prepared.setting.train.z.amax(0)).any()
    record = judged(world, tmp_path, {"how": "at the edge of the box"}, SURROGATE)
    assert record.status == "ok", record.error
    assert record.ledger.added == 9  # floor(0.1 * 90), of the victim's rows and not of the 30 that are known


@pytest.mark.parametrize("attacker", [SUBSET, SURROGATE], ids=lambda attacker: attacker["rows"])
def test_the_ball_is_that_of_the_known_rows(attacker: dict[str, Any], world: Path, tmp_path: Path) -> None:
    """One side of its edge or the other decides, though the victim's ball ends elsewhere."""
    cheat = {"constraint": "ball"}
    inside = judged(world, tmp_path / "a", {**cheat, "how": "inside the ball by a hair"}, attacker)
    assert inside.status == "ok", inside.error
    outside = judged(world, tmp_path / "b", {**cheat, "how": "outside the ball by little"}, attacker)
    assert refused(outside) == ["constraint ball"]


@pytest.mark.parametrize(
    ("cheat", "images", "check"),
    [
        ({"how": "a base that it does not know"}, False, "ledger"),
        ({"how": "one row too many"}, False, "budget"),
        ({"how": "outside the ball by little", "constraint": "ball"}, False, "constraint ball"),
        ({"how": "changes training features"}, False, "clean rows untouched"),
        ({"how": "changes validation rows"}, False, "clean rows untouched"),
        ({"how": "changes training images", "carrier": "pixels"}, True, "clean rows untouched"),
        ({"how": "beyond epsilon by one level", "carrier": "pixels", "epsilon": 8}, True, "range and L-inf ball"),
    ],
    ids=lambda value: value["how"] if isinstance(value, dict) else "",
)
def test_cheats_of_an_attacker_who_knows_less(
    cheat: dict[str, Any], images: bool, check: str, world: Path, tmp_path: Path
) -> None:
    record = judged(world, tmp_path, cheat, SUBSET, images=images)
    assert record.status == "failed"
    assert check in refused(record)


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("changes a weight", "clean encoder untouched"),
        ("moves BatchNorm statistics", "clean encoder untouched"),
        ("features where pixels were configured", "rows"),
        ("not at all", None),
    ],
)
def test_cheats_with_an_encoder_of_its_own(how: str, check: str | None, world: Path, tmp_path: Path) -> None:
    record = judged(world, tmp_path, {"how": how, "carrier": "pixels"}, other(world), images=True)
    assert (record.status == "ok") == (check is None), record.error
    assert check is None or check in refused(record)


def test_features_of_another_encoder_are_no_poison_even_with_the_right_width(world: Path, tmp_path: Path) -> None:
    same = {"encoder": f"{world / 'net.py'}:make"}
    record = audit(image_audit(world, attacks=["spy"], attacker=same), tmp_path).records[1]
    assert refused(record) == ["rows"]


# Whole audits.


def base_rows(prepared: PreparedAudit, record: TrialRecord) -> list[int]:
    index = {png(image): row for row, image in enumerate(prepared.view.images.pixels)}
    return [index[shown.base_png] for shown in record.exhibits]


@pytest.mark.parametrize("kind", ["full", "subset", "surrogate", "encoder", "subset and encoder"])
def test_audits_of_every_kind_end_well(kind: str, world: Path, tmp_path: Path) -> None:
    rows = {"subset": SUBSET, "surrogate": SURROGATE, "subset and encoder": SUBSET}.get(kind, {})
    attacker = {**rows, **(other(world) if "encoder" in kind else {})}
    chosen: list[Any] = ["label-flip", {**PIXELS, "epsilon": 8}]
    chosen += [] if "encoder" in kind else [{"name": "exact", "steps": 3}]
    spec = image_audit(world, attacks=chosen, attacker=attacker, countermeasures=["clipped", "norm-filtered"])
    outcome = audit(spec, tmp_path)
    assert not outcome.failures, outcome.failures[0].error
    prepared = prepare(spec)
    for record in outcome.records[1:]:
        assert record.ledger.added == 6
        assert set(record.ledger.changed) <= set(range(len(prepared.view.rows)))
    pixels = outcome.records[2]
    assert pixels.exhibits and set(base_rows(prepared, pixels)) <= set(pixels.ledger.changed)
    assert all(base64.b64decode(shown.poison_png) for shown in pixels.exhibits)
    # label-flip by hand: known images under other labels, through the victim's encoder, beside all of its rows.
    known = prepared.view.lend(prepared.setting)
    made = plan(prepared)[1].attack.poison(known, 6, 0)
    with torch.no_grad():
        added = prepared.setting.encoder(made.pixels.float() / 255)
    z, y = torch.cat([prepared.setting.train.z, added]), torch.cat([prepared.setting.train.y, made.y])
    head = prepared.setting.probes["exact"].fit(z, y, 3, 0, prepared.setting.runtime)
    expected = float((head.predict(prepared.setting.test.z) == prepared.setting.test.y).double().mean())
    assert outcome.records[1].scores["exact"].poisoned.value == pytest.approx(expected, abs=1 / 60 + 1e-9)


@pytest.mark.parametrize("attacker", [SUBSET, SURROGATE], ids=lambda attacker: attacker["rows"])
def test_attacks_receive_nothing_else(attacker: dict[str, Any], world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=["spy"], attacker=attacker)
    audit(spec, tmp_path)
    prepared = prepare(spec)
    seen = {row.numpy().tobytes() for tensor in SEEN if tensor.ndim == 4 for row in tensor}
    assert seen == as_set(prepared.view.images.pixels)
    features = {row.numpy().tobytes() for tensor in SEEN if tensor.ndim == 2 for row in tensor}
    assert features == as_set(prepared.view.rows.z) | as_set(prepared.view.validation.z)


def test_with_a_tenth_of_the_rows_the_exact_attack_beats_label_flip(tmp_path: Path) -> None:
    """The few known rows count for all of the victim's; an attack that takes them at their number overshoots."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 1.6, (3, 6))
    for name, rows in (("F", 600), ("V", 300), ("T", 300)):
        y = np.arange(rows) % 3
        np.savez(tmp_path / f"{name}.npz", z=(centres[y] + random.normal(0, 1, (rows, 6))).astype(np.float32), y=y)
    spec = feature_audit(tmp_path, attacks=["label-flip", "exact:steps=20"], attacker={"rows": "subset"}, seeds=2)
    clean, *flips, first, second = audit(spec, tmp_path / "out").records
    assert len(prepare(spec).view.rows) in range(57, 64)
    flipped = [record.scores["exact"].poisoned.value for record in flips]
    exact = [record.scores["exact"].poisoned.value for record in (first, second)]
    assert max(exact) < min(flipped) - 0.05
    assert min(flipped) > clean.scores["exact"].clean.value - 0.05


# What is said, and what is shown.


def test_the_default_keeps_every_identity_and_others_do_not(world: Path) -> None:
    plain, said = feature_audit(world), feature_audit(world, attacker={"rows": "full"})
    assert plain == said and "attacker" not in plain.base()
    found = [identities(plan(prepare(feature_audit(world, attacker=a)))) for a in ({}, SUBSET, SURROGATE)]
    assert len({one for part in found for one in part}) == 6
    two = [image_audit(world, attacks=["label-flip"], attacker=a) for a in ({}, other(world))]
    assert not set(identities(plan(prepare(two[0])))) & set(identities(plan(prepare(two[1]))))


def test_yaml_gives_the_same_attacker_back(world: Path, tmp_path: Path) -> None:
    for number, attacker in enumerate(({}, SUBSET, SURROGATE, {**SUBSET, **other(world)})):
        spec = image_audit(world, attacks=[PIXELS], attacker=attacker)
        (tmp_path / f"{number}.yaml").write_text(spec.to_yaml())
        again = AuditSpec.read(tmp_path / f"{number}.yaml")
        assert again == spec and again.base() == spec.base()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attacker": {"rows": "some"}}, "attacker.rows = 'some'"),
        ({"attacker": {"share": 0}}, "attacker.share = 0"),
        ({"attacker": {"rows": "subset", "share": 1.5}}, "attacker.share = 1.5"),
        ({"attacker": {"share": 0.5}}, "share is one of rows subset, got rows full"),
        ({"attacker": {"rws": "full"}}, "attacker.rws"),
        (
            {"features": "F.npz", "attacker": {"encoder": "net.py:make"}},
            "without an encoder; got an encoder of its own",
        ),
    ],
    ids=str,
)
def test_wrong_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        AuditSpec.make(values)


def test_the_command(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    images = ["audit", "--data", "images.npz", "--encoder", "net.py:make", "--precision", "float32"]
    small = ["--budgets", 0.1, "--seeds", 1, "--out", tmp_path / "out"]
    for flags, message in {
        ("--attacks", "pacl", "--attacker-rows", "subset"): "attacks on the labelled data",
        ("--attacks", "pacl", "--attacker-encoder", "other.py:make"): "attacks on the labelled data",
        ("--attacks", "exact", "--attacker-encoder", "other.py:make"): "attacks that deliver images",
        ("--attacks", "emn", "--attacker-rows", "subset"): "does not know all training rows; got emn",
        ("--attacks", "label-flip", "--attacker-weights", "w.pth"): "got --attacker-weights without it",
        ("--attacks", "label-flip", "--attacker-rows", "few"): "attacker.rows = 'few'",
        ("--attacks", "label-flip", "--attacker-share", "0.3"): "share is one of rows subset",
        ("--attacks", "label-flip", "--attacker-encoder", "resnet19"): "'resnet19'",
    }.items():
        assert command(*images, *flags, *small) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()
    flags = ["--attacks", "label-flip,exact:carrier=pixels:steps=6:rate=0.02", "--attacker-rows", "subset"]
    flags += ["--attacker-share", 0.25, "--attacker-encoder", "other.py:make"]
    assert command(*images, *flags, *small) == 0
    line = "The attacker knows 25 % of the training rows, and not the encoder: it works on other.py:make."
    assert line in capsys.readouterr().out
    records = read(tmp_path / "out")
    assert line in render(records).html and line in render(records).verdict
    spec = AuditSpec.read(tmp_path / "out" / "audit.yaml")
    assert spec.attacker == AttackerSpec(rows="subset", share=0.25, encoder=spec.attacker.encoder)
    assert spec.attacker.encoder.reference == "other.py:make"
    assert not any(
        "attacker knows" in text for text in render(audit(feature_audit(world), tmp_path / "b").records).verdict
    )
