"""Filters as an adaptive attack knows them: scores, gradients, projections; and what such an attack then achieves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from foretaste import attacks
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise import soft_filter
from foretaste.attacks.optimise.carriers import FeatureCarrier
from foretaste.attacks.optimise.penalty import BARE, UNDER
from foretaste.attacks.optimise.requirements import clean_rows
from foretaste.attacks.optimise.soft_filter import LEFT, MOST, SOFTNESS, SoftFilter
from foretaste.attacks.optimise.stackelberg import Stackelberg
from foretaste.attacks.results import Poisoning
from foretaste.audits.adaptive import with_surrogate
from foretaste.audits.grid import configured
from foretaste.audits.spec import MethodSpec
from foretaste.defences import DEFENCES, configure
from foretaste.defences.base import Filter, TrainingRows
from foretaste.defences.surrogates import filter_surrogate, surrogates
from foretaste.defences.surrogates.nearest_rows import _precision
from foretaste.errors import SpecError
from foretaste.heads.fit import minimise
from foretaste.heads.objective import HeadObjective, Rows
from foretaste.heads.scaler import Scaler
from foretaste.record import TrialRecord
from foretaste.runtime import Runtime, stream
from tests.attacks import attacks_fixture as toy
from tests.audits.audit_fixture import audit, feature_audit
from tests.defences.fixture import blob, problem, rows

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {"k": 15} if name == "knn" else {}) for name in surrogates("filter")),
    ("spectral", {"centred": False}),
    ("label-quality", {"measure": "normalised-margin"}),
]
every = pytest.mark.parametrize(("name", "fields"), CASES)


def elsewhere(n: int = 8) -> tuple[Tensor, Tensor]:
    """Rows to score, some far away, under every label; float64."""
    z, y = blob(n, 3, 1.5)
    return torch.from_numpy(z).double() * 1.7, torch.from_numpy((y + np.arange(n) // 3) % 3)


@every
def test_the_gradient_is_that_of_finite_differences(name: str, fields: dict[str, Any]) -> None:
    found = filter_surrogate(configure(name, fields), problem(), 0.6)
    z, y = elsewhere()
    value, gradient = found.penalty(z, y)
    excess = [max(0.0, float(s) - found.threshold) for s in found.score(z, y)]
    assert value == pytest.approx(np.mean(excess)) and np.count_nonzero(excess) > 0
    m, d = z.shape
    steps = 1e-6 * torch.eye(d, dtype=torch.float64)  # every coordinate of every row, at once
    ends = [
        (found.score((z[:, None] + sign * steps).reshape(-1, d), y.repeat_interleave(d)) - found.threshold).clamp(min=0)
        for sign in (1, -1)
    ]
    naive = ((ends[0] - ends[1]) / 2e-6 / m).view(m, d)
    assert torch.allclose(gradient, naive, rtol=1e-4, atol=1e-6 * float(naive.abs().max()))
    assert not gradient[torch.tensor(excess) == 0].any()


@every
def test_clean_rows_score_as_under_the_filter(name: str, fields: dict[str, Any]) -> None:
    """Exactly where the filter has one formula for all rows; in order where votes or folds are replaced."""
    clean = problem()
    defence = configure(name, fields)
    found = filter_surrogate(defence, clean, 0.9)
    ours, theirs = found.score(clean.z.double(), clean.y), defence.score(clean)
    if name in ("knn", "label-quality"):
        assert spearmanr(ours, theirs).statistic > 0.8
    else:
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))
    assert (ours > found.threshold + 1e-5 * abs(found.threshold)).double().mean() <= 0.1


def test_soft_votes_reach_k_rows() -> None:
    distances = torch.from_numpy(np.random.default_rng(0).gamma(3, size=(20, 200)))
    p = torch.softmax(-_precision(distances, 12) * distances, 1)
    assert float(torch.exp(-(p * p.log()).sum(1)).mean()) == pytest.approx(12, rel=1e-6)


@pytest.mark.parametrize("name", ["sphere", "slab", "norm", "spectral"])
def test_projections_are_the_nearest_rows(name: str) -> None:
    """The condition of optimality: at the threshold, and the way there is along the score's gradient."""
    clean = rows(*blob(200, 0, 1.5, classes=2), classes=2)
    found = filter_surrogate(configure(name, {}), clean, 0.8)
    z, y = elsewhere(30)
    y = y % 2
    before, moved = found.score(z, y), found.project(z, y)
    over = before > found.threshold
    assert 3 < int(over.sum()) < 30 and torch.equal(moved[~over], z[~over])
    assert torch.allclose(found.score(moved, y)[over], torch.tensor(found.threshold).double(), rtol=1e-3)
    assert bool((found.score(moved, y) <= found.threshold).all())
    leaf = moved.clone().requires_grad_()
    (slope,) = torch.autograd.grad(found.score(leaf, y).sum(), leaf)
    along = torch.cosine_similarity((z - moved)[over], slope[over])
    assert torch.allclose(along, torch.ones_like(along))


