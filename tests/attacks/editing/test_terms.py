"""Terms of the loss: zero gradient at the class, and the cloud against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foretaste.attacks.editing.terms import Cloud, target_loss
from foretaste.runtime import stream


def test_target_loss_has_gradient_zero_at_the_class() -> None:
    references = torch.randn(5, 4, generator=stream(0, "class"))
    view = references.mean(0, keepdim=True).requires_grad_()
    for similarity in ("standardised", "cosine"):
        loss = target_loss(view, references, similarity, "class-mean")  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, view)
        assert float(loss.detach()) == pytest.approx(0, abs=1e-6) and float(gradient.norm()) < 1e-5


def test_the_cloud_is_that_of_plain_loops() -> None:
    z = torch.randn(7, 3, generator=stream(0, "cloud"), dtype=torch.float64) * torch.tensor([1.0, 1.1, 0.01])
    rows = z.numpy()
    unit = np.maximum(rows.std(0), 0.5 * np.sort(rows.std(0))[1])
    own = [(((row - rows.mean(0)) / unit) ** 2).mean() for row in rows]
    point = torch.tensor([[2.0, -1.0, 0.3], rows.mean(0).tolist()], dtype=torch.float64)
    expected = [(((p - rows.mean(0)) / unit) ** 2).mean() / np.median(own) for p in point.numpy()]
    assert Cloud.of(z).distance(point).tolist() == pytest.approx(expected)
    assert Cloud.of(z).excess(point).tolist() == pytest.approx([expected[0] - 1, 0])
