"""`foretaste reproduce`: the claims are drawn from the records, and from nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from foretaste.cli.app import app
from foretaste.errors import RecordError
from foretaste.record import read
from foretaste.studies.feature_targeted import collect
from foretaste.studies.page import write_study
from foretaste.studies.spec import Study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study, run from the command line."""
    base = tmp_path_factory.mktemp("study")
    plan = {
        "study": "feature-targeted",
        "common": {"seeds": 2, "split": {"limit": 300}, "budgets": [0.05]},
        "audits": {
            "one": {
                "scenario": "same data",
                "encoder": "E",
                "data": "D",
                "audit": {"attacks": ["label-flip", "exact:steps=10", "gradient-canceling:head_radius=1"]},
            }
        },
    }
    (base / "plan.yaml").write_text(yaml.safe_dump(plan))
    words = ["reproduce", "feature-targeted", "--plan", str(base / "plan.yaml"), "--out", str(base / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return base / "out"


def test_page_and_data_say_what_the_record_says(folder: Path) -> None:
    entries, counted, _ = collect(folder, Study.read(folder / "study.yaml").audits)
    assert counted == entries
    trials = [trial for trial in read(folder / "one") if trial.attack == "exact"]
    drops = [trial.scores["exact"].clean.value - trial.scores["exact"].poisoned.value for trial in trials]  # type: ignore[union-attr]
    (own,) = [e for e in entries if e.attack == "exact"]
    assert own.seeds == 2 and own.drop.value == pytest.approx(sum(drops) / 2)
    page, data = (folder / "study.md").read_text(), json.loads((folder / "study.json").read_text())
    assert "not measured" in page and "E on D" in page
    assert len(data["entries"]) == 3 and data["goals"][0]["comparisons"] == 1


def test_a_study_that_is_there_is_not_run_again(folder: Path) -> None:
    before = (folder / "one" / "record.jsonl").read_bytes()
    plan = folder.parent / "plan.yaml"
    done = CliRunner().invoke(app, ["reproduce", "feature-targeted", "--plan", str(plan), "--out", str(folder)])
    assert done.exit_code == 0 and (folder / "one" / "record.jsonl").read_bytes() == before


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="run `foretaste reproduce` first"):
        write_study(tmp_path)
    done = CliRunner().invoke(app, ["reproduce", "nonsense"])
    assert done.exit_code != 0


def test_plans_and_pages_need_no_torch() -> None:
    program = (
        "import sys\n"
        "from foretaste.studies import page, spec\n"
        "spec.Study.read(page.Path(page.__file__).with_name('pacl.yaml'))\n"
        "print(sorted({'torch', 'torchvision', 'timm', 'sklearn', 'scipy', 'foretaste.audits'} & set(sys.modules)))\n"
    )
    source = Path(write_study.__code__.co_filename).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(source)}
    )
    assert done.stdout.strip() == "[]"
