"""What CONTRIBUTING shows runs as it stands: methods from outside, their checks, and an audit with them."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import foretaste as ft
from foretaste import attacks, defences, probes
from tests.audits.audit_fixture import command

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHECKS: dict[str, Callable[..., None]] = {
    "mine.py:MeanFlip": ft.testing.check_attack,
    "watch.py:MedianDistance": ft.testing.check_filter,
    "heads.py:NearestMean": ft.testing.check_probe,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def files() -> dict[str, str]:
    """Code by the file name in its first line."""
    return {match[1]: block for block in blocks("python") if (match := re.match(r"# (\w+\.py)\n", block))}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has the files."""
    for name, block in files().items():
        (tmp_path / name).write_text(block)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_of_each_in_under_thirty_lines() -> None:
    assert list(files()) == ["mine.py", "watch.py", "heads.py"]
    assert all(len(block.splitlines()) < 30 for block in files().values())


@pytest.mark.parametrize("reference", CHECKS)
def test_each_keeps_its_promises(written: Path, reference: str) -> None:
    CHECKS[reference](reference)


def test_the_checks_run_as_shown(written: Path) -> None:
    (shown,) = [block for block in blocks("python") if "ft.testing" in block]
    assert all(reference in shown for reference in CHECKS)
    exec(shown, {})


def words(line: str, world: Path) -> Iterator[str]:
    for word in line.split():
        yield str(world / word) if word == "F.npz" else word


def test_the_command_line_runs_as_shown(written: Path, world: Path) -> None:
    shown = re.search(r"^    foretaste (audit --features .*?)\n\n", TEXT, re.DOTALL | re.MULTILINE)
    assert shown is not None
    out = written / "out"
    line = [*words(shown[1].replace("\\\n", ""), world), "--seeds", "1", "--out", str(out)]
    assert command(*line) == 0
    records = ft.read_records(out)
    assert [(record.attack, record.budget) for record in records] == [
        ("none", None),
        ("mean-flip", 0.03),
        ("mean-flip", 0.1),
        ("label-flip", 0.03),
        ("label-flip", 0.1),
    ]
    digest = {name: hashlib.sha256(block.encode()).hexdigest()[:16] for name, block in files().items()}
    spec = json.loads((out / "record.jsonl").read_text().splitlines()[1])["spec"]
    assert spec["attack"] == {"name": "mean-flip", "to": "nearest", "code": digest["mine.py"]}
    assert spec["base"]["defences"][0] == {"name": "median-distance", "norm": 2.0, "code": digest["watch.py"]}
    assert spec["base"]["probes"][1] == {"name": "nearest-mean", "shrink": 0.0, "code": digest["heads.py"]}
    assert all(list(record.scores) == ["exact", "nearest-mean"] for record in records)
    assert all(record.status == "ok" for record in records)
    assert all(check.ok for record in records for check in record.referee)
    assert {name for record in records[1:] for name in record.defences} >= {"median-distance", "sphere"}


def test_the_file_of_an_audit_is_read_as_shown(written: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = blocks("yaml")
    audit = yaml.safe_load(shown)
    audit |= {"features": str(world / "F.npz"), "budgets": [0.1], "seeds": 1}
    Path("audit.yaml").write_text(yaml.safe_dump(audit))
    assert command("audit", "audit.yaml", "--out", "out") == 2
    assert "--trust-code" in capsys.readouterr().err
    assert command("audit", "audit.yaml", "--trust-code", "--out", "out") == 0
    assert [record.attack for record in ft.read_records(Path("out"))] == ["none", "mean-flip", "label-flip"]


def test_the_entry_points_are_those_that_are_looked_up(written: Path) -> None:
    (shown,) = blocks("toml")
    points = tomllib.loads(shown)["project"]["entry-points"]
    assert set(points) == {attacks.GROUP, defences.GROUP, probes.GROUP}
    found = {name: table for group in points.values() for name, table in group.items()}
    classes = {attacks.find("mine.py:MeanFlip"), defences.find("watch.py:MedianDistance")}
    classes.add(probes.find("heads.py:NearestMean"))
    assert {f"my_package.{place}" for place in ("mine:MeanFlip", "watch:MedianDistance", "heads:NearestMean")} == set(
        found.values()
    )
    assert {cls.name for cls in classes} == set(found)


GREEDY = """

class Greedy(MeanFlip):
    name: ClassVar[str] = "greedy"

    def poison(self, known, rows, seed, progress=None):
        return super().poison(known, rows + 1, seed)
"""


def test_one_that_breaks_its_promise_is_a_failed_trial_and_the_audit_goes_on(written: Path, world: Path) -> None:
    with Path("mine.py").open("a") as file:
        file.write(GREEDY)
    line = ["audit", "--features", world / "F.npz", "--test", world / "T.npz", "--validation", world / "V.npz"]
    line += ["--attacks", "mine.py:Greedy,mine.py:MeanFlip,label-flip", "--budgets", 0.1, "--seeds", 1]
    assert command(*line, "--out", "out") == 1
    found = {record.attack: record for record in ft.read_records(Path("out"))}
    assert {name: record.status for name, record in found.items()} == {
        "none": "ok",
        "greedy": "failed",
        "mean-flip": "ok",
        "label-flip": "ok",
    }
    error = found["greedy"].error
    assert error is not None and error.message.startswith(
        "referee: budget as promised; got 10 rows of at most 0.1 x 90"
    )
    with pytest.raises(
        ft.testing.ConformanceError, match="greedy: referee: budget as promised; got 10 rows of at most"
    ):
        ft.testing.check_attack("mine.py:Greedy")


def test_from_python_a_configured_value_does_the_same(
    written: Path, world: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.syspath_prepend(written)
    mine = import_module("mine")
    request.addfinalizer(lambda: sys.modules.pop("mine"))
    ft.testing.check_attack(mine.MeanFlip, to="nearest")
    fixed = {"features": world / "F.npz", "budgets": [0.1], "seeds": 1, "progress": False}
    done = ft.audit(attacks=[mine.MeanFlip(to="nearest"), "label-flip"], out="one", **fixed)
    named = ft.audit(attacks=["mine.py:MeanFlip:to=nearest"], out="two", **fixed)
    assert [record.attack for record in done.records] == ["none", "mean-flip", "label-flip"]
    assert not done.failures
    assert done.records[1].scores == named.records[1].scores
    assert done.records[1].spec["attack"]["to"] == "nearest"
