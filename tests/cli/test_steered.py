"""Attacks on one image from the command line: files of their own, and audits with their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from foretaste.audits.spec import AuditSpec
from tests.audits import steered_fixture as fakes
from tests.audits.audit_fixture import command, trials_in

ENCODER = ["--data", "images.npz", "--encoder", "lookup.py:make"]
PAIR = ["--target-index", 4, "--target-class", 2]


@pytest.fixture(autouse=True)
def inside(lookup: Path, steering: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lookup)
    fakes.CALLS.clear()


def made(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_rows_for_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "poison.npz"
    assert command("attack", "copies", *ENCODER, *PAIR, "--budget", 0.1, "--out", out) == 0
    poison, clean = made(out), made(Path("images.npz"))
    assert poison["x"].shape == (12, 8, 8, 3) and (poison["x"] == clean["x_test"][4]).all()
    assert poison["y"].tolist() == [2] * 12 and not poison["replaces"] and set(poison) == {"x", "y", "base", "replaces"}
    printed = capsys.readouterr().out
    assert "test row 4: from 1 to 2" in printed and "12 poisoned rows of at most floor(0.1 x 120)" in printed


def test_pre_training_images_for_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "poison.npz"
    flags = ["--data", "images.npz", "--pretraining", "pool.npz,limit=30", *PAIR, "--budget", 0.2]
    assert command("attack", "pairs", *flags, "--out", out) == 0
    poison, clean = made(out), made(Path("images.npz"))
    assert set(poison) == {"x"} and poison["x"].dtype == np.uint8 and poison["x"].shape == (6, 8, 8, 3)
    assert (poison["x"][::2] == clean["x_test"][4]).all()
    # What stands between are the attacker's images of the wanted class.
    wanted = {row.tobytes() for row in clean["x_train"][clean["y_train"] == 2]}
    assert {row.tobytes() for row in poison["x"][1::2]} <= wanted
    assert "6 images of at most floor(0.2 x 30)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["copies", *ENCODER, "--budget", 0.1], "copies: --target-index and --target-class"),
        (["copies", *ENCODER, *PAIR], "--budget: added rows / training rows"),
        (["copies", "--features", "F.npz", *PAIR, "--budget", 0.1], "copies: --data and --encoder"),
        (["copies", *ENCODER, *PAIR, "--budget", 0.1, "--pretraining", "pool.npz"], "copies: no pre-training images"),
        (["copies", *ENCODER, "--target-index", 99, "--target-class", 2, "--budget", 1], "a test row in [0, 59]"),
        (["pairs", "--data", "images.npz", *PAIR, "--budget", 0.1], "pairs: --data with the target and its references"),
        (["pairs", *ENCODER, "--pretraining", "pool.npz", *PAIR, "--budget", 0.1], "no validation file and no encoder"),
        (["pairs", "--data", "images.npz", "--pretraining", "pool.npz", *PAIR], "added rows / pre-training images"),
        (["pairs", "--data", "images.npz", "--pretraining", "pool.npz", *PAIR, "--budget", 0.01], "got 0.01"),
        (["label-flip", *ENCODER, "--budget", 0.1, "--pretraining", "pool.npz"], "label-flip: no pre-training images"),
    ],
)
def test_wrong_flags(words: list[Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("attack", *words, "--out", tmp_path / "out.npz") == 2
    shown = capsys.readouterr().err
    assert message in " ".join(shown.split()) and not (tmp_path / "out.npz").exists()
    assert not fakes.CALLS


def test_an_audit_of_all_threats_from_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*ENCODER, "--attacks", "copies,by-heart,pairs:together=2", "--targets", 2, "--budgets", "0.1,0.2"]
    flags += ["--references", "training", "--pretraining", "pool.npz,epochs=1,batch=20,hidden=8,projection=4,lr=0.01"]
    assert command("audit", *flags, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "# 11 trials, about " in shown and not fakes.CALLS
    spec = AuditSpec.make(yaml.safe_load(shown))
    assert spec.references == "training" and spec.pretraining.data == "pool.npz"
    assert spec.pretraining.fields == {"epochs": 1, "batch": 20, "hidden": 8, "projection": 4, "lr": 0.01}
    assert command("audit", *flags, "--out", tmp_path / "a") == 0
    records = trials_in(tmp_path / "a")
    assert sorted({record.threat for record in records.values()}) == ["clean", "pretraining", "targeted", "weights"]
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Pre-training images" in page and "Labelled rows against one image" in page
    # The command in a record runs that trial alone, its group with it.
    last = next(record for record in reversed(records.values()) if record.threat == "pretraining")
    words = last.command.split()[2:]
    assert command("audit", *words[:-1], tmp_path / "b") == 0
    again = trials_in(tmp_path / "b")[last.trial]
    assert again.digests == last.digests and again.predictions == last.predictions
