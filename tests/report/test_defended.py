"""Which defence an attack was made against."""

from __future__ import annotations

import pytest

from foretaste.report import defended
from foretaste.report.summary import summarise
from tests.report.defended_fixture import attacked


@pytest.mark.parametrize(
    ("said", "key", "hit"),
    [
        ("sphere", "sphere", True),
        ("sphere", "sphere:reference=clean", False),
        ("spectral/centred=false", "spectral:centred=False", True),
        ("slab", "sphere", False),
    ],
)
def test_which_column_an_attack_aims_at(said: str, key: str, hit: bool) -> None:
    (row,) = summarise(attacked(1500, {}, said)).rows
    assert defended.against(row) == said and defended.aims_at(row, key) is hit
    assert defended.plain_form(row) == "features, box"
