"""What attacks are given."""

import pytest
import torch

from foretaste.attacks.base import WeightAttack
from foretaste.attacks.knowledge import EditProblem, Knowledge
from foretaste.attacks.weights.bad_encoder import BadEncoder
from foretaste.attacks.weights.pacl_minimal import PACLMinimal
from foretaste.errors import SpecError
from foretaste.images import Images
from foretaste.runtime import Runtime
from tests.attacks.weights_fixture import OWN, SHADOW, TARGET, encoder_of


def known(**images: Images) -> Knowledge:
    rows, labels = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    return Knowledge(rows, labels, rows, labels, 2, 1e-3, Runtime(), **images)


def test_what_attacks_on_the_weights_keep_is_the_shadow_or_the_attackers_own_images() -> None:
    assert known().kept is None
    assert known(validation_images=OWN).kept is OWN
    assert known(validation_images=OWN, shadow=SHADOW).kept is SHADOW


def test_a_problem_has_references_for_each_target() -> None:
    for targets, references in ((), ()), ((TARGET,), ()), ((), (OWN,)):
        with pytest.raises(SpecError, match="one set of references for each target"):
            EditProblem(encoder_of(), targets, references, SHADOW, 0, Runtime())


def test_an_attack_for_one_target_refuses_two() -> None:
    one = EditProblem(encoder_of(), (TARGET,), (OWN,), SHADOW, 0, Runtime())
    assert one.single("mine") == (TARGET, OWN)
    two = EditProblem(encoder_of(), (TARGET, TARGET), (OWN, OWN), SHADOW, 0, Runtime())
    with pytest.raises(SpecError, match=r"mine: one target for each encoder; got 2 together"):
        two.single("mine")


@pytest.mark.parametrize("attack", [BadEncoder(batch=64), PACLMinimal(batch=64, steps=1)], ids=repr)
def test_an_attack_that_reckons_with_no_defence_refuses_a_surrogate(attack: WeightAttack) -> None:
    from foretaste.defences.repairs.clp import CLP
    from foretaste.defences.surrogates import encoder_surrogate

    problem = EditProblem(encoder_of(), (TARGET,), (OWN,), SHADOW, 0, Runtime())
    made = encoder_surrogate(CLP(), problem.encoder, SHADOW, problem.runtime)
    with pytest.raises(SpecError, match=f"{attack.name}: no defence of the encoder.*got LipschitzPruning"):
        attack.corrupt(problem, made)
