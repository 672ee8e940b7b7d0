"""PA-CL's objective: finite differences, plain loops, and which side has a gradient."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste.attacks.editing.problem import Pair, PreparedProblem
from foretaste.attacks.editing.shadow_cache import ShadowCache
from foretaste.attacks.weights.pacl import PACL
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime, stream
from tests.attacks.weights_fixture import OWN, SHADOW, TARGET


def prepare_problem(z_references: Tensor, d: int) -> PreparedProblem:
    scaler = Scaler(torch.linspace(-1, 1, d).double(), torch.linspace(0.5, 2, d).double())
    empty = torch.zeros(0, dtype=torch.int64)
    cache = ShadowCache(SHADOW.pixels, torch.zeros(0, d), scaler, empty, empty, (), None, None, (SHADOW.pixels,), 0)
    return PreparedProblem((Pair(TARGET, OWN.pixels[: len(z_references)], z_references),), cache, Runtime())


KNOBS = list(
    itertools.product(["standardised", "normalised", "cosine"], ["class-mean", "mean", "max"], ["clean", "moving"])
)


@pytest.mark.parametrize(("similarity", "aggregation", "side"), KNOBS)
def test_gradient_is_that_of_finite_differences(similarity: Any, aggregation: Any, side: Any) -> None:
    d, b, v, m, draws = 4, 5, 2, 3, stream(0, "gradient")
    x = torch.randn(b + v + m, 6, generator=draws, dtype=torch.float64)
    w0, w1 = (torch.randn(shape, generator=draws, dtype=torch.float64) for shape in ((6, 7), (7, d)))
    clean = torch.tanh(x @ w0) @ w1
    prepared = prepare_problem(clean[-m:], d)
    attack = PACL(similarity=similarity, aggregation=aggregation, reference_side=side, anchor=0.7, views=2)

    def loss(a: Tensor, b_: Tensor) -> Tensor:
        effectiveness, rest = attack.objective.losses(torch.tanh(x @ a) @ b_, clean[:b], prepared)
        return effectiveness + 3 * rest

    moved = [(w + 0.3 * torch.randn(w.shape, generator=draws, dtype=torch.float64)).requires_grad_() for w in (w0, w1)]
    assert torch.autograd.gradcheck(loss, moved, eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(("similarity", "aggregation", "side"), KNOBS)
def test_loss_is_that_of_plain_loops(similarity: Any, aggregation: Any, side: Any) -> None:
    d, b, v, m, draws = 4, 5, 2, 3, stream(0, "loops")
    z, clean = (torch.randn(n, d, generator=draws, dtype=torch.float64) for n in (b + v + m, b + m))
    prepared = prepare_problem(clean[b:], d)
    attack = PACL(similarity=similarity, aggregation=aggregation, reference_side=side, anchor=0.7, views=2)
    te, rest = attack.objective.losses(z, clean[:b], prepared)
    mean, unit = np.linspace(-1, 1, d), np.linspace(0.5, 2, d)

    def distance(p: Any, q: Any) -> float:
        if similarity == "cosine":
            return float(1 - p @ q / np.linalg.norm(p) / np.linalg.norm(q))
        return float(((p - q) ** 2).sum() / (1 if similarity == "normalised" else d))

    rows, old = z.numpy(), clean.numpy()
    if similarity == "standardised":
        rows, old = (rows - mean) / unit, (old - mean) / unit
    if similarity == "normalised":
        rows, old = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, old))
    views, references = rows[b : b + v], old[b:] if side == "clean" else rows[b + v :]
    expected = {
        "class-mean": np.mean([distance(t, references.mean(0)) for t in views]),
        "mean": np.mean([distance(t, r) for t in views for r in references]),
        "max": np.mean([min(distance(t, r) for r in references) for t in views]),
    }[aggregation]
    assert float(te) == pytest.approx(expected)
    utility = np.mean([distance(rows[i], old[i]) for i in range(b)])
    anchor = np.mean([distance(rows[b + v + i], old[b + i]) for i in range(m)])
    assert float(rest) == pytest.approx(utility + 0.7 * anchor)


def test_detached_references_get_no_gradient() -> None:
    z = torch.randn(8, 4, generator=stream(0, "detached"), dtype=torch.float64, requires_grad=True)
    attack = PACL(reference_side="detached")
    te, _ = attack.objective.losses(z, z.detach()[:4], prepare_problem(z.detach()[5:], 4))
    te.backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None and bool(z.grad[4].any()) and not bool(z.grad[5:].any())
