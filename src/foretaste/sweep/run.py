"""Run an audit's trials and append each to the folder's record; what is there already is not run again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from foretaste.attacks.base import LabelledAttack, WeightAttack
from foretaste.audit.pipeline import Pipeline, prepare
from foretaste.audit.spec import AuditSpec
from foretaste.audit.trials import clean_trial, labelled_trial, weight_trial
from foretaste.errors import SpecError
from foretaste.record import FILE_NAME, TrialRecord, append, read
from foretaste.sweep.plan import Trial, configured, plan

SPEC_FILE = "audit.yaml"


class Watcher(Protocol):
    """Told how the audit goes; does nothing to its result."""

    def stage(self, name: str, done: int, total: int) -> None:
        """The clean pipeline is being made."""

    def planned(self, total: int, done: int) -> None:
        """So many trials there are, so many of them in the folder already."""

    def started(self, label: str) -> None:
        """A trial begins."""

    def step(self, done: int, total: int) -> None:
        """The trial's attack is so far."""

    def finished(self, record: TrialRecord) -> None:
        """The trial is in the record."""


@dataclass(frozen=True)
class Outcome:
    """What an audit left in its folder."""

    folder: Path
    records: list[TrialRecord]

    @property
    def failures(self) -> list[TrialRecord]:
        """Trials that ended in an error."""
        return [record for record in self.records if record.status == "failed"]


def run(spec: AuditSpec, folder: Path, watcher: Watcher, only: str | None = None) -> Outcome:
    """Run what is missing in the folder.

    Args:
        spec: the audit.
        folder: made if it is not there; a folder of the same audit is continued, failed trials are tried again.
        watcher: told about the progress.
        only: identity (or its beginning) of the one trial to run, besides the clean twin.

    Raises:
        ForetasteError: bad data, encoder or settings; a folder of another audit or in use. Nothing is lost then.
    """
    configured(spec)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        spec = _continued(spec, folder)
        pipeline = prepare(spec, watcher.stage)
        trials = plan(pipeline)
        if only is not None:
            trials = [trials[0], *_chosen(trials, only)]
        _write(folder / SPEC_FILE, pipeline.spec.to_yaml())
        known = {r.trial: r for r in read(folder, repair=True)} if (folder / FILE_NAME).exists() else {}
        missing = [trial for trial in trials if not _done(known.get(trial.spec.identity))]
        watcher.planned(len(trials), len(trials) - len(missing))
        for trial in missing:
            watcher.started(trial.label)
            record = perform(pipeline, trial, folder, watcher)
            append(folder, record)
            known[record.trial] = record
            watcher.finished(record)
    return Outcome(folder, [known[trial.spec.identity] for trial in trials])


def perform(pipeline: Pipeline, trial: Trial, folder: Path, watcher: Watcher) -> TrialRecord:
    """Run one trial; whatever goes wrong in it becomes part of its record."""
    command = f"foretaste audit {folder / SPEC_FILE} --only {trial.spec.identity} --out {folder}-again"
    match trial.attack:
        case LabelledAttack() as attack:
            return labelled_trial(pipeline, trial.spec, attack, command, watcher.step)
        case WeightAttack() as attack:
            return weight_trial(pipeline, trial.spec, attack, command, watcher.step)
        case _:
            return clean_trial(pipeline, trial.spec, command)


def _done(record: TrialRecord | None) -> bool:
    return record is not None and record.status == "ok"


def _chosen(trials: list[Trial], only: str) -> list[Trial]:
    found = [trial for trial in trials[1:] if trial.spec.identity.startswith(only)]
    if not found and not trials[0].spec.identity.startswith(only):
        raise SpecError(
            "--only: the identity of a trial of this audit, on these data and this encoder",
            got=repr(only),
            do="see `trial` in record.jsonl",
        )
    return found


def _continued(spec: AuditSpec, folder: Path) -> AuditSpec:
    """The spec with the precision that the folder's earlier trials ran in; an error if it is another audit's folder."""
    path = folder / SPEC_FILE
    if not path.exists():
        return spec
    earlier = AuditSpec.read(path)
    if spec.precision == "auto":
        spec = spec.model_copy(update={"precision": earlier.precision})
    mine, theirs = spec.base(), earlier.base()
    differing = [key for key in mine if mine[key] != theirs[key]]
    if differing:
        raise SpecError(
            f"--out {folder}: a new folder, or one of this audit",
            got=f"an audit with another {', '.join(differing)}",
            do="pass another --out",
        )
    return spec


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SpecError(
            f"--out {folder}: a folder that no other audit is writing", got="a locked one", do="wait, or pass another"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
