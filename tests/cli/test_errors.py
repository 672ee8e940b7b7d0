"""Every bad input ends in one line on stderr that says what was expected and what was found, and in exit code 2."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from foretaste.cli import main
from foretaste.errors import ForetasteError, SpecError
from tests.audits.audit_fixture import command, make_world

pytestmark = pytest.mark.usefixtures("here")

IMAGES = ["--data", "images.npz", "--encoder", "net.py:make"]
FEATURES = ["--features", "F.npz", "--validation", "V.npz", "--test", "T.npz"]
POISON = ["--budget", "0.1", "--out", "poison.npz"]
STEER = ["--target-index", "0", "--target-class", "1", "--out", "poisoned.safetensors"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("world"))
    random = np.random.default_rng(0)
    z, y = random.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 3
    x = random.integers(256, size=(30, 8, 8, 3)).astype(np.uint8)
    holes = z.copy()
    holes[3, 2] = np.nan
    for name, arrays in {
        "no-y": {"z": z},
        "nan": {"z": holes, "y": y},
        "narrow": {"z": z[:, :4], "y": y},
        "one-class": {"z": z, "y": y * 0},
        "negative": {"z": z, "y": y - 1},
        "text": {"z": z, "y": y.astype(str)},
        "flat": {"z": z[:, 0], "y": y},
        "float-images": {"x": x / 255, "y": y},
        "no-labels": {"x": x},
        "short-labels": {"x": x, "y": y[:-1]},
    }.items():
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "cut.npz").write_bytes((folder / "images.npz").read_bytes()[:5000])
    (folder / "words.npz").write_text("not a zip")
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99, 99, 3), }"
        archive.writestr("x.npy", header.ljust(127) + b"\n" + bytes(2**22))
        archive.writestr("y.npy", b"")
    (folder / "empty").mkdir()
    (folder / "broken.py").write_text("1 / 0")
    (folder / "text.py").write_text("def make():\n    return 'a network'\n")
    (folder / "wrong.yaml").write_text("data: images.npz\nencodr: net.py:make\n")
    (folder / "broken.yaml").write_text("data: [")
    (folder / "weights.pth").write_bytes(b"nothing to load")
    return folder


AUDITS = {
    "no such data": (["--data", "missing.npz", "--encoder", "net.py:make"], "missing.npz: an .npz file; got nothing"),
    "no such name": (["--data", "cifar11", "--encoder", "net.py:make"], "'cifar11' (no such folder)"),
    "a folder without images": (["--data", "empty", "--encoder", "net.py:make"], "empty"),
    "a missing key": (["--data", "no-labels.npz", "--encoder", "net.py:make"], "got no y among x"),
    "a wrong dtype": (["--data", "float-images.npz", "--encoder", "net.py:make"], "uint8 images"),
    "labels that do not match": (["--data", "short-labels.npz", "--encoder", "net.py:make"], "short-labels.npz"),
    "a truncated file": (["--data", "cut.npz", "--encoder", "net.py:make"], "cut.npz: a whole .npz file"),
    "another file": (["--data", "words.npz", "--encoder", "net.py:make"], "words.npz: a whole .npz file"),
    "a zip bomb": (["--data", "bomb.npz", "--encoder", "net.py:make"], "bomb.npz"),
    "no encoder": (["--data", "images.npz"], "encoder: the encoder to audit on these data; got none"),
    "an unknown encoder": (["--data", "images.npz", "--encoder", "resnet19"], "got 'resnet19'"),
    "a broken encoder file": (["--data", "images.npz", "--encoder", "broken.py:make"], "ZeroDivisionError"),
    "no network": (["--data", "images.npz", "--encoder", "text.py:make"], "got a str"),
    "no such callable": (["--data", "images.npz", "--encoder", "net.py:build"], "got no such name"),
    "weights that are none": ([*IMAGES, "--weights", "weights.pth"], "weights.pth"),
    "weights without an encoder": (["--weights", "weights.pth"], "got --weights without it"),
    "a mean of two numbers": ([*IMAGES, "--mean", "0.5,0.5", "--std", "1,1,1"], "--mean: 3 numbers"),
    "an unknown attack": ([*IMAGES, "--attacks", "nonsense"], "attack: one of label-flip"),
    "an unknown field": ([*IMAGES, "--attacks", "exact:stepz=3"], "stepz = 3 (extra inputs"),
    "a field out of range": ([*IMAGES, "--attacks", "exact:steps=0"], "steps = 0"),
    "a field without a value": ([*IMAGES, "--attacks", "exact:steps"], "name:field=value"),
    "no attack": ([*IMAGES, "--attacks", ""], "attacks: at least one"),
    "budgets that are no numbers": ([*IMAGES, "--budgets", "3%"], "--budgets: numbers separated by commas; got '3%'"),
    "a budget of 0": ([*IMAGES, "--budgets", "0"], "budgets: shares above 0"),
    "a budget below 0": ([*IMAGES, "--budgets", "-0.1"], "budgets: shares above 0"),
    "a budget that is too small": ([*IMAGES, "--attacks", "label-flip", "--budgets", "0.001"], "at least one row"),
    "seeds that are no number": ([*IMAGES, "--seeds", "many"], "Invalid value for '--seeds'"),
    "no seeds": ([*IMAGES, "--seeds", "0"], "seeds = 0"),
    "no targets": ([*IMAGES, "--targets", "0"], "targets = 0"),
    "an unknown probe": ([*IMAGES, "--probes", "svm"], "probe: one of exact"),
    "a ridge of 0": ([*IMAGES, "--ridge", "0"], "ridge = 0"),
    "a split of two numbers": ([*IMAGES, "--split", "0.5,0.5"], "--split: 3 numbers"),
    "a split above 1": ([*IMAGES, "--split", "0.5,0.5,0.5"], "must not exceed 1"),
    "an unknown device": ([*IMAGES, "--attacks", "label-flip", "--device", "abacus"], "'abacus'"),
    "an unknown precision": ([*IMAGES, "--precision", "half"], "precision = 'half'"),
    "an unknown flag": ([*IMAGES, "--epsilon", "8"], "No such option: --epsilon"),
    "features and an encoder": ([*FEATURES, "--encoder", "net.py:make"], "got features and encoder"),
    "features and data": ([*FEATURES, "--data", "images.npz"], "got features and data"),
    "test features alone": (["--test", "T.npz"], "validation and test: files of features"),
    "features without y": (["--features", "no-y.npz"], "no-y.npz: keys z (float [n, d]) and y (int [n]); got no y"),
    "features with NaN": (["--features", "nan.npz"], "nan.npz: finite features within float32; got NaN"),
    "features of one class": (["--features", "one-class.npz"], "y of at least two classes"),
    "labels below 0": (["--features", "negative.npz"], "negative.npz"),
    "labels that are text": (["--features", "text.npz"], "text.npz"),
    "features of one dimension": (["--features", "flat.npz"], "flat.npz: z float [n, d]"),
    "features of another width": (["--features", "F.npz", "--test", "narrow.npz"], "narrow.npz: features [n, 6]"),
    "an encoder attack on features": ([*FEATURES, "--attacks", "pacl"], "attacks that work on features"),
    "a pixel attack on features": ([*FEATURES, "--attacks", "exact:carrier=pixels"], "attacks that work on features"),
    "no such audit file": (["missing.yaml"], "missing.yaml: a readable YAML file"),
    "an audit file with a typo": (["wrong.yaml"], "wrong.yaml: the keys data, data_dir"),
    "an audit file that is no YAML": (["broken.yaml"], "broken.yaml: a readable YAML file"),
    "a trial that is not there": ([*FEATURES, "--budgets", "0.1", "--only", "ffff"], "--only: the identity of a trial"),
    "out is a file": ([*FEATURES, "--out", "net.py"], "--out net.py: a folder that can be written"),
}
EXACT = ["exact", "--features", "F.npz"]
ATTACKS = {
    "no attack": ([], "Missing argument 'name'"),
    "no out": (["exact"], "Missing option '--out'"),
    "an unknown attack": (["nonsense", "--features", "F.npz", *POISON], "attack: one of label-flip"),
    "an unknown field": ([*EXACT, *POISON, "--stepz", "3"], "stepz = '3' (extra inputs"),
    "a field without a value": ([*EXACT, *POISON, "--steps"], "--field value"),
    "a stray word": ([*EXACT, *POISON, "please"], "got 'please'"),
    "a field out of range": ([*EXACT, *POISON, "--constraint", "cube"], "constraint = 'cube'"),
    "fields that contradict": ([*EXACT, *POISON, "--epsilon", "8"], "epsilon is a constraint of carrier pixels"),
    "no input": (["exact", *POISON], "--features F.npz, or --data D with --encoder E; got neither"),
    "both inputs": (["exact", *IMAGES, "--features", "F.npz", *POISON], "got both"),
    "features and an encoder": ([*EXACT, "--encoder", "net.py:make", *POISON], "got both"),
    "features and a split": ([*EXACT, *POISON, "--limit", "9"], "beside --data"),
    "no encoder": (["exact", "--data", "images.npz", *POISON], "--encoder: the encoder under attack; got none"),
    "no budget": ([*EXACT, "--out", "p.npz"], "--budget: added rows / training rows; got none"),
    "a budget that is too small": ([*EXACT, "--budget", "0.001", "--out", "p.npz"], "at least one row; got 0.001"),
    "a budget below 0": ([*EXACT, "--budget", "-1", "--out", "p.npz"], "at least one row; got -1"),
    "a budget of nan": ([*EXACT, "--budget", "nan", "--out", "p.npz"], "at least one row; got nan"),
    "a ridge of 0": ([*EXACT, "--ridge", "0", *POISON], "--ridge: a positive number"),
    "out in no folder": ([*EXACT, "--budget", "0.1", "--out", "no/p.npz"], "--out no/p.npz: a file in a folder"),
    "out of another kind": ([*EXACT, "--budget", "0.1", "--out", "p.csv"], "--out: a file that ends in .npz"),
    "out is the input": ([*EXACT, "--budget", "0.1", "--out", "F.npz"], "--out F.npz: a file that is not an input"),
    "pixels of features": ([*EXACT, *POISON, "--carrier", "pixels"], "carrier pixels: images and an encoder"),
    "a target of a labelled attack": ([*EXACT, *POISON, "--target-index", "3"], "no target"),
    "validation of another width": ([*EXACT, *POISON, "--validation", "narrow.npz"], "narrow.npz: features [n, 6]"),
    "validation that is not there": ([*EXACT, *POISON, "--validation", "no.npz"], "no.npz: an .npz file; got nothing"),
    "weights of features": (["pacl", "--features", "F.npz", *STEER], "pacl: --data and --encoder"),
    "a budget of a weight attack": (["pacl", *IMAGES, *STEER, "--budget", "0.1"], "pacl: no budget"),
    "no target": (["pacl", *IMAGES, "--out", "p.safetensors"], "--target-index and --target-class"),
    "no target class": (["pacl", *IMAGES, "--target-index", "1", "--out", "p.safetensors"], "--target-class; got one"),
    "its own class": (["pacl", *IMAGES, *STEER, "--target-class", "0"], "another class than the target's own"),
    "an unknown class": (["pacl", *IMAGES, *STEER, "--target-class", "cat"], "--target-class: a number in [0, 2]"),
    "a class that is too large": (["pacl", *IMAGES, *STEER, "--target-class", "3"], "a number in [0, 2]"),
    "a row outside": (
        ["pacl", *IMAGES, *STEER, "--target-index", "60"],
        "--target-index: a test row in [0, 59]; got 60",
    ),
    "a row below 0": (["pacl", *IMAGES, *STEER, "--target-index", "-1"], "a test row in [0, 59]; got -1"),
    "its own class, bad-encoder": (["bad-encoder", *IMAGES, *STEER, "--target-class", "0"], "another class than the"),
    "a shadow set below a batch": (["bad-encoder", *IMAGES, *STEER, "--batch", "999"], "shadow: a batch of 999 images"),
    "a class without references": (
        ["bad-encoder", *IMAGES, *STEER, "--split", "0.9,0,0"],
        "references: images of the one class that the target shall get; got no image",
    ),
    "an encoder as npz": (["pacl", *IMAGES, *STEER, "--out", "p.npz"], "--out: a file that ends in .safetensors"),
}
OTHERS = {
    "an unknown command": (["adit"], "No such command 'adit'"),
    "an unknown flag": (["--verbose"], "No such option: --verbose"),
    "cache without a verb": (["cache"], "Missing command"),
    "an unknown method": (["list", "nonsense"], "list: one of label-flip"),
    "a report of nothing": (["report", "empty"], "empty/record.jsonl: a record file; got nothing there"),
    "a report of no folder": (["report", "nowhere"], "nowhere: a record file; got nothing there"),
    "pre-training on no rows": (
        ["pretrain", "--data", "images.npz", "--limit", "0", "--out", "e.safetensors"],
        "--split, --split-seed and --limit: shares, a seed and a number of rows; got limit = 0",
    ),
    "a seed of the split below 0": (
        ["attack", "exact", *IMAGES, *POISON, "--split-seed", "-1"],
        "--split, --split-seed and --limit: shares, a seed and a number of rows; got seed = -1",
    ),
    "an unknown pre-training": (
        ["pretrain", "--data", "images.npz", "--method", "moco", "--out", "e.safetensors"],
        "method: one of simclr",
    ),
}
CASES = {
    **{f"audit: {name}": (["audit", *words], text) for name, (words, text) in AUDITS.items()},
    **{f"attack: {name}": (["attack", *words], text) for name, (words, text) in ATTACKS.items()},
    **OTHERS,
}


def contents(folder: Path) -> list[str]:
    """Names in a folder, without the bytecode that Python leaves beside the user's own encoder."""
    return sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_exit_code_2(case: str, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, text = CASES[case]
    before = contents(world)
    assert command(*words) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("clean pipeline: ")]
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("foretaste: ")
    assert text in lines[0]
    assert "Traceback" not in printed.err and "internal error" not in printed.err
    assert printed.out == ""
    assert contents(world) == before, "left something behind"


