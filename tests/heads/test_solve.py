"""Solves with the Hessian against dense Cholesky, with every kind of preconditioner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

import foretaste.heads.solve as module
from foretaste.heads.solve import Preconditioner, Solution, solve
from tests.heads.fixture import Array, Problem, naive_hessian, problem

KINDS = ("whole", "blocks", "mean")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each size class of problem, at the size of a test."""
    if request.param != "whole":
        monkeypatch.setattr(module, "DENSE", 0)
    if request.param == "mean":
        monkeypatch.setattr(module, "BLOCKS", 0)
    return str(request.param)


def sides(p: Problem) -> dict[str, Array]:
    """Right-hand sides: any; the same in every class, which costs only the ridge; columns that sum to zero."""
    any_ = np.random.default_rng(3).normal(size=(p.classes, p.x.shape[1] + 1))
    return {"any": any_, "class-constant": np.ones_like(any_) * any_[:1], "zero-sum": any_ - any_.mean(0)}


def cholesky(hessian: Array, right: Array) -> Array:
    solved: Array = cho_solve(cho_factor(hessian), right.ravel()).reshape(right.shape)
    return solved


def run(p: Problem, right: Array, tolerance: float, start: Tensor | None = None, **more: bool | int) -> Solution:
    curvature = p.objective(5).curvature(torch.as_tensor(p.head()))
    return solve(curvature, torch.as_tensor(right), Preconditioner(curvature), start=start, tolerance=tolerance, **more)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("d", "classes", "ridge"), [(1, 2, 1e-3), (5, 4, 1e-3), (5, 4, 1e-6), (3, 9, 1.0)])
def test_equals_dense_cholesky(kind: str, d: int, classes: int, ridge: float, weighted: bool) -> None:
    p = problem(60, d, classes, weighted=weighted, ridge=ridge)
    hessian = naive_hessian(p, p.head())
    for name, right in sides(p).items():
        expected = cholesky(hessian, right)
        found = run(p, right, 1e-10)
        error = np.linalg.norm(hessian @ (found.value.numpy() - expected).ravel())
        assert error <= 2e-10 * np.linalg.norm(right), name


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6, 1e-9])
def test_the_residual_is_the_true_one(kind: str, tolerance: float) -> None:
    p = problem(80, 6, 5, ridge=1e-4, distance=3.0)
    hessian = naive_hessian(p, p.head())
    for right in sides(p).values():
        found = run(p, right, tolerance)
        size = np.linalg.norm(right)
        true = np.linalg.norm(hessian @ found.value.numpy().ravel() - right.ravel()) / size
        assert found.residual <= tolerance
        assert true == pytest.approx(found.residual, rel=1e-3, abs=1e-11)


def test_float32_products_reach_six_digits_of_an_even_problem(kind: str) -> None:
    p = problem(80, 6, 5)
    right = sides(p)["any"]
    found = run(p, right, 1e-6, exact=False)
    expected = cholesky(naive_hessian(p, p.head()), right)
    np.testing.assert_allclose(found.value.numpy(), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_warm_start(kind: str) -> None:
    p = problem(200, 12, 6, ridge=1e-3)
    right = sides(p)["any"]
    cold = run(p, right, 1e-8)
    again = run(p, right, 1e-7, start=cold.value)
    assert again.iterations == 0
    torch.testing.assert_close(again.value, cold.value, rtol=1e-12, atol=1e-12)
    near = run(p, 1.001 * right, 1e-8, start=cold.value)
    assert near.iterations < cold.iterations
    torch.testing.assert_close(near.value, 1.001 * cold.value, rtol=1e-4, atol=1e-4)


def test_zero_right_hand_side(kind: str) -> None:
    p = problem()
    found = run(p, np.zeros((3, 5)), 1e-6)
    assert (float(found.value.abs().max()), found.residual, found.iterations) == (0.0, 0.0, 0)


def test_stops_at_the_most_products_and_says_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DENSE", 0)
    p = problem(300, 20, 6, ridge=1e-5, distance=3.0)
    right = sides(p)["zero-sum"]
    found = run(p, right, 1e-8, most=3)
    hessian = naive_hessian(p, p.head())
    true = np.linalg.norm(hessian @ found.value.numpy().ravel() - right.ravel()) / np.linalg.norm(right)
    assert found.iterations == 3
    assert found.residual == pytest.approx(true, rel=1e-6)
    assert 1e-8 < true < 1


def test_whole_preconditioner_is_the_inverse() -> None:
    p = problem(80, 4, 4, ridge=1e-2)
    curvature = p.objective().curvature(torch.as_tensor(p.head()))
    v = torch.as_tensor(sides(p)["zero-sum"])
    torch.testing.assert_close(Preconditioner(curvature)(curvature.product(v)), v, rtol=0, atol=1e-3)


def test_cheap_preconditioner_is_the_inverse_at_zero_up_to_a_factor() -> None:
    """At W = 0, H = (I - 11'/C) (x) A / C + ridge: the same block for every class."""
    p = problem(80, 4, 5, ridge=1e-6)
    curvature = p.objective().curvature(torch.zeros(5, 5, dtype=torch.float64))
    v = torch.as_tensor(sides(p)["zero-sum"])
    back = Preconditioner(curvature, cheap=True)(curvature.product(v))
    torch.testing.assert_close(back, v / (1 - 1 / 5), rtol=0, atol=2e-3)


@pytest.mark.parametrize("ridge", [1e-4, 1e-12])
def test_features_that_repeat_each_other(kind: str, ridge: float) -> None:
    """H is singular but for the ridge, below what float32 resolves: the factors must still exist."""
    p = problem(30, 3, 3, ridge=ridge)
    p = replace(p, x=np.concatenate([p.x] * 30, 1))
    curvature = p.objective().curvature(torch.as_tensor(p.head()))
    conditioned = Preconditioner(curvature)(torch.as_tensor(sides(p)["zero-sum"]))
    assert torch.isfinite(conditioned).all()
    if ridge > 1e-6:
        right = sides(p)["any"]
        true = naive_hessian(p, p.head()) @ run(p, right, 1e-7).value.numpy().ravel() - right.ravel()
        assert np.linalg.norm(true) <= 1e-7 * np.linalg.norm(right)
