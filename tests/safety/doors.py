"""The doors through which the safety net enters the house: if one of them moves, this file changes and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foretaste.attacks import configure
from foretaste.audits.runner import run
from foretaste.audits.spec import AuditSpec, Group, TrialSpec
from foretaste.record import TrialRecord, read
from foretaste.report import Report, render
from foretaste.studies.page import write_study

__all__ = ["AuditSpec", "Report", "TrialRecord", "Watched", "audit", "identity", "read", "render", "study"]


class Watched:
    """A watcher that counts: what an audit had to do, and what was there already."""

    def __init__(self) -> None:
        self.total, self.done = 0, 0
        self.run: list[str] = []

    def stage(self, name: str, done: int, total: int) -> None: ...

    def planned(self, total: int, done: int) -> None:
        self.total, self.done = total, done

    def started(self, label: str) -> None:
        self.run.append(label)

    def step(self, done: int, total: int) -> None: ...

    def finished(self, record: TrialRecord) -> None: ...


def audit(spec: AuditSpec, folder: Path) -> Watched:
    """Run what is missing in an audit's folder; how much that was."""
    watched = Watched()
    run(spec, folder, watched)
    return watched


def study(folder: Path) -> tuple[bytes, bytes]:
    """Write study.md and study.json into a study's folder; their bytes."""
    page, data = write_study(folder)
    return page.read_bytes(), data.read_bytes()


def identity(audit: dict[str, Any], attack: str, pairs: list[tuple[int, int]] | None = None) -> str:
    """Identity of a trial on made-up inputs: what the audit's and the attack's settings make of it.

    Args:
        audit: values of an `AuditSpec`.
        attack: as on the command line.
        pairs: of an attack on one image, those that share its run.
    """
    spec = AuditSpec.make({**audit, "attacks": [attack]})
    (method,) = spec.attacks
    entry = {"name": "none"} if method.name == "none" else configure(method.name, method.fields).entry()
    cell: dict[str, Any] = {"budget": 0.1} if pairs is None else {"target": pairs[0]}
    if pairs is not None and len(pairs) > 1:
        cell["group"] = Group(first=0, pairs=tuple(pairs))
    inputs = {"train": "0" * 64, "encoder": "1" * 64}
    return TrialSpec.model_validate({"base": spec.base(), "inputs": inputs, "attack": entry, **cell}).identity
