"""The report as a whole: without an encoder, its title, its files, and how fast it is."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from foretaste import report
from foretaste.errors import RecordError
from foretaste.record import FILE_NAME, TrialRecord, append


def only(records: list[TrialRecord], *threats: str) -> list[TrialRecord]:
    return [trial for trial in records if trial.threat in threats]


def test_features_from_a_file_need_no_encoder(audit: list[TrialRecord]) -> None:
    rendered = report.render([trial.model_copy(update={"encoder": None}) for trial in only(audit, "clean", "labelled")])
    assert "features from a file" in rendered.html


def test_a_hundred_trials_render_in_a_second(audit: list[TrialRecord]) -> None:
    second = [t.model_copy(update={"trial": f"{t.trial}b", "variant": f"{t.variant} b"}) for t in audit[1:]]
    start = time.process_time()
    report.render([*audit, *second])
    assert time.process_time() - start < 1.0


def test_write_makes_both_files_whole(tmp_path: Path, audit: list[TrialRecord], rendered: report.Report) -> None:
    for trial in audit:
        append(tmp_path, trial)
    page, text = report.write(tmp_path)
    assert (page, text) == (tmp_path / "report.html", tmp_path / "report.md")
    assert page.read_bytes().decode() == rendered.html  # the same records, the same bytes
    assert text.read_bytes().decode() == rendered.markdown
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, "report.html", "report.md"]
    (tmp_path / FILE_NAME).write_text("{}\n")
    with pytest.raises(RecordError, match="line 1"):
        report.write(tmp_path)
    assert page.read_bytes().decode() == rendered.html


def test_title_is_escaped(audit: list[TrialRecord]) -> None:
    rendered = report.render(audit[:1], title="<script>alert(4)</script>")
    assert "<h1>&lt;script&gt;alert(4)&lt;/script&gt;</h1>" in rendered.html
    assert rendered.markdown.startswith("# &lt;script&gt;")


def test_report_needs_neither_torch_nor_plotlys_python_side() -> None:
    program = (
        "import sys\n"
        "from tests import records_fixture as planted\n"
        "from foretaste import report\n"
        "report.render(planted.audit()[:3])\n"
        "heavy = {'torch', 'torchvision', 'timm', 'sklearn', 'scipy', 'plotly.graph_objs', 'plotly.io'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    here = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=here,
        env={"PYTHONPATH": f"{here}:{Path(report.__file__).parents[2]}", "PATH": ""},
    )
    assert run.stdout.strip() == "[]"
