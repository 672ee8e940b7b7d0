"""What a caller may rely on, whatever the filter: every entry of the table goes through the same questions.

A new filter adds its line to SETTINGS.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from foretaste import defences
from foretaste.defences.base import Filter, TrainingRows
from foretaste.defences.certified.base import CertifiedHead
from foretaste.defences.guards.base import Guard
from foretaste.defences.repairs.base import Repair
from foretaste.defences.scans.base import Scan
from foretaste.errors import DataError, SpecError
from foretaste.testing import check_filter
from tests.defences import fixture as toy

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "sphere": [{}, {"reference": "clean"}],
    "slab": [{}, {"reference": "clean"}],
    "norm": [{}],
    "knn": [{"k": 15}],
    "spectral": [{}, {"centred": False}],
    "activation": [{}, {"dimensions": 3}],
    "isolation-forest": [{"trees": 20}, {"trees": 20, "per_label": True}],
    "label-quality": [{}, {"measure": "normalised-margin", "folds": 3}],
    "trimmed": [{"rounds": 2}],
    "influence": [{}],
}
CASES: list[Any] = [defences.configure(name, fields) for name, settings in SETTINGS.items() for fields in settings]
NEED_CLEAN = {"influence"}
KINDS = {"filter": Filter, "certified": CertifiedHead, "scan": Scan, "repair": Repair, "guard": Guard}
every = pytest.mark.parametrize("defence", CASES, ids=repr)


def needs_clean(defence: Filter) -> bool:
    return defence.name in NEED_CLEAN or getattr(defence, "reference", "all") == "clean"


def test_the_suite_covers_the_table() -> None:
    assert set(SETTINGS) == {name for name, entry in defences.DEFENCES.items() if entry.kind == "filter"}
    for name, (kind, _, _, line) in defences.DEFENCES.items():
        found = defences.find(name)
        assert issubclass(found, KINDS[kind])
        assert found.name == name and line and not line.endswith(".")
        assert found() == found.configure(), "every field has a default"


def test_the_table_imports_nothing_heavy() -> None:
    code = "import sys, foretaste.defences as d; sys.exit(any(n in sys.modules for n in ('torch', 'numpy', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_defence() -> None:
    with pytest.raises(SpecError, match=r"defence: one of sphere, .*influence, .*; got 'nonsense'"):
        defences.find("nonsense")


DRAW = {"activation", "isolation-forest", "label-quality"}
"""Filters that draw by the place of a row: its order counts."""


@every
def test_it_keeps_what_every_filter_promises(defence: Filter) -> None:
    check_filter(defence, draws=defence.name in DRAW)


@every
def test_unknown_fields_are_named(defence: Filter) -> None:
    with pytest.raises(SpecError, match=rf"{defence.name}: fields .*nonsense = 1"):
        type(defence).configure(nonsense=1)


@every
def test_scores_tell_rows_apart(defence: Filter) -> None:
    assert len(defence.score(toy.problem()).unique()) > 10


@every
def test_clean_rows_are_alike(defence: Filter) -> None:
    """A threshold at 5 % of one clean half flags about 5 % of the other: no part of clean data is singled out."""
    lent = toy.problem(1200)
    scores = defence.score(lent)
    first = torch.arange(1200) % 2 == 0
    alarms = float((scores[~first] > scores[first].quantile(0.95)).double().mean())
    assert 0.02 <= alarms <= 0.085


@every
def test_one_class_with_one_row(defence: Filter) -> None:
    lent = toy.problem(121)
    z, y = torch.cat([lent.z, lent.z[:1] + 1]), torch.cat([lent.y, torch.tensor([3])])
    assert lent.clean_z is not None and lent.clean_y is not None
    clean = torch.cat([lent.clean_z, z[-1:]]), torch.cat([lent.clean_y, torch.tensor([3])])
    scores = defence.score(TrainingRows(z, y, 5, 1e-2, *clean))  # class 4 has no row at all
    assert scores.shape == (122,) and bool(scores.isfinite().all())


@every
def test_equal_rows(defence: Filter) -> None:
    z, y = torch.ones(30, 4), torch.arange(30) % 3
    scores = defence.score(TrainingRows(z, y, 3, 1e-2, z[:6], y[:6]))
    assert bool(scores.isfinite().all())


@every
def test_a_single_row_is_scored_or_refused(defence: Filter) -> None:
    z, y = toy.blob(1)
    try:
        scores = defence.score(toy.rows(z, y, clean=toy.blob(3, seed=7)))
    except DataError as error:
        assert defence.name in {"slab", "label-quality"} and str(error).startswith(f"{defence.name}: ")
    else:
        assert scores.shape == (1,) and bool(scores.isfinite().all())


@every
def test_clean_rows_are_asked_for(defence: Filter) -> None:
    full = toy.problem(60)
    lent = TrainingRows(full.z, full.y, full.classes, full.ridge)
    if needs_clean(defence):
        with pytest.raises(DataError, match=rf"{defence.name}: clean rows of the defender's own; got none; keep a "):
            defence.score(lent)
    else:
        assert torch.equal(defence.score(lent), defence.score(full)), "clean rows that it does not use"


@pytest.mark.parametrize("name", ["sphere", "slab"])
def test_a_class_without_clean_rows(name: str) -> None:
    z, y = toy.blob(30, seed=7)
    with pytest.raises(
        DataError, match=rf"{name}: a clean row of every class; got none of class 2; pass reference=all"
    ):
        defences.configure(name, {"reference": "clean"}).score(toy.rows(*toy.blob(60), clean=(z[y < 2], y[y < 2])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": torch.zeros(0, 4), "y": torch.zeros(0, dtype=torch.int64)}, r"training rows \[n, d\] with n labels, n"),
        ({"z": torch.zeros(5, 4)}, r"got \[5, 4\] and \[6\]"),
        ({"y": torch.full((6,), 3)}, r"labels of training rows in \[0, 2\]; got 3 to 3"),
        ({"z": torch.full((6, 4), torch.nan)}, "finite features of training rows"),
        ({"clean_z": torch.zeros(2, 4)}, "features and labels of clean rows; got one of them"),
        ({"clean_z": torch.zeros(2, 5), "clean_y": torch.zeros(2, dtype=torch.int64)}, "clean rows with 4 features"),
        ({"clean_z": torch.zeros(0, 4), "clean_y": torch.zeros(0, dtype=torch.int64)}, "clean rows .*n >= 1"),
    ],
)
def test_rows_that_cannot_be_scored(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TrainingRows(**{"z": torch.zeros(6, 4), "y": torch.zeros(6, dtype=torch.int64), "classes": 3} | change)
