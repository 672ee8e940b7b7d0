"""Memory of a step of the attacks on features, as the system sees it."""

from __future__ import annotations

import pytest

from tests.heads import test_memory
from tests.heads.test_memory import run

pytestmark = test_memory.pytestmark

SCRIPT = """
from foretaste.attacks.base import Knowledge
from foretaste.attacks.labelled.exact import Exact
from foretaste.attacks.labelled.gradient_canceling import GradientCanceling
from foretaste.runtime import make_runtime

runtime = make_runtime()
known = Knowledge(*data(1_000_000, 512, 10), *data(10_000, 512, 10), 10, 1e-3, runtime)
made = {attack}.poison(known, 1500, 0)
first, last = made.ledger.objective
print(peak(), first, last, len(made.z), made.z.shape[1])
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("attack", "sign"),
    [("Exact(steps=1)", 1), ("GradientCanceling(steps=1, head_radius=1.0)", -1)],
    ids=["exact", "gradient-canceling"],
)
def test_a_step_beside_a_million_rows_of_512_features_fits_in_8_gib(attack: str, sign: int) -> None:
    most, first, last, *shape = run(SCRIPT.format(attack=attack))
    assert sign * (last - first) > 0
    assert shape == [1500, 512]
    assert 2 * 2**30 < most < 8 * 2**30
