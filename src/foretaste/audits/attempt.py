"""One trial under way: its clock, the record that it starts from, and what outlives an error."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from foretaste.audits.prepare import PreparedAudit
from foretaste.audits.spec import TrialSpec
from foretaste.errors import AttackError, ForetasteError
from foretaste.record import Check, Ledger, Threat, TrialError, TrialRecord
from foretaste.runtime import machine, versions


class Timer:
    """Seconds per stage of one trial."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to the stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + perf_counter() - start, 4)


def record_of(prepared: PreparedAudit, trial: TrialSpec, threat: Threat, variant: str, command: str) -> TrialRecord:
    """What every record of this audit starts from, before anything has run."""
    runtime = prepared.setting.runtime
    return TrialRecord(
        trial=trial.identity,
        status="failed",
        threat=threat,
        attack=trial.attack["name"],
        variant=variant,
        budget=trial.budget,
        seed=trial.seed,
        spec=trial.entry(),
        command=command,
        data=prepared.setting.data_entry(),
        encoder=prepared.setting.encoder_entry(),
        versions=versions(),
        machine={**machine(), "device": runtime.device, "precision": runtime.reason},
    )


class Attempt:
    """One trial under way: what it found out so far outlives an error."""

    def __init__(self, prepared: PreparedAudit, record: TrialRecord) -> None:
        self.prepared = prepared
        self.record = record
        self.timer = Timer()
        self.checks: list[Check] = []
        self.ledger: Ledger | None = None

    def finish(self, body: Callable[[], dict[str, Any]]) -> TrialRecord:
        """The record with what the body returns; whatever it raises becomes part of the record instead."""
        update: dict[str, Any]
        try:
            update = {"status": "ok", **body()}
        except Exception as error:
            self.prepared.view.recall()
            update = {"error": TrialError(type=type(error).__name__, message=_reason(error))}
            if isinstance(error, AttackError) and error.curve:
                self.ledger = Ledger(changed=[], objective=error.curve)
        evidence = {"referee": self.checks, "ledger": self.ledger, "seconds": self.timer.seconds}
        return self.record.model_copy(update=evidence | update)


def _reason(error: Exception) -> str:
    """What went wrong, on one line; for an error that nobody foresaw also where."""
    text = " ".join(str(error).split())
    if isinstance(error, ForetasteError):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text or 'no message'} ({Path(place.filename).name}, line {place.lineno})"
