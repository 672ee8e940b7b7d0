"""Filters, probes and other defences that break a promise are told which one."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field

import foretaste as ft
from foretaste.defences.certified.dpa import DPA
from foretaste.defences.guards.agreement import Agreement
from foretaste.defences.repairs.clp import CLP
from foretaste.defences.scans.drift import Drift
from foretaste.errors import DataError
from foretaste.testing import (
    ConformanceError,
    check_certified_head,
    check_filter,
    check_guard,
    check_probe,
    check_repair,
    check_scan,
)


class Centre(ft.Filter):
    """Distance to the mean of all rows."""

    name: ClassVar[str] = "centre"
    power: float = Field(1.0, gt=0, description="of the distance")

    def score(self, rows: Any, seed: int = 0) -> Any:
        return self.spoil(rows, seed, (rows.z - rows.z.mean(0)).double().norm(dim=1) ** self.power)

    def spoil(self, rows: Any, seed: int, scores: Any) -> Any:
        return scores


def sinner(base: type, **more: Any) -> type:
    return type("Sinner", (base,), {"__module__": __name__, "name": "sinner", **more})


def doing(work: Any) -> Any:
    def sin(self: Any, rows: Any, seed: int, scores: Any) -> Any:
        work(rows)
        return scores

    return sin


CALLS: list[int] = []


def counted(self: Any, rows: Any, seed: int, scores: Any) -> Any:
    CALLS.append(0)
    return scores + len(CALLS)


def refusing(error: type[Exception], few: int) -> Any:
    def sin(self: Any, rows: Any, seed: int, scores: Any) -> Any:
        if len(rows) <= few or rows.clean_z is None:
            raise error("sinner: more rows")
        return scores

    return sin


def drawing(self: Any, rows: Any, seed: int, scores: Any) -> Any:
    return scores + torch.from_numpy(np.random.default_rng(seed).normal(size=len(rows)))


FILTERS: dict[str, tuple[Any, str]] = {
    "float32": (lambda self, rows, seed, s: s.float(), r"a score per row: float64 \[240\] on the CPU; got float32"),
    "numpy": (lambda self, rows, seed, s: s.numpy(), r"a score per row: .*; got a ndarray; return scores\.double"),
    "too few": (lambda self, rows, seed, s: s[1:], r"float64 \[240\] on the CPU; got float64 \[239\]"),
    "gradient": (lambda self, rows, seed, s: s.requires_grad_(), "got float64 .* that requires a gradient"),
    "infinite": (lambda self, rows, seed, s: s / 0, "a score per row: finite; got NaN or infinity"),
    "writes": (doing(lambda rows: rows.z.zero_()), "the rows stay as they were; got others; work on copies"),
    "writes clean": (doing(lambda rows: rows.clean_y.zero_()), "the rows stay as they were"),
    "raises": (doing(lambda rows: 1 / 0), "scores 240 rows without an error; got ZeroDivisionError"),
    "threads": (doing(lambda rows: torch.set_num_threads(torch.get_num_threads() + 1)), "number of threads alone"),
    "random": (doing(lambda rows: torch.rand(1)), "leaves torch's global random state alone"),
    "counts": (counted, "the same rows and seed give the same bytes; got others"),
    "by place": (
        lambda self, rows, seed, s: s + torch.arange(len(s)),
        "rows in another order get the same scores; got .* others of 240; score a row by what it is",
    ),
    "a single row": (refusing(IndexError, 1), "scores a single row, or refuses with a DataError; got IndexError"),
    "nan of equal rows": (lambda self, rows, seed, s: s / s.max(), "sinner: finite scores of equal rows; got NaN"),
}


@pytest.mark.parametrize("sin", FILTERS)
def test_a_filter_that_breaks_a_promise(sin: str) -> None:
    spoil, message = FILTERS[sin]
    with pytest.raises(ConformanceError, match=message) as caught:
        check_filter(sinner(Centre, spoil=spoil))
    assert str(caught.value).startswith("sinner: ") and "\n" not in str(caught.value)


def test_filters_that_keep_theirs() -> None:
    check_filter(Centre)
    check_filter(Centre, power=2)
    check_filter(Centre(power=2))
    check_filter(sinner(Centre, spoil=refusing(DataError, 1)))
    check_filter(sinner(Centre, spoil=drawing))
    with pytest.raises(ConformanceError, match="rows in another order get the same scores"):
        check_filter(sinner(Centre, spoil=drawing), draws=False)
    with pytest.raises(ConformanceError, match=r"filter: one of sphere, .*got 'clp'"):
        check_filter("clp")


class Nearest(ft.Probe):
    """The class of the nearest mean."""

    name: ClassVar[str] = "nearest"
    shrink: float = Field(0.0, ge=0, description="towards the mean")

    def fit(self, z: Any, y: Any, classes: int, seed: int, runtime: Any) -> Any:
        self.before(z, y, seed)
        means = torch.stack([z[y == c].mean(0) if (y == c).any() else z.mean(0) for c in range(classes)])
        return ft.FittedProbe(predict=lambda new: self.after(new, torch.cdist(new, means).argmin(1)))

    def before(self, z: Any, y: Any, seed: int) -> None: ...

    def after(self, new: Any, found: Any) -> Any:
        return found


def counting(self: Any, z: Any, y: Any, classes: int, seed: int, runtime: Any) -> Any:
    CALLS.append(0)
    label = len(CALLS) % 3
    return ft.FittedProbe(predict=lambda new: torch.full((len(new),), label))


def demanding(self: Any, z: Any, y: Any, seed: int) -> None:
    assert len(y) > 1


PROBES: dict[str, tuple[dict[str, Any], str]] = {
    "scores": ({"after": lambda s, new, found: found.double()}, r"classes: int64 \[45\] on the CPU; got float64"),
    "outside": ({"after": lambda s, new, found: found + 1}, r"classes in \[0, 2\]; got 1 to 3"),
    "counts": ({"fit": counting}, "the same rows and seed give the same classes; got others; draw from"),
    "among others": (
        {"after": lambda s, new, found: (found + len(new)) % 3},
        "a row gets the same class alone as among others",
    ),
    "writes": ({"before": lambda s, z, y, seed: z.mul_(2)}, "the rows stay as they were; got others"),
    "random": ({"before": lambda s, z, y, seed: torch.rand(1)}, "fits rows leaves torch's global random state alone"),
    "single": ({"before": demanding}, "fits a single row, or refuses with a DataError; got AssertionError"),
    "function": ({"fit": lambda s, *rows: lambda new: new}, "a FittedProbe as its result; got a function"),
    "figures": (
        {
            "fit": lambda s, z, y, c, seed, r: ft.FittedProbe(
                lambda new: torch.zeros(len(new), dtype=torch.int64), {"a": float("nan")}
            )
        },
        "sinner: finite figures; got",
    ),
}


@pytest.mark.parametrize("sin", PROBES)
def test_a_probe_that_breaks_a_promise(sin: str) -> None:
    more, message = PROBES[sin]
    with pytest.raises(ConformanceError, match=message) as caught:
        check_probe(sinner(Nearest, **more))
    assert str(caught.value).startswith("sinner: ") and "\n" not in str(caught.value)


def test_probes_that_keep_theirs() -> None:
    check_probe(Nearest)

    def refuse(self: Any, z: Any, y: Any, seed: int) -> None:
        if len(y) < 2:
            raise DataError("sinner: two rows", got="one")

    check_probe(sinner(Nearest, before=refuse))


def test_a_probe_on_images_that_trains_the_victims_own_encoder() -> None:
    class Greedy(ft.ImageProbe):
        name: ClassVar[str] = "greedy"

        def planned(self, rows: int) -> int:
            return 0

        def fit(self, encoder: Any, pixels: Any, y: Any, classes: int, seed: int, runtime: Any) -> Any:
            with torch.no_grad():
                next(encoder.parameters()).add_(1e-3)
            return ft.FittedProbe(predict=lambda new: torch.zeros(len(new), dtype=torch.int64))

    with pytest.raises(ConformanceError, match=r"greedy: the encoder stays as it was; got another; train a copy"):
        check_probe(Greedy)


class Bold(DPA):
    """Twice the radius that its votes bear."""

    name: ClassVar[str] = "bold"

    def fit(self, rows: Any, seed: int = 0) -> Any:
        fitted = super().fit(rows, seed)

        def certify(z: Any) -> Any:
            found = fitted.certify(z)
            return type(found)(found.predictions, 2 * found.radii + 40)

        return type(fitted)(certify, fitted.figures)


def test_a_certificate_that_does_not_hold_is_refuted() -> None:
    with pytest.raises(
        ConformanceError, match=r"bold: a certificate that holds; got .* covered predictions changed by"
    ):
        check_certified_head(Bold, partitions=20)
    with pytest.raises(ConformanceError, match="free: `changes` counts each added, relabelled and replaced row"):
        check_certified_head(
            type("Free", (DPA,), {"__module__": __name__, "name": "free", "changes": lambda s, *a: 0}), partitions=20
        )


def test_repairs_guards_and_scans_that_break_a_promise() -> None:
    class Vandal(CLP):
        """Works on the suspect itself."""

        name: ClassVar[str] = "vandal"

        def mend(self, encoder: Any, *rest: Any, **more: Any) -> Any:
            with torch.no_grad():
                next(encoder.body.parameters()).add_(1e-3)
            return super().mend(encoder, *rest, **more)

    with pytest.raises(ConformanceError, match=r"vandal: the suspect stays as it was; got another; work on own_body"):
        check_repair(Vandal)

    class Late(Agreement):
        """Scores in single precision."""

        name: ClassVar[str] = "late"

        def fit(self, context: Any) -> Any:
            fitted = super().fit(context)
            score = fitted.score
            object.__setattr__(fitted, "score", lambda inputs: score(inputs).float())
            return fitted

    with pytest.raises(ConformanceError, match=r"late: a score per input: float64 \[40\] on the CPU; got float32"):
        check_guard(Late, k=15)

    class Careless(Drift):
        """Looks at nothing, so it misses nothing."""

        name: ClassVar[str] = "careless"

        def scan(self, encoder: Any, scene: Any, *rest: Any, **more: Any) -> Any:
            from foretaste.defences.scans.base import Finding

            return Finding(0.0, inputs=torch.zeros(60, dtype=torch.float64))

    with pytest.raises(
        ConformanceError, match="careless: a DataError where the scene lacks data and reference; got none"
    ):
        check_scan(Careless)
