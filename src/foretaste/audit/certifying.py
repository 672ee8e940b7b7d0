"""Certified heads in an audit: on the clean rows and on those of each labelled-data trial, with the proof beside both.

The referee holds each certificate against the attacks: a test prediction whose radius on the clean rows covers what
the attack changed must be the same on the poisoned rows, row by row. A count of partitions that the user leaves open is
chosen once, on clean rows before any trial, since one that poison could sway would void the certificate; the record
and the identities of the trials have the count that was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from foretaste.attacks.budget import poisoned_rows
from foretaste.audit.retrain import Mixed
from foretaste.audit.scores import accuracy, compare
from foretaste.audit.screening import halves
from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.base import Certified, CertifiedHead
from foretaste.defences.certified.dpa import DPA
from foretaste.errors import BudgetError
from foretaste.record import CertifiedAccuracy, CertifiedScores, Check, ProbeScores, pack_labels
from foretaste.statistics import wilson

if TYPE_CHECKING:
    from foretaste.audit.parts import Note
    from foretaste.audit.pipeline import Pipeline

SHARES = (0.001, 0.005, 0.01)
"""Shares of the training rows that every audit certifies at, beside its own budgets."""


@dataclass(frozen=True, eq=False)
class Vote:
    """One certified head in one trial.

    Attributes:
        found: on the test rows.
        changes: what a radius must reach to cover the attack; 0 without one.
    """

    found: Certified
    changes: int


def resolved(pipeline: Pipeline) -> dict[str, CertifiedHead]:
    """The audit's certified heads with nothing left open, by their keys in the record.

    Raises:
        DataError: too few rows for a count of partitions to be chosen.
    """
    return {
        key: _chosen(pipeline, head) if isinstance(head, DPA) and head.partitions is None else head
        for key, head in pipeline.certified.items()
    }


def voted_twin(pipeline: Pipeline, note: Note) -> dict[str, Vote]:
    """Every certified head on the clean training rows.

    Raises:
        DataError: too few rows for a head, or it needs clean rows of the defender's and there are none.
    """
    found = {}
    for index, key in enumerate(pipeline.certified):
        note("certified", index, len(pipeline.certified))
        found[key] = Vote(_fit(pipeline, key, pipeline.train.z, pipeline.train.y, 0), 0)
    return found


def voted(pipeline: Pipeline, mixed: Mixed, at: Tensor | None) -> dict[str, Vote]:
    """Every certified head on the mixed rows.

    Heads that draw do so from the seed of the clean twin: their votes differ by the poison alone.

    Args:
        pipeline: the victim's.
        mixed: clean and poisoned training rows.
        at: training rows that the poison replaces; None: it is added.
    """
    train = pipeline.train
    added, relabelled, replaced = len(mixed.y) - len(train), 0, 0
    if at is not None:
        moved = (mixed.z[at] != train.z[at]).any(1)
        relabelled, replaced = int((~moved & (mixed.y[at] != train.y[at])).sum()), int(moved.sum())
    return {
        key: Vote(_fit(pipeline, key, mixed.z, mixed.y, 0), head.changes(added, relabelled, replaced))
        for key, head in pipeline.certified.items()
    }


def certified_scores(pipeline: Pipeline, key: str, vote: Vote) -> CertifiedScores:
    """The record's entry of one head; of the clean twin with its radii, of a trial with the bound that it must keep."""
    head, truth, now = pipeline.certified[key], pipeline.test.y, vote.found
    twin = pipeline.voted[key].found
    poisoned = vote is not pipeline.voted[key]
    changes = {vote.changes / len(pipeline.train): vote.changes} if poisoned else _shares(pipeline, head)
    bounds = [
        CertifiedAccuracy(share=share, changes=count, accuracy=wilson(int(twin.at(truth, count).sum()), len(truth)))
        for share, count in changes.items()
    ]
    return CertifiedScores(
        defence=head.entry(),
        certain=head.certain,
        scores=compare(twin.predictions, now.predictions, truth)
        if poisoned
        else ProbeScores(clean=accuracy(now.predictions, truth)),
        predictions=pack_labels(now.predictions.numpy()),
        radii=None if poisoned else pack_labels((now.radii + 1).clamp(max=2**16 - 1).numpy()),
        bounds=bounds,
    )


def certificate_checks(pipeline: Pipeline, votes: dict[str, Vote]) -> list[Check]:
    """Whether each certificate that holds for sure did: no covered prediction moved."""
    checks = []
    for key, vote in votes.items():
        covered, moved = _moved(pipeline, key, vote)
        if pipeline.certified[key].certain:
            found = f"{covered} of {len(pipeline.test.y)} test rows covered at {vote.changes} changes, {moved} moved"
            checks.append(Check(name=f"certificate of {key}", ok=not moved, found=found))
    return checks


def certificate_warnings(pipeline: Pipeline, votes: dict[str, Vote]) -> list[str]:
    """Predictions that moved although a certificate with a confidence below 1 covers them."""
    found = []
    for key, vote in votes.items():
        covered, moved = _moved(pipeline, key, vote)
        if moved and not pipeline.certified[key].certain:
            found.append(
                f"{key}: {moved} of {covered} covered predictions moved; bags drawn at random can be that far out"
            )
    return found


def _moved(pipeline: Pipeline, key: str, vote: Vote) -> tuple[int, int]:
    twin = pipeline.voted[key].found
    covered = twin.radii >= vote.changes
    return int(covered.sum()), int((covered & (twin.predictions != vote.found.predictions)).sum())


def _shares(pipeline: Pipeline, head: CertifiedHead) -> dict[float, int]:
    """Shares of added rows -> what a radius must reach; shares that leave no row are left out."""
    found = {}
    for share in sorted({*SHARES, *pipeline.spec.budgets}):
        try:
            found[share] = head.changes(poisoned_rows(share, len(pipeline.train)), 0, 0)
        except BudgetError:
            continue
    return found


def _chosen(pipeline: Pipeline, head: DPA) -> DPA:
    """On the defender's clean rows, or else on the validation rows, of which there always are some."""
    other = pipeline.parts.get("clean", pipeline.parts["validation"])
    rows = _rows(pipeline, pipeline.train.z, pipeline.train.y)
    return head.chosen(rows, other.z, other.y, list(_shares(pipeline, head).values()))


def _fit(pipeline: Pipeline, key: str, z: Tensor, y: Tensor, seed: int) -> Certified:
    return pipeline.certified[key].fit(_rows(pipeline, z, y), seed).certify(pipeline.test.z)


def _rows(pipeline: Pipeline, z: Tensor, y: Tensor) -> TrainingRows:
    own, _ = halves(pipeline.parts.get("clean"))
    clean: tuple[Tensor, Tensor] | tuple[None, None] = (None, None) if own is None else (own.z, own.y)
    return TrainingRows(z, y, pipeline.classes, pipeline.spec.ridge, *clean)
