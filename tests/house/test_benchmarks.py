"""The table of `python -m benchmarks` on planted numbers: a goal is met only if the number meets it."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.heads.solve import solve
from tests.heads.fixture import naive_hessian, problem

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return import_module("benchmarks.__main__")


def plant(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, float], goals: dict[str, tuple[str, float]] | None
) -> None:
    bench = ModuleType("benchmarks.bench_head")
    bench.main = lambda: values  # type: ignore[attr-defined]
    if goals is not None:
        bench.GOALS = goals  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.bench_head", bench)


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [
        (3.0, (">=", 3.0), True),
        (2.99, (">=", 3.0), False),
        (1.15, ("<=", 1.15), True),
        (1.16, ("<=", 1.15), False),
        (3.0, (">", 3.0), False),
        (float("inf"), (">=", 3.0), False),
        (float("nan"), ("<=", 1.15), False),
    ],
)
def test_goal_is_met_only_by_a_finite_number_on_its_side(
    runner: Any, monkeypatch: pytest.MonkeyPatch, value: float, goal: tuple[str, float], met: bool
) -> None:
    plant(monkeypatch, {"ratio": value, "seconds": 1.0}, {"ratio": goal})
    rows = {row["measure"]: row["met"] for row in runner.measure("head")}
    assert rows == {"ratio": met, "seconds": None}
    assert runner.main(["head"]) == int(not met)


def test_goal_without_its_number_is_an_error(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, {"seconds": 1.0}, {"ratio": (">=", 3.0)})
    with pytest.raises(KeyError, match="ratio"):
        runner.measure("head")


def test_numbers_are_written_only_if_asked(
    runner: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, {"seconds": 1.5}, None)
    monkeypatch.chdir(tmp_path)
    assert runner.main(["head"]) == 0
    assert not list(tmp_path.iterdir())
    assert "1.5" in capsys.readouterr().out
    assert runner.main(["head", "--out", "records/bench.json"]) == 0
    written = json.loads((tmp_path / "records/bench.json").read_text())
    assert written["command"] == "python -m benchmarks head --out records/bench.json"
    assert written["rows"] == [{"bench": "head", "measure": "seconds", "value": 1.5, "goal": None, "met": None}]
    assert written["machine"]["cores"] and written["versions"]["torch"]


def test_figures_of_other_benches_stay_in_the_file(
    runner: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    plant(monkeypatch, {"seconds": 1.5}, None)
    runner.main(["head", "--out", str(file)])
    report = json.loads(file.read_text())
    report["rows"].insert(0, {**report["rows"][0], "bench": "embed"})
    report |= {"command": "first", "seconds": {"embed": 7.0, "head": 8.0}}
    file.write_text(json.dumps(report))
    plant(monkeypatch, {"seconds": 2.5}, None)
    runner.main(["head", "--out", str(file)])
    written = json.loads(file.read_text())
    assert [(row["bench"], row["value"]) for row in written["rows"]] == [("embed", 1.5), ("head", 2.5)]
    assert written["command"] == f"first; python -m benchmarks head --out {file}"
    assert written["seconds"]["embed"] == 7.0
    file.write_text(json.dumps(written | {"machine": {"cpu": "another"}}))
    with pytest.raises(SystemExit):
        runner.main(["head", "--out", str(file)])
    assert "another machine" in capsys.readouterr().err
    assert json.loads(file.read_text())["rows"] == written["rows"]


def test_both_sides_of_the_filters_bench_see_the_same(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("art", reason="requirements-bench.txt is not installed")
    bench = import_module("benchmarks.bench_filters")
    for name, size in {"ROWS": 900, "FEATURES": 128, "CLASSES": 3, "ROUNDS": 1}.items():
        monkeypatch.setattr(bench, name, size)
    found = bench.main()
    assert found["spectral_scores_apart"] < 1e-4
    assert found["activation_rows_apart"] == 0
    assert min(found["spectral_art_auroc"], found["spectral_auroc"], found["activation_auroc"]) > 0.9


def test_every_bench_in_the_table_exists(runner: Any) -> None:
    modules = {path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py")}
    assert modules == set(runner.BENCHES)


def test_slopes_are_the_powers_that_were_planted(runner: Any) -> None:
    slope = import_module("benchmarks.bench_scaling").slope
    assert slope((10, 20, 40), [3 * size**1.5 for size in (10, 20, 40)]) == pytest.approx(1.5)
    assert slope((10, 20, 40), [7.0] * 3) == pytest.approx(0, abs=1e-12)


def test_both_sides_of_the_canceling_bench_have_one_objective(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = import_module("benchmarks.bench_canceling")
    for name, size in {"N": 200, "D": 6, "POISONS": 20, "ROUNDS": 1}.items():
        monkeypatch.setattr(bench, name, size)
    found = bench.main()
    assert found["objective_apart"] < 1e-5
    assert found["gradient_apart"] < 1e-4


@pytest.mark.parametrize("exact", [True, False])
def test_the_inverse_bench_may_solve_without_a_preconditioner(exact: bool) -> None:
    p = problem(60, 5, 4)
    right = np.random.default_rng(3).normal(size=(4, 6))
    curvature = p.objective(5).curvature(torch.as_tensor(p.head()))
    found = solve(curvature, torch.as_tensor(right), None, tolerance=1e-5, exact=exact)
    left = naive_hessian(p, p.head()) @ found.value.numpy().ravel() - right.ravel()
    assert 0 < found.iterations < 200
    assert np.linalg.norm(left) <= 2e-5 * np.linalg.norm(right)
