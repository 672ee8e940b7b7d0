"""`check_filter`: what a filter of training rows promises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foretaste.defences import find
from foretaste.defences.base import Filter, TrainingRows
from foretaste.runtime import stream
from foretaste.testing import toy
from foretaste.testing.method import configured
from foretaste.testing.promise import call, digest, done, keep, shown, tensor_like


def check_filter(filter: str | type[Filter] | Filter, /, *, draws: bool | None = None, **fields: Any) -> None:
    """Score small sets of rows and see that a filter keeps what its kind promises.

    Frozen, documented fields and an entry that makes it again; a finite float64 score per row on the CPU; the same
    bytes for the same seed; the rows as they were, and the process too; rows in another order get the same scores,
    unless it draws by the place of a row. Classes with one row or none, equal rows, a single row and no clean rows are
    scored, or refused with a DataError. A filter is blind to the attack by construction: `TrainingRows` does not say
    which rows are poison.

    Args:
        filter: its class, a configured value, or a name as on the command line.
        draws: it draws by the place of a row, so that the order may count; None: if two seeds give two results.
        fields: of the filter, beside a class or a name.

    Raises:
        ConformanceError: a promise is broken; it says which.
    """
    value: Filter = configured(filter, fields, lambda name: find(name, "filter"), "filter")
    full = toy.training_rows()
    first = _scores(value, full, 3, "240 rows")
    again = _scores(value, toy.training_rows(), 3, "240 rows")
    keep(
        digest(s=first) == digest(s=again),
        f"{value.name}: the same rows and seed give the same bytes",
        got="others",
        do="draw from the seed alone",
    )
    other = _scores(value, full, 4, "240 rows")
    if not (draws or (draws is None and not torch.equal(first, other))):
        _order(value, full, first)
    _odd_rows(value)
    _without_clean_rows(value, full)


def _scores(value: Filter, rows: TrainingRows, seed: int, what: str) -> Tensor:
    """The scores of rows that must not be refused, as they must be."""
    before = _digest(rows)
    scores = done(value.name, f"scores {what}", lambda: value.score(rows, seed))
    _check(value, rows, scores, before)
    return scores


def _check(value: Filter, rows: TrainingRows, scores: Any, before: str) -> None:
    tensor_like(
        f"{value.name}: a score per row", scores, torch.float64, [len(rows)], "return scores.double().cpu(), detached"
    )
    keep(_digest(rows) == before, f"{value.name}: the rows stay as they were", got="others", do="work on copies")


def _digest(rows: TrainingRows) -> str:
    return digest(z=rows.z, y=rows.y, clean_z=rows.clean_z, clean_y=rows.clean_y)


def _order(value: Filter, full: TrainingRows, first: Tensor) -> None:
    order = torch.randperm(len(full), generator=stream(0, "testing/order"))
    other = TrainingRows(full.z[order], full.y[order], full.classes, full.ridge, full.clean_z, full.clean_y)
    scores = _scores(value, other, 3, "240 rows in another order")
    close = torch.isclose(scores, first[order], rtol=1e-3, atol=1e-5)
    keep(
        bool(close.all()),
        f"{value.name}: rows in another order get the same scores",
        got=f"{int((~close).sum())} others of {len(full)}",
        do="score a row by what it is, not by its place; pass draws=True if it draws by the place",
    )


def _odd_rows(value: Filter) -> None:
    clean = toy.features(60, "clean")
    z, y = toy.features(121, "train").z, toy.features(121, "train").y
    alone = torch.tensor([toy.CLASSES])
    own = torch.cat([clean.z, z[:1] + 1]), torch.cat([clean.y, alone])
    few = TrainingRows(torch.cat([z, z[:1] + 1]), torch.cat([y, alone]), toy.CLASSES + 2, 1e-2, *own)
    equal = TrainingRows(torch.ones(30, 4), torch.arange(30) % 3, 3, 1e-2, torch.ones(6, 4), torch.arange(6) % 3)
    single = TrainingRows(z[:1], y[:1], toy.CLASSES, 1e-2, clean.z[:3], clean.y[:3])
    for what, rows in {"a class of one row and one of none": few, "equal rows": equal, "a single row": single}.items():
        _scored_or_refused(value, rows, what)


def _without_clean_rows(value: Filter, full: TrainingRows) -> None:
    _scored_or_refused(value, TrainingRows(full.z, full.y, full.classes, full.ridge), "rows without clean ones")


def _scored_or_refused(value: Filter, rows: TrainingRows, what: str) -> None:
    before = _digest(rows)
    scores = call(value.name, f"scores {what}", lambda: value.score(rows, 0), may_refuse=True)
    if scores is not None:
        keep(
            isinstance(scores, Tensor) and bool(torch.isfinite(scores).all()),
            f"{value.name}: finite scores of {what}",
            got="NaN or infinity" if isinstance(scores, Tensor) else shown(scores),
            do="raise a DataError where it has no answer",
        )
        _check(value, rows, scores, before)
