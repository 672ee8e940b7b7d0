"""Certified heads as an adaptive attack knows them: gradients, places, and what such an attack then achieves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste import attacks
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.exact import Exact
from foretaste.audits.adaptive import named_defence, with_surrogate
from foretaste.audits.cost import estimate_seconds
from foretaste.audits.grid import configured, plan
from foretaste.audits.prepare import prepare
from foretaste.audits.spec import AuditSpec
from foretaste.defences import configure
from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.base import CertifiedHead
from foretaste.defences.certified.dpa import hash_rows
from foretaste.defences.surrogates import surrogates, vote_surrogate
from foretaste.defences.surrogates.votes import AttackerRows, VoteSurrogate
from foretaste.errors import SpecError
from foretaste.heads.fit import fit_head
from foretaste.record import TrialRecord
from foretaste.report.defended import AIMED, aims_at, everything
from foretaste.report.recommend import recommendation
from foretaste.report.summary import summarise
from foretaste.report.tables.accuracy import matrix
from foretaste.report.tables.certified import steps
from foretaste.runtime import stream
from tests.attacks import attacks_fixture as toy
from tests.audits.audit_fixture import audit, feature_audit

CASES: list[tuple[str, dict[str, Any]]] = [
    ("dpa", {"partitions": 9}),
    ("dpa", {"partitions": 60}),  # two rows each, some none
    ("dpa", {"partitions": 9, "head": "ridge", "unit_length": True}),
    ("dpa", {"partitions": 9, "head": "prototype", "standardise": "clean"}),
    ("dpa", {"partitions": 9, "head": "exact", "standardise": "none"}),
    ("bagging", {"learners": 40, "bag": 6}),
    ("bagging", {"learners": 40, "bag": 20, "head": "ridge"}),
]
M = 4


def made(name: str, fields: dict[str, Any], m: int = M, n: int = 120) -> tuple[Any, CertifiedHead, Knowledge]:
    known, head = toy.feature_knowledge(n), configure(name, fields, "certified")
    rows = TrainingRows(known.z, known.y, known.classes, known.ridge, known.validation_z, known.validation_y)
    return vote_surrogate(head, AttackerRows(rows, known.validation_z, known.validation_y, m)), head, known


@pytest.mark.parametrize(("name", "fields"), CASES)
def test_the_gradient_is_that_of_finite_differences(
    name: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.defences.surrogates.learners.FIT", 1e-11)
    monkeypatch.setattr("foretaste.defences.surrogates.learners.SOLVE", 1e-22)
    vote, _, known = made(name, fields)
    z, y = known.z[7 : 7 + M].double() * 1.3, torch.tensor([0, 1, 1, 3])
    value, gradient = vote.damage(z, y)
    assert 0 < value < 1
    assert vote.damage(z, y, gradient=False) == (pytest.approx(value), None)
    for direction in torch.eye(M, dtype=torch.float64)[:, :, None] * torch.randn(z.shape, generator=stream(0, "to")):
        ends = [vote.damage(z + sign * 1e-4 * direction, y, gradient=False)[0] for sign in (1, -1)]
        naive, found = (ends[0] - ends[1]) / 2e-4, float((gradient * direction).sum())
        assert found == pytest.approx(naive, rel=1e-3, abs=1e-4 * float(gradient.norm())) and gradient.any()


def test_damage_is_that_of_heads_fitted_one_by_one() -> None:
    """Votes so sharp that they are hard: a head per partition by `fit_head`, poison in its place."""
    vote, _, known = made("dpa", {"partitions": 9})
    vote._sharpness = 1e6
    z, y = known.z[:M] + 0.5, torch.tensor([2, 2, 0, 1])
    place = torch.cat([hash_rows(known.z).remainder(9), vote.places])
    votes = np.zeros((len(known.validation_y), 4))
    for p in range(9):
        own = place == p
        head = fit_head(torch.cat([known.z, z])[own], torch.cat([known.y, y])[own], 4, 5e-2)
        votes[np.arange(len(votes)), head.predict(known.validation_z)] += 1
    truth = known.validation_y.numpy()
    errors = []
    for row, c in zip(votes, truth, strict=True):
        margin = max(row[o] for o in range(4) if o != c) - row[c]
        errors.append(1 / (1 + np.exp(-margin / (M / 3))))
    assert vote.damage(z, y, gradient=False)[0] == pytest.approx(np.mean(errors), abs=1e-4)


def test_rows_fall_into_partitions_of_their_own() -> None:
    vote, _, known = made("dpa", {"partitions": 50}, m=30)
    z, y = known.z[:30], (known.y[:30] + 1) % 4
    moved = vote.settled(z, y)
    places = hash_rows(moved).remainder(50)
    assert torch.equal(places, vote.places) and len(places.unique()) == 30
    assert moved.dtype == torch.float32 and float((moved - z).abs().max()) < 1e-2
    assert int((moved != z).sum(1).max()) == 1, "one feature each"
    assert bool(((moved >= known.z.amin(0)) & (moved <= known.z.amax(0))).all())
    assert torch.equal(vote.settled(moved, y), moved)


def test_more_rows_than_partitions_go_round() -> None:
    vote, _, _ = made("dpa", {"partitions": 10}, m=25)
    assert torch.bincount(vote.places, minlength=10).tolist() in [[3 if p in vote.places[:5] else 2 for p in range(10)]]


def test_the_partitions_hit_are_those_whose_loss_hurts_most() -> None:
    """Worth by naive removal: the smooth errors without one partition's votes, less those with them."""
    vote, _, known = made("dpa", {"partitions": 12}, m=12)
    place = hash_rows(known.z).remainder(12)
    guesses = [
        fit_head(known.z[place == p], known.y[place == p], 4, 5e-2).predict(known.validation_z) for p in range(12)
    ]
    votes = torch.stack([torch.nn.functional.one_hot(one, 4) for one in guesses], 1).double()  # [k, P, C]

    def errors(counts: Tensor) -> float:
        right = counts[torch.arange(len(counts)), known.validation_y]
        others = counts.clone()
        others[torch.arange(len(counts)), known.validation_y] = -1
        return float(torch.sigmoid((others.amax(1) - right) / 4).mean())

    naive = torch.tensor([errors(votes.sum(1) - votes[:, p]) - errors(votes.sum(1)) for p in range(12)])
    order = naive.argsort(descending=True)
    assert set(vote.places[:4].tolist()) <= set(order[:6].tolist()) and int(vote.places[-1]) in order[-4:]


