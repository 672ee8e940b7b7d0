"""Budgets: what share of the rows an attacker controls, as a number of rows. Exact arithmetic, never a float's."""

from __future__ import annotations

import math
from fractions import Fraction

from foretaste.attacks.base import RowAttack
from foretaste.errors import BudgetError


def share_of(budget: float, n: int) -> int:
    """floor(budget * n) in exact arithmetic: 0.29 of 100 is 29, not 28 as binary floats give; 0 for no real share."""
    return int(Fraction(str(budget)) * n) if 0 < budget < float("inf") else 0


def poisoned_rows(budget: float, n: int) -> int:
    """floor(budget * n) rows, at least one.

    Raises:
        BudgetError: the budget is not a positive number, or leaves no row.
    """
    rows = share_of(budget, n)
    if rows < 1:
        raise BudgetError(
            f"budget: a share of the {n} training rows that gives at least one row",
            got=f"{budget:g}",
            do=f"pass at least {math.ceil(10_000 / max(n, 1)) / 10_000:g}",  # rounded up: it must do
        )
    return rows


def require_replaceable(attack: RowAttack, budget: float) -> None:
    """There are only so many rows to replace; adding has no such end.

    Raises:
        BudgetError: the attack replaces rows, and the budget is above 1.
    """
    if attack.replaces and budget > 1:
        raise BudgetError(
            f"budget: at most 1 for {attack.name}, which replaces training rows",
            got=f"{budget:g}",
            do="pass 1 for all of them",
        )
