"""Repairs, guards and scans in audits of attacks on the encoder, against planted outcomes and naive counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.audits.calibration import halves, threshold
from foretaste.audits.cost import encoder_defences_cost, estimate_seconds
from foretaste.audits.evaluators.guards import share_below
from foretaste.audits.grid import configured, plan
from foretaste.audits.prepare import prepare
from foretaste.audits.spec import AuditSpec
from foretaste.encoders.weights import save_encoder
from foretaste.errors import DataError, EncoderError, SpecError, WeightsError
from foretaste.record import TrialRecord, read, unpack_labels
from foretaste.report import render
from foretaste.report.defended import aims_at
from foretaste.report.summary import pair_row
from foretaste.runtime import digest_tensors
from foretaste.statistics import mean_share, wilson
from tests import records_fixture
from tests.audits import keeping_fixture as keeping
from tests.audits import steered_fixture as fakes
from tests.audits.audit_fixture import audit, command, identities, image_audit, numbers
from tests.audits.steered_fixture import steer


@pytest.fixture(autouse=True)
def planted(steering: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from foretaste import defences

    for name, entry in keeping.TABLE.items():
        monkeypatch.setitem(defences.DEFENCES, name, entry)
    keeping.SEEN.clear()
    fakes.CALLS.clear()


def ran(lookup: Path, folder: Path, *defences: str, attack: str = "by-heart", **values: Any) -> list[TrialRecord]:
    return audit(steer(lookup, attack, defences=list(defences), **values), folder).records


# Repairs.


def test_a_repair_that_restores_the_clean_weights_leaves_no_success(lookup: Path, tmp_path: Path) -> None:
    clean, *records = ran(lookup, tmp_path, "forget", "scramble", probes=["exact", "knn"], targets=3)
    truth = unpack_labels(clean.truth)
    assert keeping.SEEN == [("forget", 12)] * 4  # once for the clean twin, once per pair; images of the clean part
    twin = clean.repaired["forget"].probes["exact"]
    assert twin.change.value == 0 and twin.accuracy == clean.scores["exact"].clean and twin.success is None
    noise = clean.repaired["scramble"].probes["exact"]
    assert noise.accuracy.value == pytest.approx(1 / 3)
    assert noise.change.value == pytest.approx(1 / 3 - clean.scores["exact"].clean.value)
    for record in records:
        assert record.target.success
        for key in ("exact", "knn"):
            found = record.repaired["forget"].probes[key]
            now = unpack_labels(found.predictions)
            assert np.array_equal(now, unpack_labels(clean.predictions[key]))
            assert found.success is False is found.clean_success and found.prediction == record.target.true_class
            assert found.change.value == pytest.approx((now == truth).mean() - record.scores[key].poisoned.value)
            assert found.accuracy == record.scores[key].clean
        assert record.repaired["forget"].repair == {"name": "forget", "fails": False}
        assert record.repaired["forget"].clean_images == 12
        gone = record.repaired["scramble"].probes["exact"]
        assert gone.success == gone.clean_success == (gone.prediction == record.target.target_class)
        assert gone.change.value == pytest.approx(1 / 3 - record.scores["exact"].poisoned.value)


def test_pairs_of_a_run_share_one_repair_and_a_failed_one_is_said(lookup: Path, tmp_path: Path) -> None:
    clean, *records = ran(lookup, tmp_path, "forget:fails=true", attack="by-heart:together=3", targets=3)
    key = "forget:fails=True"
    assert keeping.SEEN == [("forget", 12)] * 2
    assert clean.repaired[key].error == "" and clean.repaired[key].probes
    for record in records:
        assert record.status == "ok" and record.target.success
        assert record.repaired[key].probes == {} and "knows nothing; got one that does" in record.repaired[key].error


# Guards.


def test_a_guard_that_knows_the_target_ranks_it_first(lookup: Path, tmp_path: Path) -> None:
    clean, *records = ran(lookup, tmp_path, "knows", attack="by-heart:together=2", targets=4)
    prepared = prepare(steer(lookup, "by-heart", defences=["knows"]))
    assert keeping.SEEN[:3] == [("knows", 6)] * 3  # the clean encoder and two runs; half of the clean part
    _, held = halves(prepared.setting.images.clean)
    brightness = prepared.setting.images.test.pixels.double().flatten(1).mean(1) / 255
    calibration = held.pixels.double().flatten(1).mean(1) / 255
    for alarm in clean.guarded["knows"].alarms:
        assert alarm.flagged is None
        assert alarm.false_alarms.value == pytest.approx((brightness > calibration.max()).double().mean())
    for start in (0, 2):
        chosen = [record.target.index for record in records[start : start + 2]]
        others = np.delete(np.arange(60), chosen)
        for record in records[start : start + 2]:
            found, row = record.guarded["knows"], record.target.index
            assert found.share == 1.0 and found.score == pytest.approx(float(brightness[row]) + 10)
            below = [
                float(brightness[i] < brightness[row]) + 0.5 * float(brightness[i] == brightness[row]) for i in others
            ]
            assert found.clean_share == pytest.approx(np.mean(below), abs=1e-6)
            assert [alarm.flagged for alarm in found.alarms] == [True, True]
            assert [alarm.rate for alarm in found.alarms] == [0.01, 0.05]
            for alarm in found.alarms:
                assert alarm.threshold == pytest.approx(threshold(calibration, alarm.rate), abs=1e-6)
                assert alarm.false_alarms.n == 58
                assert alarm.false_alarms.value == pytest.approx(
                    float((brightness[others] > calibration.max()).double().mean())
                )
    assert any("guards: 6 calibration images cannot set a false-alarm rate of 1%" in text for text in clean.warnings)


def test_shares_count_ties_for_half() -> None:
    scores = torch.tensor([3.0, 1.0, 3.0, 1.0, 3.0], dtype=torch.float64)
    others = torch.tensor([False, True, True, True, False])
    assert share_below(scores, 0, others) == pytest.approx(2.5 / 3)


# Scans.


def null_folder(lookup: Path, folder: Path, count: int) -> Path:
    """Clean encoders with other weights, as an honest further training leaves them."""
    encoder = prepare(steer(lookup, "by-heart")).setting.encoder
    folder.mkdir()
    for seed in range(count):
        state = {name: tensor.clone() for name, tensor in encoder.body.state_dict().items()}
        noise = torch.randn(state["base.weight"].shape, generator=torch.Generator().manual_seed(seed))
        state["base.weight"] += 0.01 * noise
        save_encoder(folder / f"{seed}.safetensors", state, encoder.card)
    return folder


def test_a_scan_finds_the_changed_tensors_and_the_target(lookup: Path, tmp_path: Path) -> None:
    folder = null_folder(lookup, tmp_path / "null", 3)
    words = ("drift", "weight-statistics")
    clean, *records = ran(lookup, tmp_path / "a", *words, attack="by-heart:together=2", targets=3, null=folder)
    twin = clean.scanned["drift"]
    assert twin.score == 0 == twin.clean_score and twin.rank is None and twin.images == 12
    assert twin.evidence["changed"] == [] and twin.false_alarm_rate == 1 and len(twin.null_scores) == 3
    for record, pairs in zip(records, (2, 2, 1), strict=True):
        found = record.scanned["drift"]
        assert {one["name"] for one in found.evidence["changed"]} == {"known", "added"}
        assert found.images == 12 + pairs and found.inputs == 13
        assert found.rank == 1 and found.towards == record.target.target_class and found.towards_target
        assert found.score > max(found.null_scores) and found.false_alarm_rate == 1 / 4 and found.clean_score == 0
        plain = record.scanned["weight-statistics"]
        assert plain.rank is None and plain.images == 12 and plain.towards is None
        assert plain.null_scores != [] and plain.score > plain.clean_score
    assert not any("scans:" in text for text in clean.warnings)
    assert {record.scanned["drift"].evidence["top"][0]["index"] for record in records} <= {12, 13}


def test_a_second_encoder_is_asked_for_and_used(lookup: Path, tmp_path: Path) -> None:
    other = f"{lookup / 'net.py'}:make"
    words = ("agreement:k=3", "neighbours:k=3")
    clean, record = ran(lookup, tmp_path, *words, targets=1, other=other)
    assert record.status == "ok" and not record.guarded["agreement:k=3"].error
    found = record.scanned["neighbours:k=3"]
    assert found.inputs == 13 and 1 <= found.rank <= 13 and found.false_alarm_rate is None
    assert clean.spec["inputs"]["other encoder"] and clean.spec["base"]["other"]["reference"] == other
    assert any("without clean encoders" in text for text in clean.warnings)
    assert found.towards_target == (found.towards == record.target.target_class)


# The whole.


def test_all_kinds_together_are_the_same_again(lookup: Path, tmp_path: Path) -> None:
    words = ("sphere", "forget", "views-vote:votes=2", "drift")
    spec = steer(lookup, "by-heart", "label-flip", "copies", targets=2, defences=list(words))
    first, again = (audit(spec, tmp_path / name).records for name in "ab")
    assert numbers(first) == numbers(again)
    for record in first:
        shown = record.threat in ("weights", "clean")
        assert bool(record.repaired) == bool(record.guarded) == bool(record.scanned) == shown
        assert bool(record.defences) == (record.threat != "weights")
    alone = audit(spec, tmp_path / "c", only=first[1].trial).records
    assert numbers(alone[1:])[first[1].trial] == numbers(first)[first[1].trial]


def test_pretraining_trials_stand_beside_the_encoder_that_went_on(
    lookup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.audits.threats.continued", fakes.Learner(40, drift=0.01))
    spec = steer(
        lookup,
        "pairs",
        targets=1,
        defences=["forget", "knows", "drift"],
        pretraining=f"{lookup / 'pool.npz'},epochs=1",
        budgets=[0.1],
    )
    record = audit(spec, tmp_path).records[-1]
    assert record.status == "ok" and record.target.success
    assert record.repaired["forget"].probes["exact"].success is False
    assert record.guarded["knows"].share == 1
    changed = {one["name"] for one in record.scanned["drift"].evidence["changed"]}
    assert changed == {"known", "added", "base.weight"} and record.scanned["drift"].clean_score > 0


def test_without_them_trials_keep_their_identities(lookup: Path) -> None:
    plain, other = (steer(lookup, "by-heart", defences=words) for words in ([], ["forget"]))
    assert not {"other", "null", "defences"} & set(plain.base())
    found = [identities(plan(prepare(spec))) for spec in (plain, other)]
    assert not set(found[0]) & set(found[1])
    assert plan(prepare(other))[1].spec.base["defences"] == [{"name": "forget", "fails": False}]


def test_other_weights_under_the_same_name_are_another_audit(lookup: Path, tmp_path: Path) -> None:
    """A repair's own checkpoint counts by its content: nothing of the old file is taken for the new one's."""
    file = tmp_path / "trusted.safetensors"
    key = f"average:with_weights={file}"
    spec = steer(lookup, "by-heart", defences=[key], targets=1)
    encoder = prepare(steer(lookup, "by-heart")).setting.encoder
    state, found = encoder.body.state_dict(), []
    for factor in (1.0, 1.25):
        save_encoder(file, {name: factor * tensor for name, tensor in state.items()}, encoder.card, overwrite=True)
        prepared = prepare(spec)
        read = prepared.inputs()[f"checkpoint of {next(iter(prepared.defender.repairs.defences))}"]
        assert read == digest_tensors({name: factor * tensor for name, tensor in state.items()})
        found.append(identities(plan(prepared)))
        if factor == 1:
            audit(spec, tmp_path / "out")
    assert not set(found[0]) & set(found[1])
    with pytest.raises(SpecError, match="trials on another checkpoint of average"):
        audit(spec, tmp_path / "out")
    file.unlink()
    with pytest.raises(WeightsError, match="no such file"):
        prepare(spec)


def test_the_estimate_counts_them(lookup: Path) -> None:
    spec = steer(
        lookup, "by-heart", defences=["fine-tune:epochs=10:batch=4", "views-vote:votes=2", "decree:steps=5:batch=4"]
    )
    prepared = prepare(spec)
    passes, fits = encoder_defences_cost(prepared)
    assert passes == (4 * 10 * 12 + 120) + (66 * 3 + 6) + 3 * 5 * 4 and fits == 3
    assert estimate_seconds(prepared, plan(prepared)) > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"attacks": ["label-flip"], "defences": ["clp"]},
            "attacks that change the encoder, since clp is a repair of it",
        ),
        ({"attacks": ["copies"], "defences": ["drift"]}, "since drift is a scan of it; got copies"),
        ({"defences": ["agreement"]}, "other: a second encoder, of another origin, for agreement; got none"),
        (
            {"defences": ["neighbours"]},
            "for neighbours; got none; pass --other",
        ),
        ({"defences": ["drift"], "other": "digits-simclr"}, "defences that compare two encoders"),
        ({"defences": ["clp"], "null": "null"}, "defences with a scan, since there is a null; got clp"),
    ],
)
def test_defences_that_could_do_nothing(values: dict[str, Any], message: str, lookup: Path) -> None:
    with pytest.raises(SpecError, match=message):
        configured(image_audit(lookup, encoder=f"{lookup / 'lookup.py'}:make", **{"attacks": ["by-heart"], **values}))


def test_what_they_need_is_asked_for_before_any_work(lookup: Path, tmp_path: Path) -> None:
    none = {"train": 0.6, "validation": 0.4, "clean": 0.0}
    for words, split, message in (
        (["forget"], none, "forget: at least 2 clean images of the owner's own; got 0"),
        (["distil"], {}, "distil: at least 128 clean images"),
        (["knows"], none, "knows: at least 2 clean images of the defender's own; got 0"),
        (["drift"], none, "drift: at least 1 clean images"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(steer(lookup, "by-heart", defences=words, split=split))
    with pytest.raises(SpecError, match="average: another checkpoint"):
        prepare(steer(lookup, "by-heart", defences=["average"]))
    with pytest.raises(SpecError, match="a folder of clean encoders; got no such folder"):
        prepare(steer(lookup, "by-heart", defences=["drift"], null=tmp_path / "nowhere"))
    own = prepare(steer(lookup, "by-heart")).setting.encoder
    (tmp_path / "own").mkdir()
    save_encoder(tmp_path / "own" / "a.safetensors", own.body.state_dict(), own.card)
    with pytest.raises(SpecError, match="none of them the audited one"):
        prepare(steer(lookup, "by-heart", defences=["drift"], null=tmp_path / "own"))
    (tmp_path / "own" / "a.safetensors").write_bytes(b"not an encoder")
    with pytest.raises(EncoderError, match="an encoder of the suspect's architecture"):
        prepare(steer(lookup, "by-heart", defences=["drift"], null=tmp_path / "own"))


def test_a_file_may_say_null_without_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("attacks: [pacl]\ndefences: [drift]\nnull: clean\n")
    spec = AuditSpec.read(tmp_path / "a.yaml")
    assert spec.null == Path("clean")
    (tmp_path / "b.yaml").write_text(spec.to_yaml())
    assert AuditSpec.read(tmp_path / "b.yaml") == spec


# The report.


def lines_of(text: str, column: str) -> list[dict[str, str]]:
    """Rows of the first Markdown table that has the column, by column (of equal columns the first)."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    start = next(place for place, row in enumerate(rows) if column in row)
    found = []
    for row in rows[start + 2 :]:
        if len(row) != len(rows[start]):
            break
        found.append(dict(zip(reversed(rows[start]), reversed(row), strict=True)))
    return found