def test_bags_hold_poison_as_often_as_the_defenders() -> None:
    vote, _, _ = made("bagging", {"learners": 1000, "bag": 10}, m=12)
    share = len(vote._groups.sizes) / 200
    assert share == pytest.approx(1 - (120 / 132) ** 10, abs=0.1)


@pytest.mark.parametrize("name", surrogates("certified"))
def test_attackers_with_fewer_rows_reckon_with_the_victims_number(name: str) -> None:
    fields = {"partitions": 40} if name == "dpa" else {"learners": 50, "bag": 10}
    known = toy.feature_knowledge(60)
    rows = TrainingRows(known.z, known.y, 4)
    vote = vote_surrogate(
        configure(name, fields), AttackerRows(rows, known.validation_z, known.validation_y, 6, victim_rows=200)
    )
    if name == "dpa":
        assert sorted(set(vote._groups.sizes.tolist())) == [6], "200 / 40 rows and a poison"
    value, gradient = vote.damage(known.z[:6], known.y[:6])
    assert 0 < value < 1 and bool(gradient.any())


# As an attack.


def attack_and(said: str, m: int, n: int = 400, steps: int = 15) -> tuple[Any, Any, Knowledge]:
    known = toy.feature_knowledge(n)
    attack = attacks.configure("exact", {"against": said, "steps": steps})
    return attack.poison(with_surrogate(attack, known, m), m, 0), attack, known


def test_the_same_arguments_give_the_same_bytes_and_inside_the_box() -> None:
    first, _, known = attack_and("dpa/partitions=20", 8, 120, 3)
    again, _, _ = attack_and("dpa/partitions=20", 8, 120, 3)
    assert toy.fingerprint_of(first) == toy.fingerprint_of(again)
    assert bool(((first.z >= known.z.amin(0)) & (first.z <= known.z.amax(0))).all())
    assert len(first.y.unique()) == 1 and "dpa/partitions=20 gets wrong" in first.ledger.objective_name
    assert len(hash_rows(first.z).remainder(20).unique()) == 8


