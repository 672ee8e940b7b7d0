"""Certified heads: base learners against the head fitted alone, certificates against every attack of a small family."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste import defences
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.weights.pacl import PACL
from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.bagging import Bagging
from foretaste.defences.certified.base import CertifiedHead
from foretaste.defences.certified.dpa import DPA, hash_rows, partition, plurality, run_off
from foretaste.defences.certified.subsample_heads import Learner
from foretaste.encoders.base import Encoder
from foretaste.errors import DataError, SpecError
from foretaste.features.embed import embed
from foretaste.runtime import Runtime
from foretaste.testing import check_certified_head
from tests.attacks.weights_fixture import OWN, SHADOW, WANTED, encoder_of, loaded, tinted
from tests.defences import fixture as toy

HEADS: tuple[Learner, ...] = ("exact", "ridge", "prototype")


def lent(n: int, seed: int = 0, distance: float = 1.5) -> TrainingRows:
    return toy.rows(*toy.blob(n, seed, distance), clean=toy.blob(60, 7, distance))


# Partitions.


def test_partition_does_not_depend_on_the_order_of_the_rows_or_on_labels() -> None:
    rows = lent(200)
    order = torch.from_numpy(np.random.default_rng(1).permutation(200))
    first, second = partition(rows.z, rows.y, 16), partition(rows.z[order], rows.y[order], 16)
    assert torch.equal(first.sizes, second.sizes) and torch.equal(first.rows, order[second.rows])
    assert torch.equal(partition(rows.z, (rows.y + 1) % 3, 16).rows, first.rows), "no two rows are equal here"
    assert torch.equal(hash_rows(rows.z[:5]), hash_rows(rows.z)[:5]) and torch.equal(
        hash_rows(-0.0 * rows.z), hash_rows(0 * rows.z)
    )


def test_hashes_spread_rows_evenly_and_tell_close_rows_apart() -> None:
    z = torch.zeros(4096, 2)
    z[:, 0] = 1 + torch.arange(4096) * 2**-20
    hashed = hash_rows(z)
    assert len(hashed.unique()) == 4096 and int(hashed.min()) >= 0
    counts = torch.bincount(hashed % 16, minlength=16).double()
    assert float(((counts - 256) ** 2 / 256).sum()) < 37.7  # chi-square, 15 degrees of freedom, 0.1 %


# The certificate of DPA.


def naive_radius(votes: list[int]) -> tuple[int, int]:
    """Winner and the most single votes that may move between classes, by trying every way to move them."""

    def winner(counts: tuple[int, ...]) -> int:
        return max(range(len(counts)), key=lambda c: (counts[c], -c))

    first, seen = winner(tuple(votes)), {tuple(votes)}
    for radius in itertools.count():
        moved = set()
        for counts in seen:
            for a, b in itertools.permutations(range(len(counts)), 2):
                if counts[a]:
                    moved.add(tuple(n - (c == a) + (c == b) for c, n in enumerate(counts)))
        seen |= moved
        if any(winner(counts) != first for counts in seen):
            return first, radius
    raise AssertionError


def test_plurality_radius_is_the_most_votes_that_may_move() -> None:
    for votes in itertools.product(range(5), repeat=3):
        if sum(votes):
            first, radius = naive_radius(list(votes))
            found = plurality(torch.tensor([votes]))
            assert (int(found.predictions), int(found.radii)) == (first, radius), votes


def test_heads_that_know_neither_class_stay_out_of_the_second_round() -> None:
    """Five vote for class 2, four for class 1, one for class 0; of the one, only its order of 1 and 2 would count."""
    ballots = [[0, 1, 2]] * 5 + [[0, 2, 1]] * 4 + [[2, 1, 1 + 1e-9]]
    found = run_off(torch.tensor([ballots], dtype=torch.float64))
    assert int(found.predictions) == 2 and int(found.radii) == 0, "5 to 4, and a tie is the smaller class's"
    found = run_off(torch.tensor([ballots[1:]], dtype=torch.float64))
    assert int(found.predictions) == 1, "4 to 4"


def naive_run_off(ballots: tuple[tuple[int, ...], ...]) -> int:
    """The winner, by the rules: each ballot ranks the classes."""
    classes = range(len(ballots[0]))
    votes = [sum(ballot[0] == c for ballot in ballots) for c in classes]
    a, b = sorted(sorted(classes, key=lambda c: (-votes[c], c))[:2])
    return a if 2 * sum(ballot.index(a) < ballot.index(b) for ballot in ballots) >= len(ballots) else b


@pytest.mark.parametrize(("classes", "voters"), [(2, 5), (3, 5), (3, 6), (4, 6)])
def test_run_off_radius_withstands_every_change_of_ballots(classes: int, voters: int) -> None:
    """All ways to change up to two ballots to any ranking; where the radius is 0, most often one change does flip."""
    random = np.random.default_rng(voters)
    rankings = list(itertools.permutations(range(classes)))
    tight = covered = 0
    for _ in range(40 if classes < 4 else 8):
        favour = random.dirichlet(np.full(len(rankings), 0.25))
        ballots = tuple(rankings[i] for i in random.choice(len(rankings), voters, p=favour))
        scores = torch.tensor([[[-ballot.index(c) for c in range(classes)] for ballot in ballots]]).double()
        found = run_off(scores)
        winner, radius = int(found.predictions), int(found.radii)
        assert winner == naive_run_off(ballots) and radius >= 0
        flips = dict.fromkeys((1, 2), False)
        for size in (1, 2):
            for places in itertools.combinations(range(voters), size):
                for new in itertools.product(rankings, repeat=size):
                    changed = list(ballots)
                    for place, ballot in zip(places, new, strict=True):
                        changed[place] = ballot
                    flips[size] |= naive_run_off(tuple(changed)) != winner
            assert not (flips[size] and radius >= size), (ballots, radius, size)
        tight += radius < 2 and flips[radius + 1]
        covered += radius < 2
    assert tight >= 0.8 * covered > 0


@pytest.mark.parametrize("election", ["plurality", "run-off"])
@pytest.mark.parametrize("head", HEADS)
def test_no_set_of_rows_up_to_the_radius_flips_a_prediction(head: Learner, election: Any) -> None:
    """Every way to take away, relabel or add up to two rows of a small family; beyond the radius some way flips."""
    rows, test = lent(14, distance=4.0), lent(12, 5, 4.0)
    defence = DPA(partitions=5, head=head, ridge=0.1, election=election)
    before = defence.fit(rows).certify(test.z)
    moves: list[tuple[str, int, int]] = [("take", i, 0) for i in range(14)]
    moves += [("label", i, int(rows.y[i] + s) % 3) for i in range(14) for s in (1, 2)]
    moves += [("add", i, c) for i in range(0, 12, 2) for c in range(3)]
    flips, tightest = 0, torch.full((12,), 99)
    for size in (1, 2):
        family = list(itertools.combinations(moves, size))
        for some in family[:: 1 if size == 1 else 14]:  # a share of the pairs
            z, y, kept = [*rows.z], [*rows.y.tolist()], set(range(14))
            for kind, i, label in some:
                if kind == "take":
                    kept.discard(i)
                elif kind == "label":
                    y[i] = label
                else:
                    z.append(20 * test.z[i])
                    y.append(label)
            places = [i for i in range(len(z)) if i in kept or i >= 14]
            poisoned = TrainingRows(torch.stack([z[i] for i in places]), torch.tensor([y[i] for i in places]), 3)
            after = defence.fit(poisoned).certify(test.z)
            moved = after.predictions != before.predictions
            assert not bool((moved & (before.radii >= size)).any()), some
            flips += int(moved.sum())
            tightest[moved] = tightest[moved].clamp(max=size)
    assert flips, "the family can flip something"
    assert bool((tightest == before.radii + 1).any()), "one change more than the radius does flip some row"


def test_one_change_more_than_the_radius_flips_a_planted_vote() -> None:
    """Partitions of a single class each vote for it: 5 to 2, so one relabelled partition is covered and two are not."""
    z = torch.arange(1.0, 400.0)[:, None].repeat(1, 2)
    groups = partition(z, torch.zeros(len(z), dtype=torch.int64), 7)
    owner = torch.empty(len(z), dtype=torch.int64)
    owner[groups.rows] = torch.arange(7).repeat_interleave(groups.sizes)
    row = torch.stack([(owner == p).nonzero()[0, 0] for p in range(7)])  # one row in each partition
    y = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    defence = DPA(partitions=7, head="prototype", shrinkage=0)
    found = defence.fit(TrainingRows(z[row], y, 2)).certify(z[:3])
    assert found.predictions.tolist() == [0] * 3 and found.radii.tolist() == [1] * 3
    for labels, winner in (([1, 0, 0, 0, 0, 1, 1], 0), ([1, 1, 0, 0, 0, 1, 1], 1)):
        after = defence.fit(TrainingRows(z[row], torch.tensor(labels), 2)).certify(z[:3])
        assert after.predictions.tolist() == [winner] * 3


def test_changes_count_touched_partitions() -> None:
    assert DPA(partitions=3).changes(5, 2, 4) == 5 + 2 + 8
    assert Bagging().changes(5, 2, 4) == 11


def test_chosen_partitions_certify_most() -> None:
    rows, other = lent(400), lent(120, 9)
    for added in (1, 20):
        chosen = DPA(head="ridge").chosen(rows, other.z, other.y, (added,))
        scores = {
            count: float(
                DPA(head="ridge", partitions=count).fit(rows).certify(other.z).at(other.y, added).double().mean()
            )
            for count in (10, 25, 50, 100)
        }
        assert chosen.partitions is not None and scores[chosen.partitions] == max(scores.values()) > 0
    with pytest.raises(SpecError, match="dpa: a number of partitions; got none; pass partitions=250"):
        DPA().fit(rows)


# What no certificate covers.


def test_an_edited_encoder_goes_through_a_certified_head() -> None:
    """PA-CL moves all base learners at once: the target flips although its radius covers a third of the partitions."""
    train, test = tinted(600, "victim"), tinted(60, "test")
    clean, defence = encoder_of(), DPA(partitions=20)

    def certified(encoder: Encoder) -> Any:
        rows = TrainingRows(embed(encoder, train.pixels, Runtime()), train.labels, 3)
        return defence.fit(rows).certify(embed(encoder, test.pixels, Runtime()))

    before = certified(clean)
    row = int(((before.predictions == test.labels) & (test.labels != WANTED) & (before.radii >= 6)).nonzero()[0])
    made = PACL(batch=64, trainable="last-two-stages").corrupt(
        EditProblem(clean, (test.pixels[row],), (OWN,), SHADOW, 0, Runtime())
    )
    after = certified(loaded(made.state))
    assert int(after.predictions[row]) == WANTED and int(after.radii[row]) >= 6


# What every certified head owes its caller.

CASES: list[CertifiedHead] = [
    DPA(partitions=20),
    DPA(partitions=20, head="ridge", standardise="clean"),
    DPA(partitions=20, head="prototype", standardise="none", unit_length=True),
    Bagging(learners=60, bag=8),
]


every = pytest.mark.parametrize("defence", CASES, ids=repr)


@every
def test_it_keeps_what_every_certified_head_promises(defence: CertifiedHead) -> None:
    check_certified_head(defence)
    kind, _, _, line = defences.DEFENCES[defence.name]
    assert kind == "certified" and line


@every
def test_clean_rows_are_told_apart_and_certified(defence: CertifiedHead) -> None:
    rows, test = lent(200), lent(50, 5)
    first = defence.fit(rows, 3).certify(test.z)
    assert float((first.predictions == test.y).double().mean()) > 0.5
    assert float(first.at(test.y, 1).double().mean()) > 0.2


@pytest.mark.parametrize(
    ("defence", "rows", "message"),
    [
        (DPA(partitions=50), 40, "dpa: at least 50 training rows, one for each partition; got 40; ask for fewer"),
        (Bagging(bag=50), 40, "bagging: at least 50 training rows, as many as a bag holds; got 40"),
        (DPA(partitions=5, standardise="clean"), 0, "dpa: clean rows of the defender's own; got none"),
    ],
)
def test_rows_that_do_not_do(defence: CertifiedHead, rows: int, message: str) -> None:
    full: Tensor = lent(40).z
    given = TrainingRows(full, torch.arange(40) % 3, 3) if not rows else lent(rows)
    with pytest.raises(DataError, match=message):
        defence.fit(given)


@pytest.mark.parametrize("fields", [{"partitions": 0}, {"head": "svm"}, {"ridge": 0}, {"standardise": "all"}])
def test_fields_out_of_range(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="dpa: fields "):
        DPA.configure(**fields)
