from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import foretaste as ft
from foretaste.attacks.labelled.exact import Exact
from foretaste.attacks.labelled.label_flip import LabelFlip
from foretaste.defences.filters.knn import DeepKNN
from foretaste.defences.filters.sphere import Sphere
from foretaste.probes.knn import KNNProbe
from tests.audits.audit_fixture import numbers

QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(scope="module")
def files(world: Path) -> dict[str, Any]:
    return {"features": world / "F.npz", "validation": world / "V.npz", "test": world / "T.npz"}


@pytest.fixture(scope="module")
def done(files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ft.AuditResult:
    out = tmp_path_factory.mktemp("done") / "out"
    return ft.audit(**files, attacks=["label-flip", "exact:steps=4"], budgets=[0.1, 0.2], seeds=1, out=out, **QUIET)


def test_records_are_those_of_the_folder_and_of_the_command(
    files: dict[str, Any], done: ft.AuditResult, tmp_path: Path
) -> None:
    assert [record.attack for record in done.records] == ["none", "label-flip", "label-flip", "exact", "exact"]
    assert numbers(ft.read_records(done.folder)) == numbers(ft.read_records(str(done.folder))) == numbers(done.records)
    words = [f"--{key}={value}" for key, value in files.items()]
    words += ["--attacks", "label-flip,exact:steps=4", "--budgets", "0.1,0.2", "--seeds", "1"]
    program = "import sys; from foretaste.cli import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", program, "audit", *words, "--out", tmp_path / "out"], check=True)
    assert numbers(ft.read_records(tmp_path / "out")) == numbers(done.records)


@pytest.mark.parametrize(
    ("attacks", "defences"),
    [
        (["exact:steps=4"], ["knn:k=5"]),
        ("exact:steps=4", "knn:k=5"),
        ([Exact(steps=4)], [DeepKNN(k=5)]),
        (Exact(steps=4), DeepKNN(k=5)),
        ([{"name": "exact", "steps": 4}], [{"name": "knn", "k": 5}]),
    ],
    ids=["names", "one name", "values", "one value", "mappings"],
)
def test_methods_in_every_form_are_one_audit(files: dict[str, Any], attacks: Any, defences: Any) -> None:
    found = ft.estimate(**files, attacks=attacks, defences=defences, budgets=0.1, seeds=2, **QUIET)
    assert found.trials == 3 and found.seconds > 0
    same = ft.estimate(**files, attacks=["exact:steps=4"], defences=["knn:k=5"], budgets=[0.1], seeds=2, **QUIET)
    assert found.spec == same.spec


def test_a_class_stands_for_its_defaults(files: dict[str, Any]) -> None:
    found = ft.estimate(**files, attacks=[LabelFlip], probes=[KNNProbe, "exact"], budgets=[0.1], seeds=1, **QUIET)
    assert [one.name for one in found.spec.attacks] == ["label-flip"]
    assert [one.name for one in found.spec.probes] == ["knn", "exact"]


def test_a_file_with_settings_above_it(files: dict[str, Any], tmp_path: Path) -> None:
    values = {**{key: str(value) for key, value in files.items()}, "attacks": ["label-flip"], "budgets": [0.1, 0.2]}
    file = tmp_path / "audit.yaml"
    file.write_text(yaml.safe_dump(values))
    assert ft.estimate(file, **QUIET).trials == 1 + 2 * 3
    assert ft.estimate(str(file), seeds=1, budgets=[0.1], **QUIET).trials == 2


