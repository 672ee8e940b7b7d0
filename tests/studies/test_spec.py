"""Plans of studies: grids and audits spelled out, and what is wrong with a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from foretaste.cli.reproduce import audits_of
from foretaste.errors import SpecError
from foretaste.record import digest_of
from foretaste.studies.spec import Study

ROOT = Path(__file__).parents[2]
PLANS = json.loads(Path(__file__).with_name("plans.json").read_text())
"""By study and folder: digests of audits as they were spelled out before there were grids, and run."""

GRID: dict[str, Any] = {
    "study": "pacl",
    "common": {"targets": 5},
    "encoders": {
        "near": {
            "trained_on": "a",
            "words": {"file": "w.pt"},
            "audit": {"encoder": "{file}", "precision": "x"},
        },
        "far": {"audit": {"encoder": "{encoder}"}},
    },
    "data": {"a": "a.npz", "b": {"called": "b to c", "words": {"rows": 7}, "audit": {"data": "b.npz@b:c"}}},
    "questions": {
        "plain": {"audit": {"attacks": ["pacl", ["x", "y"]]}},
        "other": {"question": "odd", "knowledge": "little", "audit": {"precision": "y", "null": "{encoder}/{data}"}},
    },
    "grid": [
        {"encoders": ["near", "far"], "data": ["a"], "questions": ["plain", "other"]},
        {
            "encoders": ["near"],
            "data": ["b"],
            "questions": ["plain"],
            "audit": {"limit": "{rows}"},
            "folder": "l-{data}",
        },
    ],
    "audits": {"own": {"scenario": "transfer", "encoder": "E", "data": "D", "audit": {"data": "{not a word}"}}},
}


def planned(tmp_path: Path, **changes: Any) -> Study:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({**GRID, **changes}, sort_keys=False))
    return Study.read(path)


def test_a_grid_is_the_product_of_its_axes_with_questions_fastest(tmp_path: Path) -> None:
    study = planned(tmp_path)
    assert list(study.audits) == ["near-a-plain", "near-a-other", "far-a-plain", "far-a-other", "l-b", "own"]
    one, other, far, _, last, own = study.audits.values()
    assert (one.scenario, one.encoder, one.data, one.question, one.knowledge) == (
        "same data",
        "near",
        "a",
        "headline",
        "full",
    )
    assert (other.question, other.knowledge, far.scenario) == ("odd", "little", "transfer")
    assert (last.scenario, last.data) == ("transfer", "b to c")
    assert study.values("near-a-plain") == {
        "targets": 5,
        "encoder": "w.pt",
        "precision": "x",
        "data": "a.npz",
        "attacks": ["pacl", "x", "y"],
    }
    assert study.values("far-a-other") == {
        "targets": 5,
        "encoder": "far",
        "data": "a.npz",
        "precision": "y",
        "null": "far/a",
    }
    assert other.audit["precision"] == "y", "a question stands over its encoder"
    assert last.audit["limit"] == 7, "a word alone keeps its type"
    assert own.audit == {"data": "{not a word}"}, "what is spelled out is taken as it is"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoders": {}}, "encoders of a grid: one of none, since none is named; got 'near'"),
        ({"questions": {"plain": {"audit": {"attacks": ["pacl:steps={steps}"]}}}}, r"words of a grid: .*{steps}"),
        ({"audits": {"l-b": GRID["audits"]["own"]}}, "folders of their own; got l-b twice"),
        ({"grid": [], "audits": {}}, "at least one audit"),
        ({"grid": [{"encoders": ["near"], "data": [], "questions": ["plain"]}]}, "grid.0.data"),
        ({"grid": [{**GRID["grid"][0], "folder": "../{encoder}{question}"}]}, "named like folders"),
        ({"questions": {"plain": {"attacks": []}}}, "questions.plain.attacks"),
    ],
)
def test_wrong_grids(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        planned(tmp_path, **changes)


def test_plans_of_the_project_can_be_read() -> None:
    found = [*(ROOT / "src" / "foretaste" / "studies").glob("*.yaml"), *(ROOT / "records").glob("*/study.yaml")]
    assert len(found) == 6
    for path in found:
        assert audits_of(Study.read(path))


def test_the_plan_in_the_documents(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "cli.md").read_text().partition("```yaml\nstudy:")[2].partition("```")[0]
    path = tmp_path / "plan.yaml"
    path.write_text(f"study:{text}")
    names = ["simclr-cifar10-weights", "simclr-cifar10-repairs", "simclr-photo-weights", "simclr-photo-repairs"]
    assert list(audits_of(Study.read(path))) == [*names, "one-more"]


@pytest.mark.parametrize("name", PLANS)
def test_plans_of_the_records_are_the_audits_that_were_run(name: str) -> None:
    study = Study.read(ROOT / "records" / name / "study.yaml")
    digests = {
        folder: digest_of(
            [part.scenario, part.encoder, part.data, part.knowledge, part.question, study.values(folder)]
        )[:16]
        for folder, part in study.audits.items()
    }
    assert list(digests.items()) == list(PLANS[name].items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: nonsense\naudits: {}", "study = 'nonsense'"),
        (
            "study: feature-targeted\naudits: {a: {scenario: same data, encoder: e, data: d, audit: {bugdets: [1]}}}",
            "audit a: the keys",
        ),
        ("study: feature-targeted\naudits: {../a: {scenario: same data, encoder: e, data: d}}", "named like folders"),
        ("a: [", "readable YAML"),
    ],
)
def test_wrong_plans(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        audits_of(Study.read(path))
