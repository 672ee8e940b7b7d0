"""A small world to audit: images and features with planted classes, a tiny network, and a way to run commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foretaste.audits.grid import Trial
from foretaste.audits.prepare import PreparedAudit
from foretaste.audits.runner import Outcome, run
from foretaste.audits.spec import AuditSpec
from foretaste.audits.training import TrainingSet, mix
from foretaste.audits.victim import Victim
from foretaste.cli import main
from foretaste.record import TrialRecord, read

CLASSES, SIDE, DIMENSIONS = 3, 8, 6
NET = """
import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(32, 8)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def make():
    return Tiny()
"""


def make_world(folder: Path) -> Path:
    """Write images.npz (120 + 60 rows), net.py, and F.npz, V.npz, T.npz (90, 60 and 75 rows of features)."""
    random = np.random.default_rng(5)
    prototypes = random.integers(70, 186, (CLASSES, SIDE, SIDE, 3))

    def images(rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
        y = np.arange(rows) % CLASSES
        noise = random.normal(0, 30, (rows, SIDE, SIDE, 3))
        return (prototypes[y] + noise).clip(0, 255).astype(np.uint8), y

    def features(rows: int) -> dict[str, NDArray[Any]]:
        y = np.arange(rows) % CLASSES
        return {"z": (centres[y] + random.normal(0, 1, (rows, DIMENSIONS))).astype(np.float32), "y": y}

    x_train, y_train = images(120)
    x_test, y_test = images(60)
    np.savez(folder / "images.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    (folder / "net.py").write_text(NET)
    centres = random.normal(0, 1.1, (CLASSES, DIMENSIONS))
    for name, rows in (("F", 90), ("V", 60), ("T", 75)):
        np.savez(folder / f"{name}.npz", **features(rows))
    return folder


def image_audit(world: Path, **values: Any) -> AuditSpec:
    """An audit of the tiny network in float32; `attacks` and the grid as given."""
    fixed = {"data": str(world / "images.npz"), "encoder": f"{world / 'net.py'}:make", "precision": "float32"}
    return AuditSpec.make({**fixed, "budgets": [0.1], "seeds": 1, "targets": 2, **values})


def feature_audit(world: Path, **values: Any) -> AuditSpec:
    """An audit of the three feature files."""
    fixed = {"features": world / "F.npz", "validation": world / "V.npz", "test": world / "T.npz"}
    return AuditSpec.make({**fixed, "attacks": ["label-flip"], "budgets": [0.1], "seeds": 1, **values})


class Watched:
    """A watcher that remembers, and can be told to stop the audit."""

    def __init__(self, stop_after: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.stop_after, self.error = stop_after, error
        self.labels: list[str] = []
        self.records: list[TrialRecord] = []
        self.counts = (0, 0)

    def stage(self, name: str, done: int, total: int) -> None: ...

    def planned(self, total: int, done: int) -> None:
        self.counts = (total, done)

    def started(self, label: str) -> None:
        self.labels.append(label)

    def step(self, done: int, total: int) -> None:
        if self.stop_after is not None and len(self.records) >= self.stop_after:
            raise self.error

    def finished(self, record: TrialRecord) -> None:
        self.records.append(record)


def audit(spec: AuditSpec, folder: Path, **options: Any) -> Outcome:
    return run(spec, folder, Watched(), **options)


def command(*words: object) -> int:
    """Run `foretaste WORDS` in this process; the exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def mixed(prepared: PreparedAudit, z: Tensor, y: Tensor, at: Tensor | None = None) -> TrainingSet:
    """The clean training rows of an audit with poison among them."""
    return mix(prepared.setting, z, y, None, at)


def trained_on(prepared: PreparedAudit, rows: TrainingSet) -> Victim:
    """The audit's victim, trained on other rows."""
    return replace(prepared.victim, train=rows)


def numbers(records: list[TrialRecord]) -> dict[str, dict[str, Any]]:
    """What must be the same, to the byte, however an audit came to its end: everything but times."""
    return {r.trial: r.model_dump(mode="json", exclude={"seconds", "command"}) for r in records}


def trials_in(folder: Path) -> dict[str, TrialRecord]:
    return {record.trial: record for record in read(folder)}


def identities(trials: list[Trial]) -> list[str]:
    return [trial.spec.identity for trial in trials]