def test_the_command_and_the_report(lookup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = null_folder(lookup, tmp_path / "null", 2)
    flags = ["--data", lookup / "images.npz", "--encoder", f"{lookup / 'lookup.py'}:make", "--precision", "float32"]
    flags += ["--attacks", "by-heart,label-flip", "--targets", 2, "--budgets", 0.1, "--seeds", 1, "--null", folder]
    flags += ["--defences", "forget,knows,drift,agreement:k=3,norm", "--other", f"{lookup / 'net.py'}:make"]
    assert command("audit", *flags, "--dry-run") == 0
    assert "# 4 trials" in capsys.readouterr().out
    assert command("audit", *flags, "--out", tmp_path / "out") == 0
    clean, *records = read(tmp_path / "out")
    page = render([clean, *records])
    repair, guards, scan = (lines_of(page.markdown, column) for column in ("repair", "guard", "scan"))
    assert [line["repair"] for line in repair] == ["forget"] and [line["scan"] for line in scan] == ["drift"]
    assert (
        repair[0]["steered before"] == "100 % [34, 100], n = 2" and repair[0]["steered after"] == "0 % [0, 66], n = 2"
    )
    assert (repair[0]["already so"], repair[0]["right after"], repair[0]["failed"]) == ("0 of 2", "2 of 2", "0")
    assert repair[0]["on the clean encoder"].startswith("0.0 ") and repair[0]["accuracy change"].startswith("+1.7 ")
    assert [line["guard"] for line in guards] == ["knows", "agreement:k=3"] * 2
    assert guards[2]["AUROC"] == "100.0 [34.2, 100.0] %, n = 2" and guards[2]["flagged at 1 %"].startswith("100 %")
    assert guards[0]["attack"] == "none (clean twin)" and guards[0]["AUROC"] == "–"
    assert (scan[0]["first"], scan[0]["rank"], scan[0]["among"], scan[0]["class"]) == ("2 of 2", "1", "13", "2 of 2")
    assert (
        scan[0]["false-alarm rate"] == "0.333"
        and scan[0]["clean encoder"] == "0"
        and scan[0]["its rate"] == "1"
        and scan[0]["runs"] == "2"
    )
    for name in ("weights-repairs", "weights-guards", "weights-scans"):
        assert f'<table id="{name}"' in page.html
    assert command("audit", *flags[:-2], "--out", tmp_path / "other") == 2
    assert "other: a second encoder, of another origin, for agreement" in capsys.readouterr().err

    # Figures over pairs, against plain means: one share and one alarm are changed by hand, and one repair fails.
    first, second = (record for record in records if record.threat == "weights")
    alarms = [alarm.model_copy(update={"flagged": False}) for alarm in first.guarded["knows"].alarms]
    guard = first.guarded["knows"].model_copy(update={"share": 0.5, "alarms": alarms})
    first = first.model_copy(update={"guarded": {"knows": guard}})
    failed = second.repaired["forget"].model_copy(update={"probes": {}, "error": "no"})
    text = render([clean, first, second.model_copy(update={"repaired": {"forget": failed}})]).markdown
    line = next(line for line in lines_of(text, "guard") if line["attack"] == "by-heart")
    share = mean_share(np.array([0.5, 1.0]))
    assert line["AUROC"] == f"75.0 [{100 * share.low:.1f}, {100 * share.high:.1f}] %, n = 2"
    assert line["flagged at 5 %"].startswith("50 % [") and line["flagged at 5 %"].endswith("n = 2")
    repair = lines_of(text, "repair")
    assert repair[0]["failed"] == "1" and repair[0]["steered after"].endswith("n = 1")

    # An attack that was made against a defence is marked in that defence's line, and in no other.
    spec = {**first.spec, "attack": {**first.spec["attack"], "against": "Knows"}}
    text = render([clean, first.model_copy(update={"spec": spec, "variant": "against Knows"}), second]).markdown
    lines = lines_of(text, "guard")
    assert [line["guard"] for line in lines if "against" in line["attack"]] == ["knows ◆"]
    assert {line["guard"] for line in lines if "against" not in line["attack"]} == {"knows", "agreement:k=3"}
    assert not any("◆" in line["guard"] for line in guards)


def test_a_mean_of_shares_is_as_uncertain_as_that_of_yes_and_no() -> None:
    found = mean_share(np.array([1.0, 0.0, 1.0, 1.0]))
    assert (found.value, found.low, found.high, found.n) == (0.75, wilson(3, 4).low, wilson(3, 4).high, 4)
    assert mean_share(np.full(4, 0.5)).low == pytest.approx(wilson(2, 4).low)
    with pytest.raises(ValueError, match="numbers in"):
        mean_share(np.array([1.5]))


@pytest.mark.parametrize(
    ("said", "key", "same"),
    [
        ("clp/u=2", "clp:u=2.0", True),
        ("clp", "clp:u=2.0", False),
        ("clp/u=2", "clp-more:u=2.0", False),
        ("clp/u=3", "clp:u=2.0", False),
        ("average/share=0.3", "average:with_weights=/some/where.safetensors:share=0.3", True),
        ("average", "average:with_weights=/some/where.safetensors:share=0.3", False),
        (None, "clp", False),
    ],
)
def test_which_defence_an_attack_was_made_against(said: str | None, key: str, same: bool) -> None:
    one = records_fixture.weights()[0]
    trials = [one.model_copy(update={"spec": {"attack": {"name": "pacl", "against": said}}})]
    assert aims_at(pair_row(trials, trials), key) is same
