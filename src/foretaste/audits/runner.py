"""Run an audit's trials and append each to the folder's record; what is there already is not run again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from foretaste.audits import trust
from foretaste.audits.grid import Trial, configured, plan
from foretaste.audits.prepare import PreparedAudit, prepare
from foretaste.audits.spec import AuditSpec
from foretaste.audits.trial import run_trial
from foretaste.errors import SpecError
from foretaste.record import FILE_NAME, TrialRecord, append, read, unpack_labels
from foretaste.runtime import fixed_threads

SPEC_FILE, LOCK_FILE = "audit.yaml", ".lock"
LARGEST_DRIFT = 0.01
"""Share of test predictions that rounding (other threads, another library) may move between two runs of a folder."""


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


class Silent:
    """A watcher that says nothing."""

    def stage(self, name: str, done: int, total: int) -> None:
        """See `Watcher`."""

    def planned(self, total: int, done: int) -> None:
        """See `Watcher`."""

    def started(self, label: str) -> None:
        """See `Watcher`."""

    def step(self, done: int, total: int) -> None:
        """See `Watcher`."""

    def finished(self, record: TrialRecord) -> None:
        """See `Watcher`."""


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
    with _locked(folder), fixed_threads():
        spec = _continued(spec, folder)
        prepared = prepare(spec, watcher.stage)
        trials = plan(prepared)
        if only is not None:
            trials = [trials[0], *_chosen(trials, only)]
        known = {r.trial: r for r in read(folder, repair=True)} if (folder / FILE_NAME).exists() else {}
        _same_ground(known, trials[0], prepared, folder)
        _write(folder / SPEC_FILE, prepared.spec.to_yaml())
        missing = [trial for trial in trials if not _done(known.get(trial.spec.identity))]
        watcher.planned(len(trials), len(trials) - len(missing))
        for trial in missing:
            watcher.started(trial.label)
            record = perform(prepared, trial, folder, watcher)
            append(folder, record)
            known[record.trial] = record
            watcher.finished(record)
    return Outcome(folder, [known[trial.spec.identity] for trial in trials])


def perform(prepared: PreparedAudit, trial: Trial, folder: Path, watcher: Watcher) -> TrialRecord:
    """Run one trial; whatever goes wrong in it becomes part of its record."""
    # The trial's own flags, so that the command outlives a later run of the folder with another grid.
    words = ["foretaste", "audit", str(folder / SPEC_FILE), *trust.words(prepared.spec), *trial.flags]
    command = shlex.join([*words, "--only", trial.spec.identity, "--out", "again"])
    return run_trial(prepared, trial.spec, trial.attack, command, watcher.step)


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
    differing = [key for key in mine | theirs if mine.get(key) != theirs.get(key)]
    if differing:
        raise _other_audit(folder, f"an audit with another {', '.join(differing)}")
    return spec


def _same_ground(known: dict[str, TrialRecord], clean: Trial, prepared: PreparedAudit, folder: Path) -> None:
    """An error if the folder's trials stand on other data or another encoder, though they have the same names."""
    for record in known.values():
        for part, mine in (("base", clean.spec.base), ("inputs", clean.spec.inputs)):
            theirs = record.spec.get(part)
            if theirs == mine:
                continue
            found = theirs if isinstance(theirs, dict) else {}
            differing = [key for key in mine | found if mine.get(key) != found.get(key)]
            raise _other_audit(folder, f"trials on another {', '.join(differing)} (by content)")
    twin = known.get(clean.spec.identity)
    if twin is None or not _done(twin):
        return
    for key, now in prepared.victim.predictions.items():
        before = unpack_labels(twin.predictions[key])
        if (moved := float((before != now.numpy()).mean())) > LARGEST_DRIFT:
            raise _other_audit(folder, f"a clean twin that differs on {moved:.1%} of the test rows with probe {key}")


def _other_audit(folder: Path, got: str) -> SpecError:
    return SpecError(f"--out {folder}: a new folder, or one of this audit", got=got, do="pass another --out")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made if it is not there; one that stays empty is taken away again."""
    new = not folder.exists()
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=0)
    except Timeout:
        raise SpecError(
            f"--out {folder}: a folder that no other audit is writing", got="a locked one", do="wait, or pass another"
        ) from None
    except OSError as error:
        raise SpecError(
            f"--out {folder}: a folder that can be written", got=error.strerror or str(error), do="pass another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()
        if new and {file.name for file in folder.iterdir()} <= {LOCK_FILE}:
            path.unlink(missing_ok=True)
            folder.rmdir()


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
