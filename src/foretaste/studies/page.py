"""A study's page: its audits side by side, and the statements drawn from them. From its plan and its records alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foretaste.errors import RecordError
from foretaste.record import Estimate
from foretaste.studies import defences, feature_targeted, pacl
from foretaste.studies.grid import Part
from foretaste.studies.spec import Study

FILE, PAGE, DATA = "study.yaml", "study.md", "study.json"
Made = tuple[list[str], dict[str, Any]]
"""Sections in Markdown, and the same as values."""
PAGES: dict[str, Callable[[Path, dict[str, Part]], Made]] = {
    "feature-targeted": feature_targeted.page,
    "pacl": pacl.page,
    "defences": defences.page,
}


def write_study(folder: Path) -> list[Path]:
    """Write study.md and study.json from the records in a study's folder.

    Raises:
        RecordError: no study there, or an audit's record is damaged.
        SpecError: its plan is none.
    """
    name, (sections, values) = _make(folder)
    (folder / PAGE).write_text(_text(name, sections), encoding="utf-8")
    (folder / DATA).write_text(json.dumps(values, indent=1, default=_json) + "\n", encoding="utf-8")
    return [folder / PAGE, folder / DATA]


def page_of(folder: Path) -> str:
    """The study's page, in Markdown.

    Raises:
        RecordError: as `write_study`.
    """
    name, (sections, _) = _make(folder)
    return _text(name, sections)


def _make(folder: Path) -> tuple[str, Made]:
    path = folder / FILE
    if not path.is_file():
        raise RecordError(f"{path}: a study", got="nothing there", do="run `foretaste reproduce` first")
    study = Study.read(path)
    done = {name: part for name, part in study.audits.items() if (folder / name).is_dir()}  # others: not run yet
    return study.study, PAGES[study.study](folder, done)


def _text(name: str, sections: list[str]) -> str:
    return "\n\n".join([f"# Study: {name}", *sections]).rstrip() + "\n"


def _json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Estimate) else str(value)
