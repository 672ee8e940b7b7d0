"""Budgets against exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.attacks.budget import poisoned_rows
from foretaste.errors import BudgetError


@pytest.mark.parametrize(("budget", "n", "rows"), [(0.29, 100, 29), (0.03, 5000, 150), (0.1, 30, 3), (1.15, 100, 115)])
def test_budget_is_what_was_typed(budget: float, n: int, rows: int) -> None:
    assert poisoned_rows(budget, n) == rows


@pytest.mark.parametrize("budget", [0.0, -0.1, math.nan, math.inf, -math.inf, 0.0009, 1e-320])
def test_no_budget_no_rows(budget: float) -> None:
    with pytest.raises(BudgetError, match="share of the 1000 training rows"):
        poisoned_rows(budget, 1000)


def test_budget_of_nothing() -> None:
    with pytest.raises(BudgetError):
        poisoned_rows(0.5, 0)


@given(st.integers(1, 10**6), st.integers(1, 4), st.integers(1, 10**6))
@settings(max_examples=200, deadline=None)
def test_budget_is_floor_of_the_decimal(digits: int, places: int, n: int) -> None:
    typed = Fraction(digits, 10**places)
    rows = math.floor(typed * n)
    if rows:
        assert poisoned_rows(float(typed), n) == rows
    else:
        with pytest.raises(BudgetError):
            poisoned_rows(float(typed), n)
