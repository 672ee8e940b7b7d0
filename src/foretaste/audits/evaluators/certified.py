"""Certified heads in an audit: on the clean rows and on those of each labelled-data trial, with the proof beside both.

The referee holds each certificate against the attacks: a test prediction whose radius on the clean rows covers what
the attack changed must be the same on the poisoned rows, row by row. A count of partitions that the user leaves open is
chosen once, on clean rows before any trial, since one that poison could sway would void the certificate; the record
and the identities of the trials have the count that was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from foretaste.attacks.budget import poisoned_rows
from foretaste.audits.evaluators.base import Beside, Case, Evaluator, Faces, Findings
from foretaste.audits.evaluators.filters import training_rows
from foretaste.audits.metrics import accuracy, compare_predictions
from foretaste.audits.setting import Setting
from foretaste.audits.training import TrainingSet
from foretaste.audits.victim import Victim
from foretaste.defences.certified.base import Certified, CertifiedHead
from foretaste.defences.certified.dpa import DPA
from foretaste.errors import BudgetError
from foretaste.record import CertifiedAccuracy, CertifiedScores, Check, ProbeScores, pack_labels
from foretaste.statistics import wilson

SHARES = (0.001, 0.005, 0.01)
"""Shares of the training rows that every audit certifies at, beside its own budgets."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One certified head in one trial.

    Attributes:
        found: on the test rows.
        changes: what a radius must reach to cover the attack; 0 without one.
    """

    found: Certified
    changes: int


@dataclass(frozen=True, eq=False)
class CertifiedEvaluator(Evaluator[CertifiedHead, Outcome]):
    """Certified heads on the training rows, with the bound that the proof gives.

    Attributes:
        budgets: shares of the training rows that are certified beside `SHARES`.
    """

    kind: ClassVar[str] = "certified"
    faces: ClassVar[Faces] = "rows"
    defences: dict[str, CertifiedHead] = field(default_factory=dict)
    budgets: tuple[float, ...] = ()

    def resolved(self, setting: Setting) -> CertifiedEvaluator:
        """With heads that leave nothing open: a count of partitions is chosen on clean rows of the setting.

        Raises:
            DataError: too few rows for a count of partitions to be chosen.
        """
        heads = {
            key: _chosen(setting, head, self.budgets) if isinstance(head, DPA) and head.partitions is None else head
            for key, head in self.defences.items()
        }
        return replace(self, defences=heads)

    def run(self, victim: Victim, beside: Beside | None, case: Case) -> dict[str, Outcome]:
        """See `Evaluator.run`; heads that draw do so from one seed: their votes differ by the poison alone.

        Raises:
            DataError: too few rows for a head, or it needs clean rows of the defender's and there are none.
        """
        setting, rows, found = victim.setting, victim.train, {}
        added, relabelled, replaced = _changes(setting, rows)
        for index, (key, head) in enumerate(self.defences.items()):
            case.progress(index, len(self.defences))
            with case.stage("defences"):
                fitted = head.fit(training_rows(setting, rows.z, rows.y), 0)
                changes = 0 if beside is None else head.changes(added, relabelled, replaced)
                found[key] = Outcome(fitted.certify(setting.test.z), changes)
        return found

    def findings(self, victim: Victim, found: dict[str, Outcome], beside: Beside | None, case: Case) -> Findings:
        """See `Evaluator.findings`: scores, and whether each certificate held, row by row."""
        own = found if beside is None or not found else beside.outcomes(self)
        entries = {key: self._entry(key, victim, one, own[key]) for key, one in found.items()}
        checks, warnings = [], []
        for key, one in found.items() if beside is not None else ():
            covered = own[key].found.radii >= one.changes
            moved = int((covered & (own[key].found.predictions != one.found.predictions)).sum())
            count = int(covered.sum())
            if self.defences[key].certain:
                told = f"{count} of {len(victim.truth)} test rows covered at {one.changes} changes, {moved} moved"
                checks.append(Check(name=f"certificate of {key}", ok=not moved, found=told))
            elif moved:
                warnings.append(
                    f"{key}: {moved} of {count} covered predictions moved; bags drawn at random can be that far out"
                )
        return Findings({"certified": entries}, checks, warnings)

    def pairs(self, found: dict[str, Outcome], beside: Beside) -> dict[str, tuple[Tensor, Tensor]]:
        """See `Evaluator.pairs`."""
        own = beside.outcomes(self) if found else {}
        return {key: (own[key].found.predictions, one.found.predictions) for key, one in found.items()}

    def _entry(self, key: str, victim: Victim, vote: Outcome, own: Outcome) -> CertifiedScores:
        """Of the baseline with its radii, of a trial with the bound that it must keep."""
        head, truth, now, poisoned = self.defences[key], victim.truth, vote.found, vote is not own
        rows = len(victim.setting.train)
        changes = {vote.changes / rows: vote.changes} if poisoned else _shares(rows, head, self.budgets)
        bounds = [
            CertifiedAccuracy(share=share, changes=count, accuracy=wilson(held, len(truth)))
            for share, count in changes.items()
            for held in [int(own.found.at(truth, count).sum())]
        ]
        return CertifiedScores(
            defence=head.entry(),
            certain=head.certain,
            scores=compare_predictions(own.found.predictions, now.predictions, truth)
            if poisoned
            else ProbeScores(clean=accuracy(now.predictions, truth)),
            predictions=pack_labels(now.predictions.numpy()),
            radii=None if poisoned else pack_labels((now.radii + 1).clamp(max=2**16 - 1).numpy()),
            bounds=bounds,
        )


def _changes(setting: Setting, rows: TrainingSet) -> tuple[int, int, int]:
    """Training rows that were added, that got another label alone, and that got other features."""
    train, at = setting.train, rows.at
    if at is None:
        return len(rows.y) - len(train), 0, 0
    moved = (rows.z[at] != train.z[at]).any(1)
    return 0, int((~moved & (rows.y[at] != train.y[at])).sum()), int(moved.sum())


def _shares(rows: int, head: CertifiedHead, budgets: tuple[float, ...]) -> dict[float, int]:
    """Shares of added rows -> what a radius must reach; shares that leave no row are left out."""
    found = {}
    for share in sorted({*SHARES, *budgets}):
        try:
            found[share] = head.changes(poisoned_rows(share, rows), 0, 0)
        except BudgetError:
            continue
    return found


def _chosen(setting: Setting, head: DPA, budgets: tuple[float, ...]) -> DPA:
    """On the defender's clean rows, or else on the validation rows, of which there always are some."""
    other = setting.parts.get("clean", setting.parts["validation"])
    rows = training_rows(setting, setting.train.z, setting.train.y)
    return head.chosen(rows, other.z, other.y, list(_shares(len(setting.train), head, budgets).values()))
