"""Fits of the head against scikit-learn and against a second implementation, and what a fit must refuse."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import foretaste.heads.fit as module
import foretaste.heads.solve as solvers
from foretaste.errors import DataError, SpecError
from foretaste.heads.fit import fit_head, minimise
from foretaste.heads.objective import HeadObjective, Rows
from foretaste.heads.solve import Preconditioner, solve
from tests.heads.fixture import Array, Problem, best_head, naive_gradient, probabilities, problem


def scikit_learn(p: Problem) -> Array:
    """Probabilities [n, C] by scikit-learn on rows with a bias column. It has one vector for two classes, not two."""
    a, _ = p.rows
    total = len(a) if p.weights is None else p.weights.sum()
    strength = (2 if p.classes == 2 else 1) / (p.ridge * total)
    model = LogisticRegression(C=strength, fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its line search met rounding at the end
        model.fit(a, p.y, sample_weight=p.weights)
    found: Array = model.predict_proba(a)
    return found


def soft(p: Problem, head: Array) -> Array:
    return np.stack([probabilities(head, row) for row in p.rows[0]])


def ratio(p: Problem, head: Array) -> float:
    """Gradient norm over the one at W = 0, by the loops."""
    return float(np.linalg.norm(naive_gradient(p, head)) / np.linalg.norm(naive_gradient(p, np.zeros_like(head))))


def imbalanced() -> Problem:
    p = problem(400, 4, 3, distance=0.7)
    keep = (p.y == 0) | (np.arange(400) % 40 == 0)
    return replace(p, x=p.x[keep], y=p.y[keep])


CASES: dict[str, Problem] = {
    "three classes": problem(120, 5, 3),
    "row weights": problem(120, 5, 3, weighted=True),
    "one feature, two classes": problem(50, 1, 2),
    "two classes": problem(100, 4, 2, weighted=True),
    "43 classes": problem(600, 6, 43, distance=2.0),
    "imbalanced": imbalanced(),
    "separable": problem(60, 3, 3, distance=20.0, ridge=1e-4),
    "more features than rows": problem(12, 30, 3),
    "weak ridge": problem(200, 5, 4, ridge=1e-6),
    "large features": replace(problem(80, 3, 3), x=problem(80, 3, 3).x * np.float32(1e4)),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_scikit_learn(name: str) -> None:
    p = CASES[name]
    found = minimise(p.objective(len(p.y) // 3))
    head = found.weight.numpy()
    assert found.gradient_ratio <= 1e-6
    assert ratio(p, head) == pytest.approx(found.gradient_ratio, rel=1e-3, abs=1e-12)
    np.testing.assert_allclose(soft(p, head), scikit_learn(p), rtol=0, atol=1e-4)


@pytest.mark.parametrize("classes", [3, 12])
@pytest.mark.parametrize("kind", ["whole", "blocks", "mean"])
def test_equals_the_second_implementation(kind: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To eight digits, with each kind of preconditioner, and made anew at every chance."""
    monkeypatch.setattr(solvers, "DENSE", 1500 if kind == "whole" else 0)
    monkeypatch.setattr(solvers, "BLOCKS", 0 if kind == "mean" else 2**26)
    monkeypatch.setattr(Preconditioner, "price", staticmethod(lambda curvature: 0.0))
    p = problem(100, 5, classes, weighted=True)
    found = minimise(p.objective(), tolerance=1e-10)
    np.testing.assert_allclose(found.weight.numpy(), best_head(p), rtol=0, atol=1e-8)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 30),
    d=st.integers(1, 4),
    classes=st.integers(2, 4),
    seed=st.integers(0, 10**6),
    distance=st.floats(0, 30),
    ridge=st.sampled_from([1e-4, 1e-2, 10.0]),
    cut=st.integers(0, 30),
)
def test_any_small_problem_is_solved(
    n: int, d: int, classes: int, seed: int, distance: float, ridge: float, cut: int
) -> None:
    """Few rows: often a class has none, often there is only one."""
    p = problem(n, d, classes, seed=seed, distance=distance, ridge=ridge)
    found = minimise(p.objective(min(cut, n)))
    assert found.gradient_ratio <= 1e-6
    np.testing.assert_allclose(soft(p, found.weight.numpy()), soft(p, best_head(p)), rtol=0, atol=1e-4)


