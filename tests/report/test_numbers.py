"""How numbers look in the report."""

from __future__ import annotations

import pytest

from foretaste.report import numbers


@pytest.mark.parametrize(
    ("change", "text"), [(-0.091, "−9.1"), (0.004, "+0.4"), (-0.0004, "0.0"), (0.0, "0.0"), (-0.0006, "−0.1")]
)
def test_points(change: float, text: str) -> None:
    assert numbers.points(change) == text
