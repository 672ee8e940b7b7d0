from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from rich.console import Console

from foretaste import attacks
from foretaste.audits.spec import AuditSpec
from foretaste.progress import AuditProgress, Following, duration
from foretaste.record import FILE_NAME, read, unpack_labels
from tests.audits.audit_fixture import audit, command, feature_audit, numbers, trials_in

pytestmark = pytest.mark.usefixtures("here")

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ["--data", "images.npz", "--encoder", "net.py:make", "--precision", "float32"]
FEATURES = ["--features", "F.npz", "--validation", "V.npz", "--test", "T.npz"]
SMALL = ["--attacks", "label-flip,exact:steps=3", "--budgets", "0.1", "--seeds", "2"]
PROGRAM = "from foretaste.cli import main; main()"


def test_an_audit_from_flags_ends_with_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("audit", *IMAGES, *SMALL, "--out", tmp_path) == 0
    printed = capsys.readouterr()
    assert "10 % of poisoned rows can take accuracy from" in printed.out
    assert f"report: {tmp_path / 'report.html'}" in printed.out
    assert {"report.html", "report.md", FILE_NAME, "audit.yaml"} <= {path.name for path in tmp_path.iterdir()}
    lines = printed.err.splitlines()
    assert re.fullmatch(r"\[1/5\] clean twin: accuracy [\d.]+% \(\d+ s; 4 to go\)", lines[-5])
    assert re.fullmatch(
        r"\[5/5\] exact \(features, box, steps 3\) at 0\.1, seed 1: accuracy [\d.]+% to [\d.]+% \(\d+ s\)", lines[-1]
    )
    assert command("audit", *IMAGES, *SMALL, "--out", tmp_path) == 0
    again = capsys.readouterr()
    assert again.out == printed.out
    assert "5 of 5 trials are in the record already" in again.err


def test_a_record_line_fits_the_published_schema(tmp_path: Path) -> None:
    assert command("audit", *IMAGES, *SMALL, "--out", tmp_path) == 0
    schema = json.loads((ROOT / "docs" / "record.schema.json").read_text(encoding="utf-8"))
    validator = Draft202012Validator(schema)
    for line in (tmp_path / FILE_NAME).read_text().splitlines():
        validator.validate(json.loads(line))


def test_an_audit_from_a_file_is_the_one_from_flags(tmp_path: Path) -> None:
    (tmp_path / "audit.yaml").write_text(
        "features: F.npz\nvalidation: V.npz\ntest: T.npz\nattacks:\n- label-flip\n- name: exact\n  steps: 3\n"
        "budgets: [0.1]\nseeds: 2\n"
    )
    assert command("audit", tmp_path / "audit.yaml", "--out", tmp_path / "file") == 0
    assert command("audit", *FEATURES, *SMALL, "--out", tmp_path / "flags") == 0
    assert numbers(read(tmp_path / "file")) == numbers(read(tmp_path / "flags"))


def test_flags_override_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "audit.yaml").write_text(
        "data: images.npz\nencoder: net.py:make\nprecision: float32\nattacks: [label-flip]\nseeds: 5\n"
        "split: {seed: 3, clean: 0.05}\n"
    )
    flags = ["--seeds", 1, "--budgets", "0.2,0.1", "--split", "0.6,0.3,0.1", "--ridge", "0.01", "--limit", 50]
    assert command("audit", tmp_path / "audit.yaml", *flags, "--dry-run", "--trust-code") == 0
    out = capsys.readouterr().out
    (tmp_path / "resolved.yaml").write_text(out)
    spec = AuditSpec.read(tmp_path / "resolved.yaml")
    assert (spec.seeds, spec.budgets, spec.ridge) == (1, (0.2, 0.1), 0.01)
    assert spec.split.model_dump() == {
        "train": 0.6,
        "validation": 0.3,
        "clean": 0.1,
        "test": 0.2,
        "seed": 3,
        "limit": 50,
    }
    assert [method.name for method in spec.attacks] == ["label-flip"]


def test_a_dry_run_shows_the_plan_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--attacks", "label-flip,exact,pacl", "--budgets", "0.1,0.2", "--seeds", "3", "--targets", "4"]
    out = tmp_path / "out"
    assert command("audit", "--data", "images.npz", "--encoder", "net.py:make", *given, "--dry-run", "--out", out) == 0
    text = capsys.readouterr().out
    assert re.search(r"^# 17 trials, about \d+ (s|min) on this machine$", text, re.MULTILINE)
    assert not out.exists()
    (tmp_path / "audit.yaml").write_text(text)
    spec = AuditSpec.read(tmp_path / "audit.yaml")
    assert spec.precision == "float32"
    assert (spec.seeds, spec.targets) == (3, 4)


