"""Standardisation against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

import foretaste.heads.scaler as module
from foretaste.heads.scaler import Scaler
from foretaste.runtime import stream


def features(n: int, d: int = 7) -> torch.Tensor:
    """Unequal units, a mean away from zero; the first feature is constant, the second is zero."""
    z = torch.randn(n, d, generator=stream(0, "scaler")) * torch.logspace(-3, 3, d) + torch.linspace(-50, 90, d)
    z[:, 0], z[:, 1] = 0.1, 0.0
    return z


@pytest.mark.parametrize("chunk", [1, 2**19])
@pytest.mark.parametrize("cut", [0, 1, 300])
def test_equals_scikit_learn_over_two_parts(cut: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    z = features(500)
    expected = StandardScaler().fit(z.double().numpy())
    scaler = Scaler.of([z[:cut], z[cut:]])
    np.testing.assert_allclose(scaler.mean.numpy(), expected.mean_, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(scaler.scale.numpy(), expected.scale_, rtol=1e-9)
    assert (scaler.scale[:2] == 1).all()
    new = features(20) * 2
    np.testing.assert_allclose(scaler.apply(new).numpy(), expected.transform(new.double().numpy()), rtol=0, atol=2e-3)
    exact = scaler.apply(new.double())
    np.testing.assert_allclose(exact.numpy(), expected.transform(new.double().numpy()), rtol=1e-9, atol=1e-9)


def test_apply_copies_and_apply_in_place_does_not() -> None:
    z = features(40)
    before = z.clone()
    scaler = Scaler.of([z])
    x = scaler.apply(z)
    assert torch.equal(z, before)
    assert scaler.apply_(z) is z
    torch.testing.assert_close(z, x, rtol=0, atol=0)
    torch.testing.assert_close(scaler.undo(x), before, rtol=1e-5, atol=1e-4)


def test_a_spread_of_rounding_only_is_no_spread() -> None:
    z = torch.full((1000, 1), 1e6)
    z[::2] += 0.0625  # the next float32
    assert float(Scaler.of([z]).scale) == 1.0
    tiny = torch.tensor([[1e-44], [-1e-44]])
    assert float(Scaler.of([tiny]).scale) == 1.0