@pytest.mark.parametrize(("said", "m"), [("dpa/partitions=40", 12), ("bagging/learners=100/bag=8", 60)])
def test_it_hurts_the_vote_more_than_the_plain_attack_and_never_more_than_is_proven(said: str, m: int) -> None:
    made_, _, known = attack_and(said, m)
    plain = attacks.configure("exact", {"steps": 15}).poison(known, m, 0)
    name, *fields = said.split("/")
    head = configure(name, {k: int(v) for k, v in (field.split("=") for field in fields)}, "certified")
    tz, ty = toy.gaussians(1000, "test")

    def fitted(z: Tensor, y: Tensor) -> Any:
        rows = TrainingRows(torch.cat([known.z, z]), torch.cat([known.y, y]), 4)
        return head.fit(rows).certify(tz)

    clean = fitted(known.z[:0], known.y[:0])
    accuracy = [float((fitted(p.z, p.y).predictions == ty).double().mean()) for p in (plain, made_)]
    before = float((clean.predictions == ty).double().mean())
    proven = float(clean.at(ty, head.changes(m, 0, 0)).double().mean())
    assert proven <= accuracy[1] < accuracy[0] - 0.02 and accuracy[1] < before - 0.04, (before, accuracy, proven)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("exact:against=dpaa", "filter or certified: one of sphere, .*dpa.*; got 'dpaa'"),
        ("exact:against=dpa/partitions=0", "dpa: fields .*; got partitions = 0"),
        ("exact:against=dpa", "exact against dpa: a number of partitions; got none, nor a defence"),
        ("tgda:against=dpa/partitions=9", "tgda against dpa/partitions=9: an attack with a form .*; got tgda"),
        ("exact:carrier=pixels:against=bagging", "exact against bagging: carrier features; got pixels"),
        ("exact:labels=chosen:against=bagging", "exact against bagging: fields that it reads; got labels"),
    ],
)
def test_wrong_words(said: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        configured(AuditSpec.make({"features": "F.npz", "attacks": [said]}))


def test_without_the_head_in_its_knowledge_the_attack_says_so() -> None:
    with pytest.raises(SpecError, match="exact against bagging: that defence in what the attacker knows; got none"):
        attacks.configure("exact", {"against": "bagging"}).poison(toy.feature_knowledge(120), 5, 0)


def test_open_partitions_are_those_of_the_audits_defence_of_that_name() -> None:
    attack, known = attacks.configure("exact", {"against": "dpa/head=ridge"}), toy.feature_knowledge(120)
    chosen = {
        "dpa": configure("dpa", {"partitions": 10}),
        "dpa:head=ridge": configure("dpa", {"partitions": 25, "head": "ridge"}),
        "dpa:head=ridge:partitions=50": configure("dpa", {"partitions": 50, "head": "ridge"}),
    }
    vote: Any = with_surrogate(attack, known, 6, 0, chosen).vote_surrogate
    assert vote.head == chosen["dpa:head=ridge"]
    with pytest.raises(SpecError, match="number of partitions"):
        named_defence(attack, ["dpa", "dpa:partitions=50:head=ridge"])
    assert replace(known) is not known  # what the attacker knows is a value


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """Clean twin, plain exact, exact against dpa as the audit resolves it, at 6 % of 300 rows."""
    folder = tmp_path_factory.mktemp("votes")
    for name, n in (("F", 300), ("V", 300), ("T", 400)):
        z, y = toy.gaussians(n, name, d=6, classes=3, distance=0.8)
        np.savez(folder / f"{name}.npz", z=z.numpy(), y=y.numpy())
    words = ["exact:steps=20", "exact:steps=20:against=dpa"]
    return audit(feature_audit(folder, attacks=words, budgets=[0.06], defences=["dpa"]), folder / "out").records


def test_an_audit_meets_the_chosen_count_and_the_report_marks_the_attack(records: list[TrialRecord]) -> None:
    assert [trial.status for trial in records] == ["ok"] * 3, [trial.error for trial in records]
    _, plain, adaptive = records
    assert all(check.ok for trial in records for check in trial.referee)
    accuracies = [trial.certified["dpa"].scores.poisoned for trial in (plain, adaptive)]
    assert accuracies[0] is not None and accuracies[1] is not None and accuracies[1].value < accuracies[0].value
    assert "--attacks exact:against=dpa:steps=20" in adaptive.command
    summary = summarise(records)
    column = everything(summary).columns[0]
    assert [aims_at(row, column.key) for row in summary.rows] == [False, True]
    shown = matrix(summary)
    assert shown is not None
    assert [AIMED in line.cells[-1] for line in shown.lines][:3] == [False, False, True]
    (step,) = [step for step in steps(summary, "dpa") if step.share == 0.06]
    assert step.voted is not None and step.voted.accuracy == accuracies[1] and "against dpa" in step.voted.attack
    said = " ".join(sentence.claim for sentence in recommendation(summary))
    assert "No filter here sees" not in said


def test_the_estimate_counts_what_the_attack_looks_at(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the vote with a gradient, those without for half; a second seed costs no second look beforehand."""
    spec = feature_audit(
        world, attacks=["exact:steps=3:against=dpa/partitions=9"], defences=["dpa:partitions=9"], seeds=2
    )
    prepared, looks = prepare(spec), list[float]()
    damage = VoteSurrogate.damage

    def watched(self: Any, z: Tensor, y: Tensor, *, gradient: bool = True) -> Any:
        looks.append(1 if gradient else 0.5)
        return damage(self, z, y, gradient=gradient)

    monkeypatch.setattr(VoteSurrogate, "damage", watched)
    trials = plan(prepared)
    assert estimate_seconds(prepared, trials) > 0 and looks == [1]
    attack = trials[1].attack
    assert isinstance(attack, Exact)
    looks.clear()
    attack.poison(
        with_surrogate(attack, prepared.view.lend(prepared.setting), 9, 0, prepared.defender.certified.defences), 9, 0
    )
    assert sum(looks) == attack.planned_votes(prepared.setting.classes)