def test_every_filter_has_a_stand_in_or_says_that_it_has_none() -> None:
    filters = {name for name, entry in DEFENCES.items() if entry.kind == "filter"}
    assert filters - set(surrogates("filter")) == {"activation", "isolation-forest"}
    for name in ("activation", "isolation-forest"):
        with pytest.raises(SpecError, match=f"differentiable stand-in, one of sphere, .*; got {name}, which has none"):
            configured(spec_of(f"exact:against={name}"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("exact:against=spere", "filter or certified: one of sphere, .*; got 'spere'"),
        ("exact:against=clp", "filter or certified: one of sphere"),
        ("exact:against=knn/k=0", "knn: fields k; got k = 0"),
        ("tgda:penalty=2", "penalty is a field of an attack against a filter"),
        ("exact:against=sphere:penalty=2", "exact has no penalty: it does harm with what the filter leaves"),
        ("label-flip:against=sphere", "label-flip: fields labels"),
    ],
)
def test_wrong_words(said: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        configured(spec_of(said))


def spec_of(said: str) -> Any:
    from foretaste.audits.spec import AuditSpec

    return AuditSpec.make({"features": "F.npz", "attacks": [said]})


def test_an_attack_is_read_back_and_plain_ones_keep_their_entry() -> None:
    attack = attacks.configure("tgda", {"against": "spectral/centred=false", "penalty": 2})
    assert attack.variant == "features, box, against spectral/centred=false, penalty 2.0"
    method = MethodSpec.parse(str(MethodSpec.of(attack)))
    assert attacks.configure(method.name, method.fields) == attack
    assert not {"against", "penalty", "against_quantile"} & set(attacks.configure("tgda", {}).entry())


def test_without_the_filter_in_its_knowledge_the_attack_says_so() -> None:
    with pytest.raises(SpecError, match="exact against sphere: that defence in what the attacker knows; got none"):
        attacks.configure("exact", {"against": "sphere"}).poison(toy.feature_knowledge(120), 5, 0)


SMALL: list[tuple[str, dict[str, Any]]] = [
    ("gradient-canceling", {"steps": 25, "head_radius": 0.5, "against": "label-quality", "labels": "random"}),
    ("feature-targeted", {"steps": 5, "against": "sphere", "target": "exact"}),
    ("tgda", {"steps": 5, "against": "spectral", "labels": "random", "rate": 0.3}),
]


@pytest.mark.parametrize(("name", "fields"), SMALL)
def test_the_poison_stays_under_the_threshold(name: str, fields: dict[str, Any]) -> None:
    known = toy.feature_knowledge(120)
    attack = attacks.configure(name, fields)
    given = with_surrogate(attack, known)
    seen: list[int] = []
    made = attack.poison(given, 12, 0, lambda done, total: seen.append(done))
    assert given.filter_surrogate is not None and made.z is not None and seen == sorted(seen)
    under = float((given.filter_surrogate.score(made.z, made.y) <= given.filter_surrogate.threshold).double().mean())
    figures = made.ledger.figures
    assert figures[UNDER] == pytest.approx(under, abs=0.1) and BARE in figures  # projected once more when handed over
    plain = attacks.configure(name, {k: v for k, v in fields.items() if k != "against"}).poison(known, 12, 0)
    assert plain.z is not None and UNDER not in plain.ledger.figures
    before = float((given.filter_surrogate.score(plain.z, plain.y) <= given.filter_surrogate.threshold).double().mean())
    assert under >= max(0.9, before) and before < 1


def left_by(defence: Filter, known: Knowledge, made: Poisoning) -> tuple[float, float]:
    """Share of the poison that a filter keeps, and the margin loss of the head on the rest, one row at a time."""
    assert made.z is not None
    z, y = torch.cat([known.z, made.z]), torch.cat([known.y, made.y])
    scores = defence.score(TrainingRows(z, y, known.classes, known.ridge, known.validation_z, known.validation_y))
    n = len(known.y)
    limit = np.quantile(scores[:n].numpy(), 0.95, method="inverted_cdf")
    kept = [row for row in range(len(y)) if row < n or scores[row] <= limit]
    scaler = Scaler.of([known.z])  # the attacker's units; the victim's own differ by the poison's part in them
    weight = minimise(HeadObjective((Rows(scaler.apply(z[kept]), y[kept]),), known.classes, known.ridge)).weight
    logits = scaler.apply(known.validation_z).double() @ weight[:, :-1].T + weight[:, -1]
    loss = 0.0
    for row, label in zip(logits, known.validation_y.tolist(), strict=True):
        rival = max(float(value) for c, value in enumerate(row) if c != label)
        loss += 1 / (1 + math.exp(float(row[label]) - rival)) / len(logits)
    return (len(kept) - n) / len(made.y), loss


@pytest.mark.parametrize("name", surrogates("filter"))
def test_exact_does_more_harm_with_what_the_filter_leaves(name: str) -> None:
    """Counted by the filter itself and a head fitted anew; the ledger says the same."""
    known, fields = toy.feature_knowledge(200), {"k": 15} if name == "knn" else {}
    said = f"{name}/k=15" if fields else name
    harm = []
    for against in (None, said):
        attack = attacks.configure("exact", {"steps": 30, "against": against})
        made = attack.poison(with_surrogate(attack, known), 30, 0)
        kept, loss = left_by(configure(name, fields, "filter"), known, made)
        harm.append(loss)
        if against is not None:
            figures = made.ledger.figures
            assert figures[UNDER] == pytest.approx(kept, abs=0.1)  # projected once more when handed over
            assert figures[LEFT] == pytest.approx(loss, rel=0.02)
    # The stand-in of knn counts clean neighbours alone, and here poison that crowds together vouches for itself.
    assert harm[1] > harm[0] + 0.005 or name == "knn"


def test_where_the_filter_drops_most_the_attack_starts_from_true_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes far apart, where a row with a wrong label is far above the threshold and no slope leads under it."""
    (z, y), (own_z, own_y) = (toy.gaussians(240, part, d=16, classes=3) for part in ("F", "V"))
    known = Knowledge(z, y, own_z, own_y, 3, toy.RIDGE, Runtime())
    attack = attacks.configure("exact", {"steps": 40, "against": "slab"})
    found = []
    for most in (1.0, MOST):  # 1: never again from true labels
        monkeypatch.setattr(soft_filter, "MOST", most)
        made = attack.poison(with_surrogate(attack, known), 24, 0)
        found.append((*left_by(configure("slab", {}, "filter"), known, made), bool((made.y == y[made.base]).all())))
    (kept, loss, true), (more, higher, now) = found
    assert kept < 0.1 and not true and more > 0.5 and now
    assert higher > loss * 1.1


def test_labels_move_where_they_may() -> None:
    known, moved = toy.feature_knowledge(120), []
    for labels in ("random", "chosen"):
        attack = attacks.configure("exact", {"steps": 10, "against": "influence", "labels": labels})
        moved.append(attack.poison(with_surrogate(attack, known), 12, 0).y)
    assert not torch.equal(*moved)


def test_the_same_arguments_give_the_same_bytes() -> None:
    attack = attacks.configure("exact", {"steps": 3, "against": "trimmed"})
    known = toy.feature_knowledge(120)
    first, again = (toy.fingerprint_of(attack.poison(with_surrogate(attack, known), 6, 0)) for _ in range(2))
    assert first == again


def test_pixels_are_moved_under_the_threshold_too() -> None:
    known = toy.pixel_knowledge(120)
    attack = attacks.configure("exact", {"steps": 6, "carrier": "pixels", "against": "norm"})
    made = attack.poison(with_surrogate(attack, known), 6, 0)
    assert made.pixels is not None and made.ledger.figures[UNDER] > 0.5


# Against a real defender: thresholds of the referee's, on the mixed rows.


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """Clean twin, plain exact, and exact against sphere, at 8 % of 500 rows."""
    folder = tmp_path_factory.mktemp("adaptive")
    for name, n in (("F", 500), ("V", 300), ("T", 600)):
        z, y = toy.gaussians(n, name, d=6, classes=3, distance=0.8)
        np.savez(folder / f"{name}.npz", z=z.numpy(), y=y.numpy())
    words = ["exact:constraint=none:steps=30", "exact:constraint=none:steps=30:against=sphere"]
    return audit(feature_audit(folder, attacks=words, budgets=[0.08], defences=["sphere"]), folder / "out").records


def test_sphere_sees_the_plain_attack_and_not_the_adaptive_one(trials: list[TrialRecord]) -> None:
    twin, plain, adaptive = trials
    assert [t.status for t in trials] == ["ok"] * 3 and "against sphere" in adaptive.variant
    assert adaptive.ledger is not None and adaptive.ledger.figures[UNDER] == 1
    assert "--attacks exact:constraint=none:against=sphere:steps=30" in adaptive.command
    clean = twin.defences["sphere"].alarms[1].scores.clean.value
    caught, cost = [], []
    for trial in (plain, adaptive):
        alarm = trial.defences["sphere"].alarms[1]
        assert alarm.poison is not None and alarm.scores.poisoned is not None
        caught.append(alarm.poison.value)
        cost.append(clean - alarm.scores.poisoned.value)
    assert caught[0] > 0.9 and caught[1] < 0.1
    assert cost[0] < 0.01 and cost[1] > 0.03, "what gets past the filter still does damage"


def test_the_gradient_of_what_is_left_is_that_of_finite_differences() -> None:
    """Through the head that is refitted to softly weighted rows; the stand-in of `sphere` stays as it is."""
    known = toy.feature_knowledge(120)
    attack = attacks.configure("exact", {"against": "sphere"})
    given = with_surrogate(attack, known)
    assert given.filter_surrogate is not None
    scaler = Scaler.of([known.z])
    own = Rows(scaler.apply(known.validation_z), known.validation_y)
    follower = Stackelberg(clean_rows(known, scaler), own, known.classes, known.ridge, "margin", 1e-9, 1e-9)
    x = scaler.apply(known.z[:6]) * 0.8
    y = (known.y[:6] + 1) % known.classes
    objective = SoftFilter(
        follower, given.filter_surrogate, scaler, FeatureCarrier(known.z[:6], scaler, attack.allowed(given))
    )
    found = objective.evaluate(x, y)
    assert found.gradient is not None
    weights = given.filter_surrogate.left(scaler.undo(x), y, SOFTNESS)[0]
    assert float(weights.min()) > 0.01 and float(weights.max()) < 0.99  # all of the gradient is there
    for number in range(6):
        way = torch.randn(x.shape, generator=stream(number, "way"))
        ends = [objective.evaluate(x + sign * 1e-2 * way, y, gradient=False).value for sign in (1, -1)]
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(float((found.gradient * way).sum()), rel=2e-2, abs=1e-5)
