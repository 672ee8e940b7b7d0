"""`foretaste.audit`: a whole audit in one call, its records, its report, and a table of them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from foretaste.api.checks import a_kind
from foretaste.audits import trust
from foretaste.audits.cost import estimate_seconds
from foretaste.audits.grid import configured, plan
from foretaste.audits.methods import TABLES, listed
from foretaste.audits.prepare import prepare
from foretaste.audits.runner import Silent, Watcher, run
from foretaste.audits.spec import AuditSpec
from foretaste.errors import SpecError
from foretaste.progress import AuditProgress
from foretaste.record import TrialRecord
from foretaste.report import write
from foretaste.runtime import fixed_threads

if TYPE_CHECKING:
    import pandas

FILES = ("features", "validation", "test")
"""Keys of an audit that name files of features."""


@dataclass(frozen=True)
class AuditResult:
    """What an audit left in its folder.

    Attributes:
        folder: with audit.yaml and record.jsonl.
        records: one per trial, the clean twin first; a trial that failed is one too.
    """

    folder: Path
    records: list[TrialRecord]

    @property
    def failures(self) -> list[TrialRecord]:
        """Trials that ended in an error, which the record names."""
        return [record for record in self.records if record.status == "failed"]

    def report(self, title: str = "") -> Path:
        """Write report.html and report.md beside the record; the path of the page.

        Args:
            title: of the page; none: one that names data and encoder.

        Raises:
            RecordError: the folder's record is gone or damaged.
        """
        return write(self.folder, title=title)[0]

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per trial and score, in the order of the record; see `frame`."""
        return [row for record in self.records for row in _rows(record)]

    def frame(self) -> pandas.DataFrame:
        """The rows as a data frame.

        Columns: trial, status, threat, attack, variant, budget, seed, probe; accuracy `clean`, `poisoned` and the
        paired `change` with `change_low` and `change_high` (shares of n test rows); `target`, `wanted`, `success` and
        `base_rate` where one image was chosen; `error` of a failed trial.

        Raises:
            SpecError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise SpecError(
                "frame: pandas", got="no such package", do='pip install "foretaste[frame]", or use rows()'
            ) from None
        return pandas.DataFrame(self.rows())

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"AuditResult({str(self.folder)!r}, {len(self.records)} trials{failed})"


@dataclass(frozen=True)
class Estimated:
    """What an audit would do.

    Attributes:
        spec: resolved, defaults included.
        trials: how many.
        seconds: about how long they take on this machine.
    """

    spec: AuditSpec
    trials: int
    seconds: float


def audit(
    file: str | Path | None = None,
    *,
    out: str | Path = "foretaste-audit",
    only: str | None = None,
    trust_code: bool = False,
    progress: bool = True,
    **settings: Any,
) -> AuditResult:
    """Run an audit, or go on with one that was interrupted, and keep its records in a folder.

    Args:
        file: an audit as a YAML file; settings stand above what it says.
        out: folder for record and report.
        only: identity (or its beginning) of the one trial to run, besides the clean twin.
        trust_code: run code that the file names; what is passed here is run anyway.
        progress: draw bars in a terminal or a notebook, log lines elsewhere.
        settings: keys of an audit as in its YAML file: data, encoder, features, attacks, budgets, seeds, defences ...
            Attacks, defences and probes may be names, `file.py:Class`, classes or configured values.

    Raises:
        ForetasteError: bad data, encoder or settings; a folder of another audit or in use. Nothing is lost then.
    """
    if not isinstance(out, str | Path):
        raise SpecError("audit: out: the path of a folder", got=a_kind(out))
    return run_spec(spec_of(file, settings, trust_code=trust_code), Path(out), only, progress=progress)


def estimate(
    file: str | Path | None = None, *, trust_code: bool = False, progress: bool = True, **settings: Any
) -> Estimated:
    """What `audit` with the same arguments would do, and about how long it takes; nothing is attacked.

    Args:
        file: an audit as a YAML file; settings stand above what it says.
        trust_code: run code that the file names; what is passed here is run anyway.
        progress: draw bars in a terminal or a notebook, log lines elsewhere.
        settings: keys of an audit, as for `audit`.

    Returns:
        The whole spec, how many trials, and about how many seconds, which are measured on the clean pipeline.

    Raises:
        ForetasteError: as `audit`.
    """
    return estimate_spec(spec_of(file, settings, trust_code=trust_code), progress=progress)


def run_spec(spec: AuditSpec, out: Path, only: str | None = None, *, progress: bool = True) -> AuditResult:
    """`audit` of a spec that was read already."""
    with _watching(progress) as watcher:
        outcome = run(spec, out, watcher, only)
    return AuditResult(outcome.folder, outcome.records)


def estimate_spec(spec: AuditSpec, *, progress: bool = True) -> Estimated:
    """`estimate` of a spec that was read already."""
    configured(spec)
    with _watching(progress) as watcher, fixed_threads():
        prepared = prepare(spec, watcher.stage)
        trials = plan(prepared)
        return Estimated(prepared.spec, len(trials), estimate_seconds(prepared, trials))


def spec_of(file: str | Path | None, settings: dict[str, Any], *, trust_code: bool = False) -> AuditSpec:
    """The spec of an audit's arguments.

    Raises:
        SpecError: an unknown key or value; or the file names code, or asks for a download, that nobody agreed to.
    """
    if not isinstance(file, str | Path | None):
        raise SpecError("audit: the path of a YAML file, or keywords alone", got=a_kind(file))
    said = {key: _said(key, value) for key, value in settings.items() if value is not None}
    values = {} if file is None else AuditSpec.read(Path(file)).model_dump(exclude_unset=True)
    trust.check(values, str(file), trust_code=trust_code, download="download" in said, said=said)
    return AuditSpec.make({**values, **said}, "audit" if file is None else str(file))


def _said(key: str, value: Any) -> Any:
    """A setting that was passed in Python as an audit's file has it."""
    if key in TABLES:
        return listed(key, value)
    if key in FILES and not isinstance(value, str | Path):
        raise SpecError(
            f"audit: {key}: the path of a file",
            got=a_kind(value),
            do="save it with numpy.savez, or use Victim.from_features for arrays in memory",
        )
    if key == "budgets" and isinstance(value, Real):
        return [value]
    return str(value) if isinstance(value, Path) else value


def _watching(progress: bool) -> Any:
    if progress:
        return AuditProgress(Console(stderr=True))
    silent: Watcher = Silent()
    return nullcontext(silent)


def _rows(record: TrialRecord) -> list[dict[str, Any]]:
    common = {
        "trial": record.trial,
        "status": record.status,
        "threat": record.threat,
        "attack": record.attack,
        "variant": record.variant,
        "budget": record.budget,
        "seed": record.seed,
    }
    target = record.target
    pair = {} if target is None else {"target": target.index, "wanted": target.target_class}
    if record.error is not None:
        return [{**common, **pair, "error": record.error.message}]
    found = []
    for probe, scores in record.scores.items():
        change = scores.change
        steered = None if target is None else target.probes.get(probe)
        found.append(
            {
                **common,
                "probe": probe,
                "n": scores.clean.n,
                "clean": scores.clean.value,
                "poisoned": None if scores.poisoned is None else scores.poisoned.value,
                "change": None if change is None else change.value,
                "change_low": None if change is None else change.low,
                "change_high": None if change is None else change.high,
                **pair,
                "success": None if steered is None else steered.success,
                "base_rate": None if steered is None else steered.clean_success,
            }
        )
    return found
