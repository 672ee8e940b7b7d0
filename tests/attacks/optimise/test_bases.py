"""Base rows and wrong labels against naive answers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.attacks.optimise.bases import spread, wrong_labels
from tests.attacks import attacks_fixture as toy


@given(st.integers(2, 12), st.integers(0, 2**30))
@settings(max_examples=30, deadline=None)
def test_wrong_labels_are_wrong_and_even(classes: int, seed: int) -> None:
    y = torch.arange(500 * classes) % classes
    flipped = wrong_labels(y, classes, torch.Generator().manual_seed(seed))
    assert not bool((flipped == y).any()) and 0 <= int(flipped.min()) <= int(flipped.max()) < classes
    pairs = torch.zeros(classes, classes).index_put_((y, flipped), torch.ones(len(y)), accumulate=True)
    expected = 500 / (classes - 1)
    off = pairs[~torch.eye(classes, dtype=torch.bool)]
    assert float((off - expected).abs().max()) < 6 * expected**0.5 + 1


@pytest.mark.parametrize(("n", "rows"), [(10, 3), (10, 10), (10, 25)])
def test_bases_are_used_evenly(n: int, rows: int) -> None:
    used = torch.bincount(spread(n, rows, toy.stream(0, "bases")), minlength=n)
    assert int(used.sum()) == rows and int(used.max() - used.min()) <= 1
