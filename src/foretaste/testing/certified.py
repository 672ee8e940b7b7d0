"""`check_certified_head`: what a certified head promises, its certificates before all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foretaste.defences import find
from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.base import Certified, CertifiedHead
from foretaste.runtime import stream
from foretaste.testing import toy
from foretaste.testing.method import configured
from foretaste.testing.promise import digest, done, keep, tensor_like

TRIES = 4
"""Attacks of each kind that a certificate is held against."""


def check_certified_head(head: str | type[CertifiedHead] | CertifiedHead, /, **fields: Any) -> None:
    """Fit a certified head to small sets of rows and hold its certificates against some attacks.

    Frozen, documented fields and an entry that makes it again; classes int64 [k] in range with radii int64 [k] from -1
    on; the same bytes for the same rows and seed; the rows as they were, and the process; `changes` counts every kind
    of change. Where the certificate is sure (`certain`), no row that a radius covers changes its class when rows are
    added or relabelled; a few random and planted attacks are tried, which refute a certificate and never prove one.

    Args:
        head: its class, a configured value, or a name as on the command line. It must be able to fit 240 rows.
        fields: of the head, beside a class or a name.

    Raises:
        ConformanceError: a promise is broken; it says which.
    """
    value: CertifiedHead = configured(head, fields, lambda name: find(name, "certified"), "certified head")
    rows, test = toy.training_rows(), toy.features(60, "test").z
    first = _certified(value, rows, test)
    again = _certified(value, toy.training_rows(), test)
    same = torch.equal(first.predictions, again.predictions) and torch.equal(first.radii, again.radii)
    keep(same, f"{value.name}: the same rows and seed give the same bytes", got="others", do="draw from the seed alone")
    counts = [value.changes(*kind) for kind in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    keep(
        counts[0] == 0 and all(isinstance(count, int) and count >= 1 for count in counts[1:]),
        f"{value.name}: `changes` counts each added, relabelled and replaced row, and nothing else",
        got=str(counts),
    )
    if value.certain:
        _holds(value, rows, test, first)


def _certified(value: CertifiedHead, rows: TrainingRows, test: Tensor) -> Certified:
    before = digest(z=rows.z, y=rows.y, clean_z=rows.clean_z, clean_y=rows.clean_y, test=test)
    found = done(value.name, "fits and certifies 240 rows", lambda: value.fit(rows, 3).certify(test))
    keep(isinstance(found, Certified), f"{value.name}: Certified as its result", got=f"a {type(found).__name__}")
    tensor_like(f"{value.name}: predictions", found.predictions, torch.int64, [len(test)])
    tensor_like(f"{value.name}: radii", found.radii, torch.int64, [len(test)])
    inside = bool(((found.predictions >= 0) & (found.predictions < rows.classes)).all())
    keep(inside, f"{value.name}: predictions in [0, {rows.classes - 1}]", got=str(found.predictions.tolist()[:5]))
    keep(int(found.radii.min()) >= -1, f"{value.name}: radii of -1 or more", got=str(int(found.radii.min())))
    after = digest(z=rows.z, y=rows.y, clean_z=rows.clean_z, clean_y=rows.clean_y, test=test)
    keep(after == before, f"{value.name}: the rows stay as they were", got="others", do="work on copies")
    return found


def _holds(value: CertifiedHead, rows: TrainingRows, test: Tensor, first: Certified) -> None:
    """As many rows as the largest radius allows, all under one label, to flip what the certificate covers."""
    draws = stream(0, "testing/changes")
    most = int(first.radii.max())
    for attempt in range(TRIES):
        label = attempt % rows.classes
        for amount in {1, max(1, most // 2), max(1, most)}:
            hit = torch.randperm(len(rows), generator=draws)[:amount]
            y = rows.y.clone()
            y[hit] = label
            relabelled = TrainingRows(rows.z, y, rows.classes, rows.ridge, rows.clean_z, rows.clean_y)
            _covered(value, first, relabelled, test, value.changes(0, amount, 0), f"{amount} relabelled rows")
            new = test[torch.randint(len(test), (amount,), generator=draws)]
            z, y = torch.cat([rows.z, new]), torch.cat([rows.y, torch.full((amount,), label)])
            added = TrainingRows(z, y, rows.classes, rows.ridge, rows.clean_z, rows.clean_y)
            _covered(value, first, added, test, value.changes(amount, 0, 0), f"{amount} added rows")


def _covered(value: CertifiedHead, first: Certified, rows: TrainingRows, test: Tensor, changes: int, what: str) -> None:
    found = value.fit(rows, 3).certify(test)
    broken = (found.predictions != first.predictions) & (first.radii >= changes)
    keep(
        not bool(broken.any()),
        f"{value.name}: a certificate that holds",
        got=f"{int(broken.sum())} covered predictions changed by {what}",
        do="certify less, or set certain = False",
    )
