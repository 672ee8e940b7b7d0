"""`foretaste scan` from files to table and JSON, and every wrong input with exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import clean_encoders

from foretaste.defences.scans.report import ScanReport
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import save_encoder
from tests.audits.audit_fixture import command
from tests.defences import scans_fixture as toy

pytestmark = pytest.mark.usefixtures("here")

NARROW = """
from net import Tiny
from torch import nn


def make():
    network = Tiny()
    network.head = nn.Linear(32, 4)
    return network
"""
FLAGS = ["--encoder", "net.py:make", "--data", "images.npz", "--threads", 1]


@pytest.fixture(scope="module")
def files(world: Path) -> Path:
    """original, suspect (one tensor changed), other and narrow.safetensors, and three clean encoders in null/."""
    (world / "narrow.py").write_text(f"import sys\nsys.path.insert(0, {str(world)!r})\n{NARROW}")
    clean = build(EncoderSpec(reference=f"{world / 'net.py'}:make"), (8, 8))

    def write(name: str, encoder: Encoder) -> None:
        path = world / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_encoder(path, encoder.body.state_dict(), encoder.card.model_copy(update={"name": name}), overwrite=True)

    write("original", clean)
    write("suspect", toy.jittered(clean, 1, by=0.3, only="head.weight"))
    write("own", toy.jittered(clean, 13))
    write("other", toy.jittered(clean, 2, by=1.0))
    write("narrow", build(EncoderSpec(reference=f"{world / 'narrow.py'}:make"), (8, 8)))
    for seed in range(3):
        write(f"null/clean-{seed}", toy.jittered(clean, 10 + seed))
        write(f"foreign/clean-{seed}", toy.jittered(toy.jittered(clean, 20, by=1.0), 30 + seed))
    (world / "empty").mkdir(exist_ok=True)
    return world


def scan(*words: object) -> int:
    return command("scan", "suspect.safetensors", *words)


def written(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    ScanReport.model_validate_json(text)
    return dict(json.loads(text))


@pytest.mark.usefixtures("files")
def test_from_files_to_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scan.json"
    words = [*FLAGS, "--reference", "original.safetensors", "--null", "null", "--out", out]
    words += ["--other", "net.py:make", "--other-weights", "other.safetensors"]
    assert scan(*words, "--scans", "drift,decree:steps=3:batch=8,neighbours:k=5,weight-statistics") == 0
    text = capsys.readouterr().out
    report = written(out)
    assert set(report) == {
        *("format", "suspect", "reference", "other", "null", "data", "seed", "scans", "notes", "versions"),
    }
    assert report["format"] == "foretaste.scan/1" and report["notes"] == []
    assert report["data"]["rows"] == 60 and report["data"]["part"] == "test"
    assert [one["name"] for one in report["null"]] == ["clean-0", "clean-1", "clean-2"] or len(report["null"]) == 3
    assert [one["scan"] for one in report["scans"]] == ["drift", "decree", "neighbours", "weight-statistics"]
    for one in report["scans"]:
        assert set(one) == {
            *("scan", "fields", "score", "null_scores", "false_alarm_rate", "original_rate", "verdict"),
            *("inputs", "evidence"),
        }
        at_least = sum(value >= one["score"] for value in one["null_scores"])
        assert len(one["null_scores"]) == 3 and one["false_alarm_rate"] == (1 + at_least) / 4
        assert " ".join(one["verdict"].split()[:3]) in " ".join(text.split())
    drift = report["scans"][0]
    assert [row["name"] for row in drift["evidence"]["changed"]] == ["head.weight"]
    assert len(drift["inputs"]) == 60 and max(drift["inputs"]) == drift["evidence"]["top"][0]["gain"]
    assert set(drift["evidence"]["cka"]) == {"conv", "bn", "head", "features"}
    assert drift["evidence"]["cka"]["conv"] == pytest.approx(1) and drift["evidence"]["cka"]["head"] < 1
    assert "drift: 1 of 9 tensors changed" in text and "head.weight" in text and f"wrote {out}" in text
    first = drift["evidence"]["top"][0]
    assert any(line.split()[:3] == [str(first["index"]), first["label"], first["towards"]] for line in text.split("\n"))


@pytest.mark.usefixtures("files")
def test_where_the_original_stands_out_as_well_the_verdict_says_so(tmp_path: Path) -> None:
    """Clean encoders of another kind than the original: whatever is scanned is unlike them."""
    words = [*FLAGS, "--reference", "own.safetensors", "--scans", "drift,weight-statistics"]
    found = {}
    for null in ("null", "foreign"):  # the reference is one more of the former kind
        assert scan(*words, "--null", null, "--out", tmp_path / f"{null}.json") == 0
        found[null] = written(tmp_path / f"{null}.json")["scans"]
    drift, weights = found["foreign"]
    assert weights["false_alarm_rate"] == weights["original_rate"] == 1 / 4
    assert weights["verdict"].endswith("3 clean encoders, as the original is: no sign of an edit")
    assert drift["original_rate"] == 1, "it is at no distance from itself"
    drift, weights = found["null"]
    assert weights["false_alarm_rate"] == 1 / 4 < weights["original_rate"]
    assert weights["verdict"].endswith("3 can show no rate below 0.25")


@pytest.mark.usefixtures("files")
def test_without_clean_encoders_scores_and_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And all scans that can be run; the same command writes the same bytes."""
    words = [*FLAGS, "--reference", "original.safetensors", "--part", "train", "--limit", 30]
    words += ["--scans", "drift,weight-statistics"]
    assert scan(*words, "--out", tmp_path / "a.json") == scan(*words, "--out", tmp_path / "b.json") == 0
    assert "note: no calibrated verdict without --null" in capsys.readouterr().out
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    report = written(tmp_path / "a.json")
    assert report["data"]["rows"] == 30
    assert all(one["false_alarm_rate"] is None and one["null_scores"] == [] for one in report["scans"])
    assert all(one["original_rate"] is None for one in report["scans"])


