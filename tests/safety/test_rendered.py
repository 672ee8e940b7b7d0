"""Every committed record renders as it did; `python -m tests.safety.renew rendered` remakes the digests on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.safety import rendered
from tests.safety.rendered import RECORDS

QUICK_BYTES = 400_000
QUICK_STUDY = "pacl"
"""All folders together take about two minutes; those below this size, and this study, about ten seconds."""
KNOWN: dict[str, Any] = json.loads(rendered.REFERENCE.read_text())
WHOLE = [
    pytest.param(
        name, marks=[pytest.mark.slow] if (RECORDS / name / "record.jsonl").stat().st_size > QUICK_BYTES else []
    )
    for name in rendered.audits()
]
STUDIES = [pytest.param(name, marks=[] if name == QUICK_STUDY else [pytest.mark.slow]) for name in rendered.studies()]


def test_every_folder_of_records_is_watched() -> None:
    assert rendered.audits() == sorted(KNOWN["audits"]) and len(rendered.audits()) > 100
    assert rendered.studies() == sorted(KNOWN["studies"]) == ["defences", "feature-targeted", "pacl"]


@pytest.mark.parametrize("name", WHOLE)
def test_a_record_renders_to_the_same_bytes(name: str) -> None:
    digests, markdown = rendered.audit(name)
    assert digests == KNOWN["audits"][name]
    committed = RECORDS / name / "report.md"
    # Some committed reports are older than the section of recommendations; the list of these must not grow.
    assert (committed.read_bytes() != markdown) == (name in KNOWN["older reports"])


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_renders_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    digests, page, data = rendered.study(name, tmp_path)
    assert digests == KNOWN["studies"][name]
    assert page == (RECORDS / name / "study.md").read_bytes()
    assert data == (RECORDS / name / "study.json").read_bytes()
