"""Loss, gradient and curvature of the head against loops over rows and classes, and against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import foretaste.heads.objective as module
from foretaste.heads.objective import HeadObjective, Rows, logits
from tests.heads.fixture import Problem, naive_gradient, naive_hessian, naive_loss, problem

problems = st.builds(
    problem,
    n=st.integers(1, 12),
    d=st.integers(1, 4),
    classes=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    distance=st.floats(0, 5),
    weighted=st.booleans(),
    ridge=st.sampled_from([0.0, 1e-3, 1.0]),
)
cheap = settings(max_examples=25, deadline=None, derandomize=True)


@cheap
@given(problems, st.integers(0, 12))
def test_loss_and_gradient_equal_the_loops(p: Problem, cut: int) -> None:
    head = p.head()
    objective = p.objective(min(cut, len(p.y)))  # a part may be empty
    loss, gradient = objective.loss_and_gradient(torch.as_tensor(head))
    assert loss == pytest.approx(naive_loss(p, head), rel=1e-12)
    assert objective.loss(torch.as_tensor(head)) == pytest.approx(naive_loss(p, head), rel=1e-12)
    np.testing.assert_allclose(gradient.numpy(), naive_gradient(p, head), rtol=0, atol=1e-12)


@cheap
@given(problems)
def test_gradient_and_products_are_finite_differences(p: Problem) -> None:
    objective, head = p.objective(), torch.as_tensor(p.head())
    direction = torch.as_tensor(np.random.default_rng(1).normal(size=head.shape))
    step = 1e-5
    ahead, behind = (objective.loss_and_gradient(head + s * step * direction) for s in (1, -1))
    _, gradient = objective.loss_and_gradient(head)
    assert float((gradient * direction).sum()) == pytest.approx((ahead[0] - behind[0]) / (2 * step), abs=1e-7)
    bend = (ahead[1] - behind[1]) / (2 * step)
    curvature = objective.curvature(head)
    torch.testing.assert_close(curvature.product(direction, exact=True), bend, rtol=0, atol=1e-7)
    torch.testing.assert_close(curvature.product(direction), bend, rtol=0, atol=2e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("d", "classes"), [(1, 2), (4, 3), (2, 7)])
def test_curvature_equals_the_dense_hessian_by_loops(d: int, classes: int, weighted: bool) -> None:
    p = problem(40, d, classes, weighted=weighted)
    truth = naive_hessian(p, p.head())
    curvature = p.objective(11).curvature(torch.as_tensor(p.head()))
    size = np.abs(truth).max()
    np.testing.assert_allclose(curvature.dense(10**6)[0].numpy(), truth, rtol=0, atol=2e-6 * size)
    diagonal = [truth[c * (d + 1) : (c + 1) * (d + 1), c * (d + 1) : (c + 1) * (d + 1)] for c in range(classes)]
    np.testing.assert_allclose(curvature.blocks(10**6).numpy(), diagonal, rtol=0, atol=2e-6 * size)
    np.testing.assert_allclose(curvature.mean_block(10**6)[0].numpy(), np.mean(diagonal, 0), rtol=0, atol=2e-6 * size)
    v = torch.as_tensor(np.random.default_rng(2).normal(size=(classes, d + 1)))
    product = (truth @ v.numpy().ravel()).reshape(v.shape)
    np.testing.assert_allclose(curvature.product(v, exact=True).numpy(), product, rtol=0, atol=1e-12 * size * 10)
    np.testing.assert_allclose(curvature.product(v).numpy(), product, rtol=0, atol=3e-6 * size)


def test_chunks_and_parts_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(1500, 6, 4, weighted=True)
    head, v = torch.as_tensor(p.head()), torch.as_tensor(p.head(1.0))
    whole = p.objective()
    assert [len(rows) for rows in whole.chunks()] == [1500]
    expected = (*whole.loss_and_gradient(head), whole.curvature(head).product(v, exact=True))
    monkeypatch.setattr(module, "CHUNK_BYTES", {"cpu": 1})
    pieces = p.objective(7, 900)
    assert [len(rows) for rows in pieces.chunks()] == [7, 256, 256, 256, 125, 256, 256, 88]
    torch.testing.assert_close(
        (*pieces.loss_and_gradient(head), pieces.curvature(head).product(v, exact=True)), expected, rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        pieces.curvature(head).dense(10**6), whole.curvature(head).dense(10**6), rtol=1e-4, atol=1e-6
    )


def test_chunks_are_views() -> None:
    p = problem(600, 3)
    objective = p.objective(100)
    for rows in objective.chunks():
        assert any(rows.x.untyped_storage().data_ptr() == q.x.untyped_storage().data_ptr() for q in objective.parts)


def test_a_row_of_weight_two_counts_as_two_rows() -> None:
    p = problem(30)
    twice = Problem(np.concatenate([p.x, p.x[:10]]), np.concatenate([p.y, p.y[:10]]), p.classes, p.ridge)
    heavy = replace(p, weights=np.where(np.arange(30) < 10, 2.0, 1.0))
    head = torch.as_tensor(p.head())
    torch.testing.assert_close(
        heavy.objective().loss_and_gradient(head), twice.objective().loss_and_gradient(head), rtol=1e-12, atol=1e-12
    )
    assert heavy.objective().total == twice.objective().total == 40


def test_sampled_curvature_keeps_every_class_when_labels_come_in_cycles() -> None:
    """Every fourth row is of one class here: evenly spaced rows would see the curvature of that class alone."""
    n, classes = 4096, 4
    y = torch.arange(n) % classes
    x = 2 * torch.eye(classes)[y] + torch.as_tensor(np.random.default_rng(0).normal(size=(n, classes))).float()
    objective = HeadObjective((Rows(x, y),), classes, 1e-3)
    curvature = objective.curvature(torch.cat([torch.eye(classes), torch.zeros(classes, 1)], 1).double())
    for sampled, whole in (
        (curvature.dense(n // 4), curvature.dense(n)),
        (curvature.blocks(n // 4), curvature.blocks(n)),
        (curvature.mean_block(n // 4), curvature.mean_block(n)),
    ):
        lower = torch.linalg.cholesky(whole)
        ratio = torch.linalg.eigvalsh(torch.linalg.solve(lower, torch.linalg.solve(lower, sampled).mT))
        assert 0.75 < float(ratio.min()) <= float(ratio.max()) < 1.33


def test_huge_scores_stay_finite() -> None:
    """Softmax saturates: the loss is then the distance of the scores."""
    x = torch.tensor([[1e4], [-1e4]])
    head = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    wrong = HeadObjective((Rows(x, torch.tensor([1, 0])),), 2, 0.0)
    loss, gradient = wrong.loss_and_gradient(head)
    assert loss == pytest.approx(2e4)
    torch.testing.assert_close(gradient, torch.tensor([[1e4, 0.0], [-1e4, 0.0]], dtype=torch.float64))
    assert wrong.curvature(head).product(head).abs().max() == 0
    assert torch.isfinite(wrong.curvature(head).dense(8)).all()


def test_logits_are_scores_with_bias() -> None:
    p = problem(9)
    expected = p.rows[0] @ p.head().T
    np.testing.assert_allclose(logits(torch.as_tensor(p.x), torch.as_tensor(p.head())).numpy(), expected, atol=1e-12)