@pytest.mark.usefixtures("files")
def test_by_default_all_scans_that_have_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    from foretaste.audits.scan_once import Request, scans_of

    spec = EncoderSpec(reference="net.py:make")
    some = Request(spec, data="images.npz")
    assert [one.name for one in scans_of(None, some)] == ["decree", "weight-statistics"]
    assert [one.name for one in scans_of(None, Request(spec, data="images.npz", reference=Path("a"), other=spec))] == [
        *("drift", "decree", "neighbours", "weight-statistics"),
    ]
    assert scan("--encoder", "net.py:make", "--scans", "weight-statistics", "--null", "null") == 0  # no image needed
    assert "weight-statistics: most unusual" in capsys.readouterr().out


WRONG: dict[str, tuple[list[object], str]] = {
    "no data": (["--encoder", "net.py:make"], "--data: images to look at"),
    "no data for the scan": (["--encoder", "net.py:make", "--scans", "decree"], "decree: --data; got no --data"),
    "no reference": ([*FLAGS, "--scans", "drift"], "drift: --data, --reference; got no --reference"),
    "no other": ([*FLAGS, "--scans", "neighbours"], "neighbours: --data, --other; got no --other"),
    "unknown scan": ([*FLAGS, "--scans", "sphere"], "scan: one of drift"),
    "unknown field": ([*FLAGS, "--scans", "decree:stepps=3"], "decree: fields steps"),
    "twice": ([*FLAGS, "--scans", "decree,decree"], "each one once"),
    "none": ([*FLAGS, "--scans", ","], "one scan at least"),
    "reference of another shape": (
        [*FLAGS, "--reference", "narrow.safetensors"],
        "--reference narrow.safetensors: an encoder of the suspect's architecture",
    ),
    "no such reference": ([*FLAGS, "--reference", "nowhere.safetensors"], "no such file"),
    "no such null": ([*FLAGS, "--null", "nowhere"], "--null nowhere: a folder of clean encoders; got no such folder"),
    "empty null": ([*FLAGS, "--null", "empty"], "--null empty: .safetensors files of clean encoders; got none"),
    "null of another shape": ([*FLAGS, "--null", "."], "an encoder of the suspect's architecture"),
    "weights of nothing": ([*FLAGS, "--other-weights", "other.safetensors"], "--other: the encoder"),
    "part": ([*FLAGS, "--part", "both"], "--part: test or train"),
    "out": ([*FLAGS, "--out", "scan.txt"], "a .json file in a folder that exists"),
    "out in no folder": ([*FLAGS, "--out", "nowhere/scan.json"], "no folder nowhere"),
}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = WRONG[case]
    assert scan(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("foretaste: ") and error.count("\n") == 1


@pytest.mark.usefixtures("files")
def test_the_suspect_is_no_clean_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "copy.safetensors").write_bytes(Path("suspect.safetensors").read_bytes())
    assert scan(*FLAGS, "--null", tmp_path) == 2
    assert "none of them the suspect" in capsys.readouterr().err
    assert command("scan", "nowhere.safetensors", *FLAGS) == 2
    assert "nowhere.safetensors: a weight file; got no such file" in capsys.readouterr().err


def test_clean_encoders_are_further_training_of_the_original(tmp_path: Path) -> None:
    """Several, different, of the same architecture, near where they started; a second run makes none again."""
    words = ["--encoder", "net.py:make", "--data", "images.npz", "--out", str(tmp_path), "--count", "2"]
    words += ["--epochs", "1", "--batch", "32", "--device", "cpu"]
    clean_encoders.main(words)
    paths = sorted(tmp_path.glob("*.safetensors"))
    assert [path.name for path in paths] == ["clean-000.safetensors", "clean-001.safetensors"]
    start = build(EncoderSpec(reference="net.py:make"), (8, 8))
    made = [build(EncoderSpec(reference="net.py:make", weights=path), (8, 8)) for path in paths]
    assert len({start.card.sha256, *(encoder.card.sha256 for encoder in made)}) == 3
    for encoder in made:
        weight, first = encoder.body.state_dict()["conv.weight"], start.body.state_dict()["conv.weight"]
        assert 0 < float((weight - first).norm() / first.norm()) < 0.5
    before = [path.read_bytes() for path in paths]
    paths[1].unlink()
    clean_encoders.main(words)
    assert [path.read_bytes() for path in paths] == before
    assert np.isfinite([float(weight.abs().max()) for encoder in made for weight in encoder.parameters()]).all()