def test_without_arguments_it_is_the_embedded_audit(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("audit", "--dry-run") == 0
    text = capsys.readouterr().out
    assert "data: digits" in text and "reference: digits-simclr" in text
    assert "# 48 trials" in text


def test_one_trial_alone(tmp_path: Path) -> None:
    assert command("audit", *FEATURES, *SMALL, "--out", tmp_path / "whole") == 0
    whole = read(tmp_path / "whole")
    wanted = whole[3]
    assert command("audit", *FEATURES, *SMALL, "--only", wanted.trial, "--out", tmp_path / "one") == 0
    assert numbers(read(tmp_path / "one")) == numbers([whole[0], wanted])


def test_the_headline_is_the_first_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--attacks", "label-flip", "--budgets", "0.2", "--seeds", "1", "--probes", "knn:k=5,exact:ridge=0.01"]
    assert command("audit", *FEATURES, *flags, "--out", tmp_path) == 0
    record = read(tmp_path)[1]
    assert list(record.scores) == ["knn", "exact"]
    assert record.spec["base"]["probes"] == [{"name": "knn", "k": 5}, {"name": "exact", "ridge": 0.01}]
    truth, found = np.load("T.npz")["y"], unpack_labels(record.predictions["knn"])
    share = (found == truth).mean()
    assert f"{100 * share:.1f}" in capsys.readouterr().out


def test_data_is_split_by_the_flags(tmp_path: Path) -> None:
    flags = ["--attacks", "label-flip", "--budgets", "0.1", "--seeds", "1", "--split", "0.25,0.5,0.25"]
    assert command("audit", *IMAGES, *flags, "--limit", 60, "--out", tmp_path) == 0
    assert read(tmp_path)[0].data.rows == {"train": 15, "validation": 30, "clean": 15, "test": 60}


# Stopping and going on.


def test_ctrl_c_leaves_a_folder_that_can_be_reported_and_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", *FEATURES, "--attacks", "label-flip,exact:steps=60", "--budgets", "0.1", "--seeds", "3"]
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words, "--out", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with SIGINT ignored, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_lines(folder / FILE_NAME, 4, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("foretaste: interrupted; the same command continues")
    assert "Traceback" not in err
    assert 4 <= len(read(folder)) < 7
    report_without_torch(folder)
    assert command(*words, "--out", folder) == 0
    assert "of 7 trials are in the record already" in capsys.readouterr().err
    assert command(*words, "--out", tmp_path / "whole") == 0
    assert numbers(list(trials_in(folder).values())) == numbers(read(tmp_path / "whole"))


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        assert process.poll() is None, "the audit ended before it could be stopped"
        time.sleep(0.01)
    raise AssertionError("the audit did not get so far")


def report_without_torch(folder: Path) -> None:
    program = (
        "import sys\nfor name in ('torch', 'timm', 'sklearn', 'torchvision'): sys.modules[name] = None\n"
        f"sys.argv = ['foretaste', 'report', {str(folder)!r}, '--title', 'Without torch']\n{PROGRAM}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(folder / "report.html"), str(folder / "report.md")]
    assert (folder / "report.md").read_text().startswith("# Without torch\n")


def test_a_second_audit_in_a_folder_in_use(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"):
        assert command("audit", *FEATURES, *SMALL, "--out", tmp_path) == 2
    assert "no other audit is writing; got a locked one" in capsys.readouterr().err


def test_the_folder_of_another_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("audit", *FEATURES, *SMALL, "--out", tmp_path) == 0
    assert command("audit", *IMAGES, *SMALL, "--out", tmp_path) == 2
    assert "a new folder, or one of this audit; got an audit with another" in capsys.readouterr().err


# What is shown meanwhile.


def shown(*, terminal: bool, world: Path, folder: Path) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    from foretaste.audits.runner import run

    with AuditProgress(console) as progress:
        run(feature_audit(world, attacks=["label-flip", "exact:steps=3"]), folder, progress)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_gets_bars_with_remaining_time_and_a_log_gets_lines(world: Path, tmp_path: Path) -> None:
    log = shown(terminal=False, world=world, folder=tmp_path / "log")
    assert log.splitlines()[0] == "clean pipeline: fit"
    assert [line[:5] for line in log.splitlines()[1:]] == ["[1/3]", "[2/3]", "[3/3]"]
    bars = shown(terminal=True, world=world, folder=tmp_path / "bars")
    assert "[1/3]" not in bars
    assert "3/3" in bars and "exact (features, box, steps 3) at 0.1, seed 0" in bars
    assert re.search(r"\d:\d\d:\d\d", bars)


def test_long_work_without_a_terminal_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
        for every in (1e9, 0.0):
            monkeypatch.setattr(Following, "EVERY", every)
            with Following(console, "exact") as following:
                following.step(3, 60, "loss 1.5")
        shown = console.file.getvalue()
        assert shown.count("exact, loss 1.5: 3 of 60 (0 s)\n") == (not terminal)


def test_failures_are_shown_on_both(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks.find("label-flip"), "poison", lambda *_: 1 / 0)
    for terminal in (False, True):
        text = shown(terminal=terminal, world=world, folder=tmp_path / str(terminal))
        assert "failed: label-flip at 0.1, seed 0: division by zero" in text


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_audits_of_the_library_and_of_the_command_are_the_same(world: Path, tmp_path: Path) -> None:
    assert command("audit", *FEATURES, *SMALL, "--out", tmp_path / "command") == 0
    spec = AuditSpec.make(
        {
            "features": "F.npz",
            "validation": "V.npz",
            "test": "T.npz",
            "attacks": ["label-flip", "exact:steps=3"],
            "budgets": [0.1],
            "seeds": 2,
        }
    )
    assert numbers(audit(spec, tmp_path / "library").records) == numbers(read(tmp_path / "command"))
