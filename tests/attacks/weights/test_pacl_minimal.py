"""The smallest edit against brute force on planted judges, and against PA-CL's own edit on a network."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.attacks.weights.pacl import PACL
from foretaste.attacks.weights.pacl_minimal import PACLMinimal, fewest, flattest, shortest
from foretaste.errors import SpecError
from foretaste.runtime import Runtime, stream
from tests.attacks.weights_fixture import OWN, SHADOW, TARGET, encoder_of

FIELDS: dict[str, Any] = {"batch": 64, "trainable": "last-two-stages"}


def made(attack: PACL) -> Corruption:
    return attack.corrupt(EditProblem(encoder_of(), (TARGET,), (OWN,), SHADOW, 0, Runtime()))


def test_shortest_finds_the_planted_factor() -> None:
    changes = [torch.ones(3, 2), -2 * torch.ones(4)]
    found, figures = shortest(changes, lambda c: float(c[0][0, 0]) ** 2, 0.3)  # holds from 0.3 ** 0.5
    assert figures["scale"] == pytest.approx(0.3**0.5, abs=3e-4) and figures["scale"] ** 2 >= 0.3
    assert all(torch.equal(a, figures["scale"] * b) for a, b in zip(found, changes, strict=True))


def test_fewest_is_that_of_brute_force_for_a_sum() -> None:
    worth = [0.05, 0.4, 0.02, 0.3, 0.1]
    changes = [torch.full((2,), value) for value in worth]

    def judge(c: Any) -> float:
        return sum(float(one[0]) for one in c)

    for holds in (0.3, 0.65, 0.72, 0.8):
        found, figures = fewest(changes, judge, holds)
        assert judge(found) >= holds
        sums = ((len(some), sum(some)) for k in range(1, 6) for some in itertools.combinations(worth, k))
        assert figures["tensors"] == min(size for size, total in sums if total >= holds - 1e-6)
        assert figures["tensors_whole"] == 5


def test_flattest_is_the_best_approximation_of_least_rank() -> None:
    draws = stream(0, "rank")
    u, v = (torch.linalg.qr(torch.randn(6, 6, generator=draws, dtype=torch.float64))[0] for _ in range(2))
    spectrum = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    change = (u * spectrum) @ v.T
    bias = torch.ones(5, dtype=torch.float64)

    def judge(c: Any) -> float:
        return -float((c[0] - change).norm())  # the error of rank 3 is hypot(0.5, 0.2, 0.1)

    error = (0.25 + 0.04 + 0.01) ** 0.5
    for holds, rank in ((-error - 1e-6, 3), (-error + 1e-6, 4)):
        found, figures = flattest([change.view(6, 2, 3), bias], lambda c: judge([c[0].view(6, 6)]), holds)
        assert (figures["rank"], figures["rank_whole"]) == (rank, 6)
        assert int(torch.linalg.matrix_rank(found[0].view(6, 6), rtol=1e-8)) == rank and torch.equal(found[1], bias)


@pytest.mark.parametrize(("edit", "holds"), [("l2", 0.9), ("tensors", 0.5), ("rank", 0.9)])
def test_the_smaller_edit_still_holds_and_the_ledger_says_how_small(edit: Any, holds: float) -> None:
    clean = encoder_of().body.state_dict()
    whole = made(PACL(**FIELDS))
    small = made(PACLMinimal(edit=edit, holds=holds, **FIELDS))
    figures = small.ledger.figures
    assert holds <= figures["similarity"] < figures["similarity_whole"]
    assert figures["l2_change_whole"] == pytest.approx(whole.ledger.figures["l2_change"], rel=1e-4)
    changed = [key for key in clean if not torch.equal(small.state[key], clean[key])]
    assert changed == small.ledger.changed and set(changed) <= set(whole.ledger.changed)

    def delta(key: str) -> Tensor:
        return (small.state[key] - clean[key]).flatten(1)

    if edit == "l2":
        assert figures["l2_change"] == pytest.approx(figures["scale"] * figures["l2_change_whole"], rel=1e-4)
        assert figures["scale"] < 1 and figures["similarity"] < 0.902
    elif edit == "tensors":
        assert len(changed) == figures["tensors"] < figures["tensors_whole"] == 4
    else:
        ranks = [int(torch.linalg.matrix_rank(delta(key), rtol=1e-3)) for key in changed]
        assert max(ranks) == figures["rank"] < figures["rank_whole"] == 16


def test_an_edit_that_never_arrived_stays_whole() -> None:
    fields = {**FIELDS, "steps": 3}
    small, whole = made(PACLMinimal(holds=0.999, **fields)), made(PACL(**fields))
    assert "scale" not in small.ledger.figures and small.ledger.figures["similarity"] < 0.999
    for key, value in whole.state.items():
        assert torch.allclose(small.state[key], value, rtol=1e-5, atol=1e-7)


def test_moving_statistics_cannot_be_made_smaller() -> None:
    with pytest.raises(SpecError, match="batchnorm = moving changes more than the trained weights"):
        PACLMinimal.configure(batchnorm="moving")