def test_a_class_without_rows_is_never_predicted() -> None:
    p = replace(problem(90, 4, 3), classes=5)
    head = minimise(p.objective(), tolerance=1e-9).weight.numpy()
    np.testing.assert_allclose(head, best_head(p), rtol=0, atol=1e-6)
    np.testing.assert_allclose(head[3], head[4], atol=1e-7)
    assert set(soft(p, head).argmax(1)) <= {0, 1, 2}


def test_two_rows_by_hand() -> None:
    """x = +1 and -1 with labels 0 and 1: W = [[v, 0], [-v, 0]] with ridge v = sigmoid(-2 v)."""
    objective = HeadObjective((Rows(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])),), 2, 0.05)
    weight = minimise(objective, tolerance=1e-12).weight
    v = float(weight[0, 0])
    assert 0.05 * v == pytest.approx(1 / (1 + np.exp(2 * v)), rel=1e-9)
    torch.testing.assert_close(weight, torch.tensor([[v, 0.0], [-v, 0.0]], dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_several_parts_are_one() -> None:
    p = problem(150, 5, 4, weighted=True)
    one, many = (minimise(p.objective(*cuts), tolerance=1e-9).weight for cuts in ((), (3, 3, 77)))
    torch.testing.assert_close(one, many, rtol=0, atol=1e-8)


def test_warm_start_finds_the_same_optimum() -> None:
    p = problem(300, 8, 4, ridge=1e-3)
    cold = minimise(p.objective(), tolerance=1e-9)
    here = minimise(p.objective(), start=cold.weight, tolerance=1e-7)
    assert (here.iterations, here.products) == (0, 0)
    assert torch.equal(here.weight, cold.weight)
    assert here.weight is not cold.weight
    near = replace(p, weights=np.where(np.arange(300) < 5, 1.3, 1.0))
    fresh = minimise(near.objective(), tolerance=1e-9)
    for kept in (None, cold.preconditioner):
        warm = minimise(near.objective(), start=cold.weight, preconditioner=kept, tolerance=1e-9)
        torch.testing.assert_close(warm.weight, fresh.weight, rtol=0, atol=1e-6)
        assert warm.iterations < fresh.iterations
    far = minimise(p.objective(), start=torch.full_like(cold.weight, 3.0) + 5 * torch.as_tensor(p.head()))
    torch.testing.assert_close(far.weight, cold.weight, rtol=0, atol=1e-4)


def test_the_preconditioner_serves_the_solves_that_follow() -> None:
    p = problem(300, 8, 4, ridge=1e-3)
    found = minimise(p.objective())
    right = torch.as_tensor(p.head())
    solved = solve(p.objective().curvature(found.weight), right, found.preconditioner, tolerance=1e-8)
    assert solved.residual <= 1e-8


def test_a_new_preconditioner_is_made_once_the_old_one_has_cost_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    class Counted(Preconditioner):
        def __init__(self, curvature: Any, *, cheap: bool = False) -> None:
            made.append(cheap)
            super().__init__(curvature, cheap=cheap)

    monkeypatch.setattr(module, "Preconditioner", Counted)
    p = problem(400, 10, 4, distance=3.0, ridge=1e-3)
    for price, expected in ((1e9, [True]), (0.0, [True] + [False] * 20)):
        monkeypatch.setattr(Counted, "price", staticmethod(lambda curvature, price=price: price))
        made.clear()
        found = minimise(p.objective())
        assert made == expected[: found.iterations]
        assert found.gradient_ratio <= 1e-6


def test_constant_features_and_no_signal() -> None:
    """With features that say nothing, the head knows the shares of the classes and nothing else."""
    y = torch.arange(90) % 3
    head = fit_head(torch.ones(90, 4), y, 3)
    assert head.gradient_ratio <= 1e-6
    torch.testing.assert_close(torch.softmax(head.logits(torch.ones(5, 4)), 1), torch.full((5, 3), 1 / 3))
    z = torch.cat([torch.as_tensor(problem(90, 2, 3).x), torch.full((90, 1), 7.0)], 1)
    head = fit_head(z, y, 3)
    assert float(head.optimum.weight[:, 2].abs().max()) < 1e-9


def test_fit_head_standardises_as_scikit_learn_does() -> None:
    p = problem(200, 5, 4, ridge=1e-3)
    raw = p.x * np.array([1e-3, 1, 50, 1e4, 7], np.float32) + np.array([0, 5, -300, 0, 1], np.float32)
    scaled = StandardScaler().fit(raw.astype(np.float64))
    standard = replace(p, x=scaled.transform(raw.astype(np.float64)).astype(np.float32))
    head = fit_head(torch.as_tensor(raw), torch.as_tensor(p.y), 4, p.ridge)
    expected = soft(standard, best_head(standard))
    scores = head.logits(torch.as_tensor(raw))
    np.testing.assert_allclose(torch.softmax(scores, 1).numpy(), expected, rtol=0, atol=1e-4)
    assert torch.equal(head.predict(torch.as_tensor(raw)), scores.argmax(1))
    assert head.gradient_ratio == head.optimum.gradient_ratio <= 1e-6


def test_fit_head_leaves_the_features_alone_unless_told_otherwise() -> None:
    p = problem(100, 5, 3)
    z, y = torch.as_tensor(p.x).clone(), torch.as_tensor(p.y)
    kept = fit_head(z, y, 3)
    assert torch.equal(z, torch.as_tensor(p.x))
    weighted = fit_head(z, y, 3, sample_weight=torch.ones(100) * 2)
    torch.testing.assert_close(weighted.optimum.weight, kept.optimum.weight, rtol=0, atol=1e-6)
    overwritten = fit_head(z, y, 3, overwrite=True)
    assert torch.equal(z, kept.scaler.apply(torch.as_tensor(p.x)))
    torch.testing.assert_close(overwritten.optimum.weight, kept.optimum.weight, rtol=0, atol=0)
    wide = torch.as_tensor(p.x).double()
    torch.testing.assert_close(fit_head(wide, y, 3).optimum.weight, kept.optimum.weight, rtol=0, atol=1e-5)


def test_labels_of_any_integer_type() -> None:
    p = problem(60)
    z, y = torch.as_tensor(p.x), torch.as_tensor(p.y)
    for kind in (torch.uint8, torch.int32):
        assert torch.equal(fit_head(z, y.to(kind), 3).optimum.weight, fit_head(z, y, 3).optimum.weight)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z": torch.zeros(0, 3), "y": torch.zeros(0, dtype=torch.int64)}, DataError, "n >= 1"),
        ({"z": torch.zeros(6)}, DataError, r"features \[n, d\]"),
        ({"y": torch.zeros(5, dtype=torch.int64)}, DataError, r"got \[6, 3\] and \[5\]"),
        ({"y": torch.tensor([0, 1, 2, 0, 1, 2])}, DataError, r"labels in \[0, 1\].*got 0 to 2"),
        ({"y": torch.tensor([0, 1, -1, 0, 1, 0])}, DataError, r"got -1 to 1"),
        ({"z": torch.full((6, 3), torch.nan)}, DataError, "finite features"),
        ({"z": torch.tensor([[1.0], [2], [3], [4], [5], [torch.inf]])}, DataError, "finite features"),
        ({"ridge": 0.0}, SpecError, "ridge > 0"),
        ({"ridge": float("nan")}, SpecError, "ridge > 0"),
        ({"sample_weight": torch.ones(5)}, DataError, "one weight for each of 6 rows"),
        ({"sample_weight": -torch.ones(6)}, DataError, "weights >= 0"),
        ({"sample_weight": torch.zeros(6)}, DataError, "not all 0"),
        ({"sample_weight": torch.full((6,), torch.nan)}, DataError, "finite weights"),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    fine: dict[str, Any] = {"z": torch.as_tensor(problem(6, 3).x), "y": torch.arange(6) % 2, "classes": 2}
    fit_head(**fine)
    with pytest.raises(error, match=message):
        fit_head(**fine | change)
