"""What a caller may rely on, whatever the attack: every entry of the table goes through the same questions.

Those that any attack can be asked are public, `foretaste.testing.check_attack`; here are those that only ours answer.
A new attack adds its line to SMALL: settings in which it runs on a toy in about a second.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from foretaste import attacks
from foretaste.attacks.base import Attack, LabelledAttack, PretrainingAttack, TargetedAttack, WeightAttack
from foretaste.attacks.knowledge import EditProblem, Knowledge
from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.runtime import Runtime
from foretaste.testing import check_attack
from tests.attacks import attacks_fixture as toy

SMALL: dict[str, list[dict[str, Any]]] = {
    "label-flip": [{}, {"labels": "least-likely"}],
    "exact": [
        {"steps": 4},
        {"steps": 4, "constraint": "none", "leader": "cross-entropy"},
        {"steps": 4, "constraint": "ball", "labels": "chosen"},
        {"steps": 4, "carrier": "pixels"},
        {"steps": 4, "carrier": "pixels", "epsilon": 8},
        {"steps": 4, "carrier": "pixels", "inversion": "matching", "bases": 2, "inversion_steps": 4},
        {"steps": 4, "carrier": "pixels", "inversion": "decoder", "constraint": "none", "inversion_steps": 5},
    ],
    "gradient-canceling": [
        {"steps": 4, "head_radius": 0.5},
        {"steps": 4, "labels": "random", "constraint": "none"},
        {"steps": 4, "target": "exact"},
        {"steps": 4, "head_radius": 0.5, "carrier": "pixels", "epsilon": 8},
    ],
    "feature-targeted": [
        {"steps": 4, "head_radius": 0.5},
        {"steps": 4, "head_radius": 0.5, "carrier": "pixels", "inversion_steps": 4, "bases": 2},
        {"steps": 4, "head_radius": 0.5, "carrier": "pixels", "inversion": "decoder", "inversion_steps": 4},
    ],
    "tgda": [
        {"steps": 25, "labels": "random", "rate": 0.3},
        {"steps": 4, "carrier": "pixels", "rate": 0.02, "labels": "random"},
        {"steps": 4, "carrier": "generator", "epsilon": 16},
    ],
    "emn": [
        {"rounds": 2, "steps": 3, "stop": 0},
        {"rounds": 2, "steps": 3, "stop": 0, "noise": "class"},
        {"rounds": 2, "steps": 3, "stop": 0, "carrier": "pixels"},
        {"rounds": 2, "steps": 3, "stop": 0, "carrier": "pixels", "noise": "class", "epsilon": 4},
    ],
    "gradient-matching": [{"steps": 4}, {"steps": 4, "restarts": 3, "epsilon": 16}],
    "bullseye": [{"steps": 4}, {"steps": 4, "bases": "nearest"}],
    "feature-collision": [{"steps": 4}, {"steps": 4, "watermark": 0.3, "epsilon": None}],
    "pacl": [{"steps": 10, "batch": 32}],
    "pacl-minimal": [{"steps": 10, "batch": 32, "holds": 0.0, "edit": edit} for edit in ("l2", "tensors", "rank")],
    "bad-encoder": [{"batch": 32, "epochs": 8, "references": 20, "step": 0.01}],
    "poisoned-encoder": [{}, {"layout": "left-right", "references": 2}],
    "interpolation": [{}, {"skew": -1, "references": 2}],
}
CASES = [attacks.configure(name, fields) for name, settings in SMALL.items() for fields in settings]
LABELLED = [attack for attack in CASES if isinstance(attack, LabelledAttack)]
WEIGHTS = [attack for attack in CASES if isinstance(attack, WeightAttack)]
PRETRAINING = [attack for attack in CASES if isinstance(attack, PretrainingAttack)]
KINDS = {
    "labelled": LabelledAttack,
    "targeted": TargetedAttack,
    "weights": WeightAttack,
    "pretraining": PretrainingAttack,
}
ROWS = 9
every = pytest.mark.parametrize("attack", CASES, ids=repr)


def test_the_suite_covers_the_table() -> None:
    assert set(SMALL) == set(attacks.ATTACKS)
    for name, (threat, _, line) in attacks.ATTACKS.items():
        kind = attacks.find(name)
        assert kind.name == name and line and not line.endswith(".")
        assert issubclass(kind, KINDS[threat])
        assert kind() == kind.configure(), "every field has a default"


def test_the_table_imports_nothing_heavy() -> None:
    code = (
        "import sys, foretaste.attacks; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_attack() -> None:
    with pytest.raises(SpecError, match=r"attack: one of label-flip, exact, .*pacl.*'nonsense'"):
        attacks.find("nonsense")


@every
def test_it_keeps_what_every_attack_promises(attack: Attack) -> None:
    check_attack(attack, draws=None if isinstance(attack, TargetedAttack) else True)


@every
def test_unknown_fields_are_named(attack: Attack) -> None:
    with pytest.raises(SpecError, match=rf"{attack.name}: fields .*nonsense = 1"):
        type(attack).configure(nonsense=1)


@every
def test_variant_is_text_with_the_defaults_too(attack: Attack) -> None:
    assert isinstance(type(attack)().variant, str) and "\n" not in type(attack)().variant


def test_uses_in_one_table_have_names_of_their_own() -> None:
    names = [(attack.name, attack.variant) for attack in CASES]
    assert len(set(names)) == len(names)


def solved(ledger: Ledger) -> bool:
    """Every inner solve came to an end."""
    return all(0 <= value < 1 for value in ledger.residuals.values())


def lent(attack: LabelledAttack) -> Knowledge:
    """Features alone for those that write features."""
    return toy.pixel_knowledge() if getattr(attack, "carrier", "features") != "features" else toy.feature_knowledge(240)


@pytest.mark.parametrize("attack", LABELLED, ids=repr)
class TestLabelled:
    def test_as_many_rows_as_asked_for_and_a_full_ledger(self, attack: LabelledAttack) -> None:
        known = lent(attack)
        made: Poisoning = attack.poison(known, ROWS, 0)
        assert made.y.shape == made.base.shape == (ROWS,)
        assert made.replaces == attack.replaces and made.ledger.changed == sorted(set(made.base.tolist()))
        assert (made.ledger.added, made.ledger.replaced) == ((0, ROWS) if made.replaces else (ROWS, 0))
        assert not made.replaces or (len(made.base.unique()) == ROWS and torch.equal(made.y, known.y[made.base]))
        assert made.constraint in {"none", "box", "ball", "pixels"}
        assert solved(made.ledger)

    def test_one_row_and_every_row(self, attack: LabelledAttack) -> None:
        known = lent(attack)
        for rows in (1, len(known.y)):
            assert len(attack.poison(known, rows, 0).y) == rows

    def test_plans_what_it_does(self, attack: LabelledAttack) -> None:
        passes, fits = attack.planned(ROWS)
        done = attack.poison(lent(attack), ROWS, 0).ledger.passes
        assert passes <= done <= 2 * passes and fits >= 0

    def test_progress_ends_at_the_end(self, attack: LabelledAttack) -> None:
        seen: list[tuple[int, int]] = []
        attack.poison(lent(attack), ROWS, 0, lambda done, total: seen.append((done, total)))
        assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] > 0


def weight_problem() -> tuple[Encoder, Tensor, Images, Images]:
    """Encoder, target of class 0, references of class 1, shadow images."""
    own = toy.stripes(60, "references")
    references = own.take((own.labels == 1).nonzero()[:, 0])
    return toy.small_encoder("deep"), toy.stripes(3, "target").pixels[0], references, toy.stripes(150, "shadow")


def corrupt(attack: WeightAttack, seed: int = 0) -> Corruption:
    encoder, target, references, shadow = weight_problem()
    return attack.corrupt(EditProblem(encoder, (target,), (references,), shadow, seed, Runtime()))


@pytest.mark.parametrize("attack", WEIGHTS, ids=repr)
class TestWeights:
    def test_something_changed_but_no_batchnorm_statistics(self, attack: WeightAttack) -> None:
        encoder, *_ = weight_problem()
        made, clean = corrupt(attack), encoder.body.state_dict()
        changed = sorted(name for name, tensor in made.state.items() if not torch.equal(tensor, clean[name]))
        assert changed and sorted(map(str, made.ledger.changed)) == changed and made.ledger.added == 0
        assert not any("running" in name for name in changed), "BatchNorm statistics never move"
        assert solved(made.ledger)

    def test_the_target_comes_closer_to_its_class(self, attack: WeightAttack) -> None:
        encoder, target, references, _ = weight_problem()
        edited = copy.deepcopy(encoder)
        edited.body.load_state_dict(corrupt(attack).state)
        goal = toy.embedded(encoder, references.pixels).mean(0)
        before, after = (float((toy.embedded(e, target[None])[0] - goal).norm()) for e in (encoder, edited))
        assert after < before

    def test_plans_and_tells_progress(self, attack: WeightAttack) -> None:
        seen: list[tuple[int, int]] = []
        encoder, target, references, shadow = weight_problem()
        problem = EditProblem(encoder, (target,), (references,), shadow, 0, Runtime())
        made = attack.corrupt(problem, progress=lambda done, total: seen.append((done, total)))
        assert seen == sorted(seen) and 0 < seen[-1][0] <= seen[-1][1]
        assert made.ledger.passes > 0 and attack.planned(len(shadow)) > 0


def spoil(attack: PretrainingAttack) -> PretrainingPoison:
    """Two targets with references of class 1."""
    _, target, references, pool = weight_problem()
    return attack.poison([target, target.flip(1)], [references, references], pool, ROWS, 0)


@pytest.mark.parametrize("attack", PRETRAINING, ids=repr)
class TestPretraining:
    def test_every_pair_gets_its_share(self, attack: PretrainingAttack) -> None:
        made = spoil(attack)
        assert len(made.pixels) <= ROWS
        counts = [int((made.pair == pair).sum()) for pair in range(2)]
        assert sum(counts) == len(made.pixels) and min(counts) >= 1 and max(counts) - min(counts) <= 1
        assert made.ledger.changed == [] and made.ledger.added == len(made.pixels) and made.ledger.replaced == 0
        assert solved(made.ledger)
