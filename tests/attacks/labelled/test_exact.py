"""`exact` on features: it hurts a head that it has never seen, keeps its promises, and says what it did."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from foretaste.attacks.budget import poisoned_rows
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled import exact as module
from foretaste.attacks.labelled.exact import Exact
from foretaste.attacks.labelled.label_flip import LabelFlip
from foretaste.attacks.optimise.projected_ascent import Adam, Evaluation
from foretaste.attacks.optimise.requirements import clean_rows
from foretaste.attacks.optimise.stackelberg import Stackelberg
from foretaste.attacks.results import Poisoning
from foretaste.errors import AttackError, DataError, SpecError
from foretaste.heads.objective import Rows
from foretaste.heads.scaler import Scaler
from tests.attacks import attacks_fixture as toy

BUDGET = 0.05


@pytest.fixture(scope="module")
def known() -> Knowledge:
    return toy.feature_knowledge()


@pytest.fixture(scope="module")
def made(known: Knowledge) -> Poisoning:
    return Exact().poison(known, poisoned_rows(BUDGET, len(known.y)), 0)


def accuracy(known: Knowledge, z: Tensor | None = None, y: Tensor | None = None) -> float:
    return toy.judge(known, z, y, toy.gaussians(4000, "test"))


def random_in_box(known: Knowledge, m: int, seed: int) -> tuple[Tensor, Tensor]:
    low, high = known.z.amin(0), known.z.amax(0)
    draws = toy.stream(seed, "random")
    z = low + (high - low) * torch.rand(m, len(low), generator=draws)
    return z, torch.randint(known.classes, (m,), generator=draws)


def test_scikit_learn_loses_more_than_to_flips_and_to_random_rows(known: Knowledge, made: Poisoning) -> None:
    assert made.z is not None
    m = len(made.y)
    clean, harmed = accuracy(known), accuracy(known, made.z, made.y)
    flips = [LabelFlip().poison(known, m, seed) for seed in range(3)]
    others = [accuracy(known, flip.z, flip.y) for flip in flips]
    others += [accuracy(known, *random_in_box(known, m, seed)) for seed in range(3)]
    assert clean > 0.7
    assert harmed < clean - 0.05
    assert harmed < min(others) - 0.03


def test_the_weaker_the_constraint_the_more_harm(known: Knowledge, made: Poisoning) -> None:
    harmed = {"box": accuracy(known, made.z, made.y)}
    for constraint in ("none", "ball"):
        poison = Exact(constraint=constraint).poison(known, len(made.y), 0)
        harmed[constraint] = accuracy(known, poison.z, poison.y)
    assert harmed["none"] < harmed["box"] < harmed["ball"] <= accuracy(known) + 0.01


def test_a_larger_budget_does_more(known: Knowledge, made: Poisoning) -> None:
    more = Exact().poison(known, 3 * len(made.y), 0)
    assert accuracy(known, more.z, more.y) < accuracy(known, made.z, made.y) - 0.03


def test_rows_stay_in_the_box_and_carry_wrong_labels(known: Knowledge, made: Poisoning) -> None:
    assert made.z is not None and made.pixels is None
    assert made.z.shape == (20, 8) and made.z.dtype == torch.float32 and made.y.dtype == torch.int64
    assert bool(((made.z >= known.z.amin(0)) & (made.z <= known.z.amax(0))).all())
    assert len(set(made.base.tolist())) == 20 and int(made.base.min()) >= 0 and int(made.base.max()) < len(known.y)
    assert not bool((made.y == known.y[made.base]).any())
    assert made.constraint == "box" and made.limits == {}


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_rows_stay_in_the_ball_of_their_label(known: Knowledge, quantile: float) -> None:
    made = Exact(constraint="ball", quantile=quantile, steps=10).poison(known, 20, 0)
    assert made.z is not None and made.limits == {"quantile": quantile}
    for row, label in zip(made.z.double(), made.y, strict=True):
        rows = known.z[known.y == label].double()
        centre = rows.mean(0)
        assert float((row - centre).norm()) <= float((rows - centre).norm(dim=1).quantile(quantile))


def objective_of(known: Knowledge, made: Poisoning) -> float:
    """The leader's loss after the delivered rows, by Newton's method."""
    assert made.z is not None
    mean, scale = known.z.double().mean(0), known.z.double().std(0, unbiased=False)
    rows = (torch.cat([known.z, made.z]).double() - mean) / scale
    head = toy.naive_head(rows, torch.cat([known.y, made.y]), known.classes)
    own = (known.validation_z.double() - mean) / scale
    return float(toy.naive_leader("margin", head, own, known.validation_y))


def test_ledger_tells_the_objective_of_what_is_delivered(known: Knowledge, made: Poisoning) -> None:
    ledger = made.ledger
    assert max(ledger.objective) == pytest.approx(objective_of(known, made), rel=1e-3)
    assert len(ledger.objective) == 61 and max(ledger.objective) > ledger.objective[0] + 0.03
    assert ledger.better == "higher" and "margin" in ledger.objective_name
    assert ledger.added == 20 and ledger.changed == sorted(made.base.tolist()) and ledger.passes == 0
    assert 0 < ledger.residuals["fit"] <= 1e-4 and 0 < ledger.residuals["solve"] <= 1e-3


def test_the_best_step_is_delivered_not_the_last(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    step, taken = Adam.step, list[None]()

    def turn_round(self: Adam, rows: Tensor | None = None) -> None:
        self.rate = 0.3 if len(taken) < 4 else -0.3
        taken.append(None)
        step(self, rows)

    monkeypatch.setattr(Adam, "step", turn_round)
    made = Exact(steps=10).poison(known, 12, 0)
    curve = made.ledger.objective
    assert curve[-1] < max(curve) - 0.01
    assert objective_of(known, made) == pytest.approx(max(curve), rel=1e-3)


def test_the_ascent_rises_almost_everywhere(made: Poisoning) -> None:
    curve = made.ledger.objective
    falls = [max(before - after, 0.0) for before, after in pairwise(curve)]
    assert sum(falls) < 0.1 * (max(curve) - curve[0])


def test_seed_decides_the_bytes_and_nothing_lent_moves(known: Knowledge) -> None:
    before = toy.fingerprint(known)
    attack = Exact(steps=5)
    same = {toy.fingerprint_of(attack.poison(known, 12, 3)) for _ in range(2)}
    torch.rand(3)  # the global stream has no say
    same.add(toy.fingerprint_of(attack.poison(known, 12, 3)))
    assert len(same) == 1
    assert toy.fingerprint_of(attack.poison(known, 12, 4)) not in same
    assert toy.fingerprint(known) == before


@pytest.mark.parametrize("leader", ["margin", "cross-entropy"])
def test_chosen_labels_are_no_worse(known: Knowledge, leader: str) -> None:
    random, chosen = (Exact(leader=leader, labels=labels).poison(known, 12, 0) for labels in ("random", "chosen"))
    assert max(chosen.ledger.objective) > max(random.ledger.objective) - 0.005
    assert not torch.equal(random.y, chosen.y)
    assert int(chosen.y.min()) >= 0 and int(chosen.y.max()) < known.classes
    assert leader in chosen.ledger.objective_name


def test_more_rows_than_the_victim_has(known: Knowledge) -> None:
    few = replace(known, z=known.z[:24], y=known.y[:24])
    made = Exact(steps=3).poison(few, 60, 0)
    assert len(made.y) == 60 and made.ledger.added == 60 and made.ledger.changed == list(range(24))


def test_constant_feature_stays_constant_in_the_box(known: Knowledge) -> None:
    z, own = known.z.clone(), known.validation_z.clone()
    z[:, 2] = own[:, 2] = 7.25
    made = Exact(steps=5).poison(replace(known, z=z, validation_z=own), 12, 0)
    assert made.z is not None and bool((made.z[:, 2] == 7.25).all())


def test_progress_counts_the_steps(known: Knowledge) -> None:
    seen: list[tuple[int, int]] = []
    Exact(steps=3).poison(known, 4, 0, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_diverging_is_an_attack_error(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttackError, match=r"finite objective.*at step \d+; lower --rate"):
        Exact(constraint="none", rate=1e25).poison(known, 12, 0)
    broken = Evaluation(0.5, torch.full((12, 8), torch.nan))
    monkeypatch.setattr(module.Stackelberg, "evaluate", lambda *_, **__: broken)
    with pytest.raises(AttackError, match=r"0\.5 at step 0"):
        Exact().poison(known, 12, 0)


@pytest.mark.parametrize("rate", [1e4, 1e8])
def test_rates_beyond_arithmetic_are_told(known: Knowledge, rate: float) -> None:
    """Rows so far away that the head cannot be solved: an error, or a ledger that says so."""
    try:
        made = Exact(constraint="none", rate=rate, steps=5).poison(known, 12, 0)
    except AttackError as error:
        assert "lower --rate" in str(error)
    else:
        assert max(made.ledger.residuals.values()) > 1e-3


def test_rows_that_no_attack_can_work_with(known: Knowledge) -> None:
    keep = known.y != 1
    with pytest.raises(DataError, match="of the 4 classes; got none of class 1"):
        Exact().poison(replace(known, z=known.z[keep], y=known.y[keep]), 4, 0)
    with pytest.raises(DataError, match="zero variance in all"):
        Exact().poison(replace(known, z=torch.ones_like(known.z)), 4, 0)


def test_an_objective_that_never_improves_is_told_with_its_curve(known: Knowledge) -> None:
    with pytest.raises(AttackError, match="nothing better in 3 steps") as caught:
        Exact(rate=1e-12, steps=3, leader="cross-entropy").poison(known, 4, 0)
    assert len(caught.value.curve) == 4


def test_few_rows_that_stand_for_many_are_weighted(known: Knowledge) -> None:
    """Each of the victim's rows twice is the attacker's rows once with double weight."""
    twice = replace(known, z=known.z.repeat(2, 1), y=known.y.repeat(2))
    stand_in = replace(known, victim_rows=2 * len(known.y))
    found = [ascent_curve(toy_known) for toy_known in (twice, stand_in, known)]
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert abs(found[0] - found[2]) > 10 * abs(found[0] - found[1])


def ascent_curve(known: Knowledge) -> float:
    """The objective at the start, with the same poison whatever the rows."""
    scaler = Scaler.of([known.z])
    own = Rows(scaler.apply(known.validation_z), known.validation_y)
    objective = Stackelberg(clean_rows(known, scaler), own, known.classes, known.ridge)
    x = torch.full((12, 8), 2.0)
    return objective.evaluate(x, torch.arange(12) % 4, gradient=False).value


def test_pixels_need_images_and_an_encoder(known: Knowledge) -> None:
    with pytest.raises(SpecError, match="carrier pixels: images and an encoder; got features from a file"):
        Exact(carrier="pixels").poison(known, 4, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epsilom": 8}, r"fields carrier, constraint, .*epsilom"),
        ({"epsilon": 8}, "epsilon is a constraint of carrier pixels"),
        ({"carrier": "pixels", "constraint": "ball"}, r"inside the box \[0, 1\]"),
        ({"carrier": "pixels", "epsilon": 0.5}, "epsilon = 0.5"),
        ({"quantile": 0}, "quantile = 0"),
        ({"steps": 0}, "steps = 0"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"labels": "any"}, "labels = 'any'"),
    ],
)
def test_wrong_fields_are_spec_errors(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Exact.configure(**fields)


def test_variants_tell_uses_apart() -> None:
    assert Exact().variant == "features, box"
    assert Exact(constraint="ball", quantile=0.5).variant == "features, ball, quantile 0.5"
    assert Exact(carrier="pixels").variant == "pixels, [0, 1]"
    assert Exact(carrier="pixels", epsilon=8, labels="chosen").variant == "pixels, 8/255, labels chosen"


def test_objective_has_no_state_between_attacks(known: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Stackelberg] = []
    original = Stackelberg.__init__
    monkeypatch.setattr(Stackelberg, "__init__", lambda self, *a, **k: (made.append(self), original(self, *a, **k))[1])
    for _ in range(2):
        Exact(steps=1).poison(known, 4, 0)
    assert len(made) == 2 and made[0] is not made[1]