@pytest.mark.parametrize("words", [["--debug", "audit", "missing.yaml"], ["audit", "missing.yaml", "--debug"]], ids=str)
def test_debug_shows_where(words: list[str]) -> None:
    with pytest.raises(SpecError, match="readable YAML"):
        main(words)


def test_debug_prints_a_traceback_and_nothing_else_does() -> None:
    """In a process of its own, as a user sees it."""
    program = "from foretaste.cli import main; main()"
    plain, debug = (
        subprocess.run([sys.executable, "-c", program, "audit", "no.yaml", *more], capture_output=True, text=True)
        for more in ([], ["--debug"])
    )
    assert plain.returncode == 2 and "Traceback" not in plain.stderr and plain.stderr.count("\n") == 1
    assert debug.returncode != 0 and "Traceback" in debug.stderr and "SpecError" in debug.stderr


def test_what_nobody_foresaw_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from foretaste.cli import listing

    for error, text in (
        (ZeroDivisionError("two\nlines"), "internal error, ZeroDivisionError: two lines; run again with --debug"),
        (MemoryError(), "out of memory; pass fewer rows"),
        (ForetasteError("a\nb"), "foretaste: a b."),
    ):

        def fail(error: Exception = error) -> str:
            raise error

        monkeypatch.setattr(listing, "everything", fail)
        assert command("list") == 2
        printed = capsys.readouterr().err
        assert text in printed
        assert printed.count("\n") == 1


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from foretaste.cli import listing

    def stop() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(listing, "everything", stop)
    assert command("list") == 130
    printed = capsys.readouterr().err
    assert printed.startswith("foretaste: interrupted")
    assert printed.count("\n") == 1