def test_code_in_a_file_needs_the_word_and_what_is_passed_does_not(files: dict[str, Any], tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "from typing import ClassVar\nfrom foretaste.attacks.labelled.label_flip import LabelFlip\n\n\n"
        'class Mine(LabelFlip):\n    name: ClassVar[str] = "mine"\n'
    )
    file = tmp_path / "audit.yaml"
    values = {**{key: str(value) for key, value in files.items()}, "attacks": [f"{code}:Mine"], "budgets": [0.1]}
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(
        ft.SpecError, match=r"--trust-code, since the file names code to run; got attacks .*mine\.py:Mine"
    ):
        ft.audit(file, out=tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()
    trusted = ft.audit(file, seeds=1, trust_code=True, out=tmp_path / "out", **QUIET)
    passed = ft.audit(**files, attacks=[f"{code}:Mine"], budgets=[0.1], seeds=1, out=tmp_path / "out2", **QUIET)
    assert numbers(trusted.records) == numbers(passed.records)
    assert [record.attack for record in passed.records] == ["none", "mine"]


class Broken(ft.LabelledAttack):
    name = "broken"

    def poison(self, known: ft.Knowledge, rows: int, seed: int, progress: Any = None) -> ft.Poisoning:
        raise ft.AttackError("broken: a good day", got="a bad one")


def test_a_failed_trial_is_a_record_and_a_row(files: dict[str, Any], tmp_path: Path) -> None:
    done = ft.audit(**files, attacks=[Broken, "label-flip"], budgets=[0.1], seeds=1, out=tmp_path / "out", **QUIET)
    assert [record.status for record in done.records] == ["ok", "failed", "ok"]
    assert [record.attack for record in done.failures] == ["broken"] and "1 failed" in repr(done)
    row = done.rows()[1]
    assert (row["attack"], row["status"], row["error"]) == ("broken", "failed", "broken: a good day; got a bad one.")
    assert "clean" not in row


def test_rows_say_what_the_records_say(done: ft.AuditResult) -> None:
    for row, record in zip(done.rows(), done.records, strict=True):
        scores = record.scores["exact"]
        assert (row["trial"], row["attack"], row["budget"]) == (record.trial, record.attack, record.budget)
        assert (row["probe"], row["n"], row["clean"]) == ("exact", 75, scores.clean.value)
        change = scores.change
        expected = (None,) * 3 if change is None else (change.value, change.low, change.high)
        assert (row["change"], row["change_low"], row["change_high"]) == expected
        assert row["success"] is None and "target" not in row


def test_rows_of_one_image(world: Path, tmp_path: Path) -> None:
    done = ft.audit(
        data=world / "images.npz", encoder=f"{world / 'net.py'}:make", attacks=["pacl:steps=2:batch=16"], targets=2,
        probes=["exact", "knn"], precision="float32", out=tmp_path / "out", **QUIET,
    )  # fmt: skip
    rows = [row for row in done.rows() if row["attack"] == "pacl"]
    assert [row["probe"] for row in rows] == ["exact", "knn"] * 2
    target = done.records[1].target
    assert target is not None
    assert (rows[1]["target"], rows[1]["wanted"]) == (target.index, target.target_class)
    assert rows[1]["success"] == target.probes["knn"].success
    assert rows[1]["base_rate"] == target.probes["knn"].clean_success


def test_the_frame_has_the_rows(done: ft.AuditResult) -> None:
    pandas = pytest.importorskip("pandas")
    frame = done.frame()
    assert len(frame) == 5 and list(frame["attack"]) == [row["attack"] for row in done.rows()]
    by_hand = np.mean([row["change"] for row in done.rows() if row["attack"] == "exact"])
    assert frame.groupby("attack")["change"].mean()["exact"] == pytest.approx(by_hand)
    assert pandas.isna(frame["change"][0]) and frame["n"].dtype.kind == "i"


def test_without_pandas_it_says_what_to_install(done: ft.AuditResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ft.SpecError, match=r'frame: pandas; got no such package; pip install "foretaste\[frame\]", or'):
        done.frame()
    assert len(done.rows()) == 5


def test_the_report_is_written_beside_the_record(done: ft.AuditResult) -> None:
    page = done.report(title="Ours")
    assert page == done.folder / "report.html" and "Ours" in page.read_text(encoding="utf-8")
    assert "exact" in (done.folder / "report.md").read_text(encoding="utf-8")


def test_the_same_call_goes_on(files: dict[str, Any], done: ft.AuditResult) -> None:
    before = (done.folder / "record.jsonl").read_bytes()
    again = ft.audit(
        **files, attacks=["label-flip", "exact:steps=4"], budgets=[0.1, 0.2], seeds=1, out=done.folder, **QUIET
    )
    assert (done.folder / "record.jsonl").read_bytes() == before and numbers(again.records) == numbers(done.records)


def test_one_trial_alone(files: dict[str, Any], done: ft.AuditResult, tmp_path: Path) -> None:
    wanted = done.records[3]
    alone = ft.audit(
        **files, attacks=["label-flip", "exact:steps=4"], budgets=[0.1, 0.2], seeds=1, only=wanted.trial[:6],
        out=tmp_path / "out", **QUIET,
    )  # fmt: skip
    assert numbers(alone.records)[wanted.trial] == numbers([wanted])[wanted.trial] and len(alone.records) == 2


def test_nothing_is_printed_without_progress(files: dict[str, Any], tmp_path: Path, capfd: Any) -> None:
    ft.audit(**files, attacks=["label-flip"], budgets=[0.1], seeds=1, out=tmp_path / "out", **QUIET)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"atacks": ["exact"]}, "audit: the keys data, .*; got atacks"),
        ({"attacks": ["exat"]}, "got 'exat'; did you mean exact?"),
        ({"attacks": [int]}, "attack builtins:int: a class that extends LabelledAttack"),
        ({"attacks": [None]}, r"got attacks\.0 = None"),
        ({"attacks": [Sphere()]}, "attack foretaste.defences.filters.sphere:Sphere: a class that extends"),
        ({"budgets": ["a"]}, r"got budgets\.0 = 'a'"),
        ({"budgets": [11]}, "budgets: shares above 0 and at most 10; got 11"),
        ({"seeds": 0}, "got seeds = 0"),
        ({"seeds": "x"}, "got seeds = 'x'"),
        ({"features": np.eye(3)}, r"audit: features: the path of a file; got a ndarray; save it with numpy\.savez, or"),
        ({"file": 3}, "audit: the path of a YAML file, or keywords alone; got a int"),
        ({"file": "none.yaml"}, r"none\.yaml: a readable YAML file"),
        ({"out": None}, "audit: out: the path of a folder; got None"),
        ({"only": "zzz"}, "zzz"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_wrong_audits_are_told_in_one_line_and_leave_nothing(
    files: dict[str, Any], tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    fixed = {**files, "attacks": ["label-flip"], "budgets": [0.1], "seeds": 1, "out": tmp_path / "out", **QUIET}
    with pytest.raises(ft.ForetasteError, match=message) as raised:
        ft.audit(**{**fixed, **arguments})
    assert "\n" not in str(raised.value)
    record = tmp_path / "out" / "record.jsonl"
    assert not record.exists() or "only" in arguments


def test_read_records_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ft.RecordError, match="a record file; got nothing there"):
        ft.read_records(str(tmp_path / "none"))
    (tmp_path / "record.jsonl").write_text(json.dumps({"format": "other"}) + "\n")
    with pytest.raises(ft.RecordError, match="line 1: a trial of format"):
        ft.read_records(tmp_path)


def test_what_there_is() -> None:
    assert {attack.kind for attack in ft.list_attacks()} >= {"labelled", "targeted", "pretraining", "weights"}
    for listed in (*ft.list_attacks(), *ft.list_defences(), *ft.list_probes()):
        assert listed.name and listed.line and "\n" not in listed.line
    assert "sphere" in [one.name for one in ft.list_defences() if one.kind == "filter"]
