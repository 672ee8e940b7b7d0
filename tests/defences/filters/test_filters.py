"""Each filter against an independent answer: naive numpy, scikit-learn, refits without a row, planted poison."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from foretaste.defences import configure
from foretaste.defences.base import TrainingRows
from foretaste.defences.filters.label_quality import out_of_sample, quality
from foretaste.defences.filters.spectral import top_direction
from tests.defences import fixture as toy


def scores(name: str, rows: TrainingRows, seed: int = 0, **fields: Any) -> Any:
    return configure(name, fields).score(rows, seed).numpy()


def parts(rows: TrainingRows) -> tuple[Any, Any]:
    return rows.z.double().numpy(), rows.y.numpy()


def reference(rows: TrainingRows, which: str) -> tuple[Any, Any]:
    assert rows.clean_z is not None and rows.clean_y is not None
    return parts(rows) if which == "all" else (rows.clean_z.double().numpy(), rows.clean_y.numpy())


@pytest.mark.parametrize("which", ["all", "clean"])
def test_sphere_is_the_distance_to_the_centroid(which: str) -> None:
    lent = toy.problem()
    (z, y), (own_z, own_y) = parts(lent), reference(lent, which)
    naive = [math.dist(row, own_z[own_y == label].mean(0)) for row, label in zip(z, y, strict=True)]
    np.testing.assert_allclose(scores("sphere", lent, reference=which), naive, rtol=1e-12)


@pytest.mark.parametrize("which", ["all", "clean"])
def test_slab_is_the_longest_projection(which: str) -> None:
    lent = toy.problem()
    (z, y), (own_z, own_y) = parts(lent), reference(lent, which)
    mean = [own_z[own_y == label].mean(0) for label in range(3)]

    def along(row: Any, label: int, other: int) -> float:
        axis = mean[label] - mean[other]
        return abs(sum(a * b for a, b in zip(row - mean[label], axis, strict=True))) / math.hypot(*axis)

    naive = [
        max(along(row, label, c) for c in range(3) if c != label) for row, label in zip(z, y.tolist(), strict=True)
    ]
    np.testing.assert_allclose(scores("slab", lent, reference=which), naive, rtol=1e-9)


def test_slab_orders_two_classes_as_the_paper() -> None:
    z, y = toy.blob(80, classes=2)
    mean = [z[y == label].astype(float).mean(0) for label in range(2)]
    paper = np.abs([(row - mean[label]) @ (mean[1] - mean[0]) for row, label in zip(z, y, strict=True)])
    found = scores("slab", toy.rows(z, y, classes=2))
    assert (found.argsort() == paper.argsort()).all()


def test_norm_is_the_distance_from_the_median() -> None:
    z, y = toy.blob(99)
    norms = [math.hypot(*map(float, row)) for row in z]
    np.testing.assert_allclose(
        scores("norm", toy.rows(z, y)), [abs(norm - sorted(norms)[49]) for norm in norms], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("k", [1, 8, 500])
def test_knn_counts_votes(k: int) -> None:
    lent, _ = toy.flipped(150, 30)
    z, y = parts(lent)
    naive = []
    for row, label in zip(z, y.tolist(), strict=True):
        nearest = sorted(range(len(z)), key=lambda j: math.dist(row, z[j]))[:k]
        votes = [sum(y[j] == c for j in nearest) for c in range(3)]
        naive.append((max(v for c, v in enumerate(votes) if c != label) - votes[label]) / len(nearest))
    np.testing.assert_allclose(scores("knn", lent, k=k), naive)


@pytest.mark.parametrize(("n", "d"), [(60, 6), (30, 40)], ids=["tall", "wide"])
@pytest.mark.parametrize("centred", [True, False])
def test_spectral_is_the_singular_vector(n: int, d: int, centred: bool) -> None:
    z, y = toy.blob(n, d=d)
    naive = np.empty(n)
    for label in range(3):
        own = z[y == label].astype(float)
        _, _, right = np.linalg.svd(own - own.mean(0))
        for place in np.flatnonzero(y == label):
            naive[place] = ((z[place] - own.mean(0) * centred) @ right[0]) ** 2
    np.testing.assert_allclose(scores("spectral", toy.rows(z, y), centred=centred), naive, rtol=1e-8, atol=1e-9)


def test_top_direction_of_nothing() -> None:
    assert top_direction(torch.zeros(4, 3, dtype=torch.float64)).tolist() == [0, 0, 0]
    assert top_direction(torch.zeros(3, 4, dtype=torch.float64)).tolist() == [0, 0, 0, 0]


def test_activation_by_hand() -> None:
    """On a line: 2-means of 0, 1, 1, 2 | 10, 12 has centres 1 and 11; a third of the rows is in the smaller one."""
    z = np.array([0, 1, 1, 2, 10, 12], np.float32)[:, None]
    margins = [(abs(t - 1) - abs(t - 11)) / 10 / 3 for t in (0, 1, 1, 2, 10, 12)]
    np.testing.assert_allclose(scores("activation", toy.rows(z, np.zeros(6, int))), margins, rtol=1e-5)
    halves = np.array([0, 1, 1, 10, 11, 12], np.float32)[:, None]
    np.testing.assert_allclose(scores("activation", toy.rows(halves, np.zeros(6, int))), 0)


def test_forest_by_the_length_of_paths() -> None:
    """Two rows are told apart by one cut in every tree, as is expected of two rows: 2^-1."""
    z = np.array([[0.0], [1.0]], np.float32)
    np.testing.assert_allclose(scores("isolation-forest", toy.rows(z, np.zeros(2, int))), 0.5)
    lent, poison = toy.shifted()
    found = scores("isolation-forest", lent)
    assert found.min() > 0 and found.max() < 1
    assert found[poison].mean() > 0.5 > np.median(found[~poison])


@pytest.mark.parametrize(("measure", "wanted"), [("self-confidence", [0.7, 0.1]), ("normalised-margin", [0.75, 0.2])])
def test_label_quality_by_hand(measure: str, wanted: list[float]) -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], dtype=torch.float64)
    assert quality(p, torch.tensor([0, 2]), measure).tolist() == pytest.approx(wanted)


def standardised(own: Any, z: Any) -> Any:
    x = (z - own.mean(0)) / own.std(0)
    return np.concatenate([x, np.ones((len(x), 1))], 1)  # the head's bias is regularised like the rest


def judge(z: Any, y: Any, ridge: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / (ridge * len(y)), fit_intercept=False, tol=1e-10, max_iter=5000)
    return model.fit(z, y)


def test_out_of_sample_probabilities_are_of_heads_without_the_row() -> None:
    """With as many folds as rows, each head is scikit-learn's on all the other rows."""
    z, y = toy.blob(24, distance=2)
    found = out_of_sample(toy.rows(z, y), 24, 0).numpy()
    for i in range(24):
        rest = np.arange(24) != i
        own = z[rest].astype(float)
        model = judge(standardised(own, own), y[rest], 1e-2)
        np.testing.assert_allclose(found[i], model.predict_proba(standardised(own, z[i : i + 1]))[0], atol=2e-4)


def test_folds_hold_their_share_of_every_label() -> None:
    lent = toy.problem(45)
    first, second = out_of_sample(lent, 5, 0), out_of_sample(lent, 5, 1)
    assert not torch.equal(first, second) and torch.equal(first, out_of_sample(lent, 5, 0))
    torch.testing.assert_close(first.sum(1), torch.ones(45, dtype=torch.float64))


def test_trimmed_is_the_naive_loop() -> None:
    lent, _ = toy.flipped(120, 15)
    z, y = parts(lent)

    def losses(kept: Any) -> Any:
        model = judge(standardised(z[kept], z[kept]), y[kept], lent.ridge)
        p = model.predict_proba(standardised(z[kept], z))
        return np.array([-math.log(p[i, y[i]]) for i in range(len(y))])

    naive = losses(np.arange(120))
    for _ in range(5):
        naive = losses(np.array(sorted(sorted(range(120), key=lambda i: naive[i])[:96])))
    np.testing.assert_allclose(scores("trimmed", lent, share=0.8), naive, rtol=2e-3, atol=2e-4)


def test_influence_is_what_leaving_a_row_out_does() -> None:
    lent, _ = toy.flipped(240, 12)
    z, y = parts(lent)
    own_z, own_y = reference(lent, "clean")
    x, own = standardised(z, z), standardised(z, own_z)  # the standardisation stays, as in the formula

    def clean_loss(kept: Any) -> float:
        p = judge(x[kept], y[kept], lent.ridge).predict_proba(own)
        return float(-np.log(p[np.arange(len(own_y)), own_y]).mean())

    chosen = [*range(0, 228, 12), *range(228, 240)]
    full = clean_loss(np.arange(240))
    actual = np.array([full - clean_loss(np.arange(240) != i) for i in chosen])
    found = scores("influence", lent)[chosen]
    assert np.corrcoef(found, actual)[0, 1] > 0.99
    assert np.polyfit(actual, found, 1)[0] == pytest.approx(1, abs=0.15)
    small = np.abs(actual) < np.quantile(np.abs(actual), 0.5)  # the first order is exact for what moves little
    np.testing.assert_allclose(found[small], actual[small], atol=0.05 * np.abs(actual).max())


@pytest.mark.parametrize("name", ["sphere", "slab", "knn", "label-quality", "trimmed", "influence"])
def test_planted_wrong_labels_are_found(name: str) -> None:
    lent, poison = toy.flipped()
    found = configure(name, {"k": 15} if name == "knn" else {}).score(lent)
    assert toy.auroc(found, poison) > 0.9


@pytest.mark.parametrize("name", ["sphere", "norm", "spectral", "activation", "isolation-forest"])
def test_planted_far_rows_are_found(name: str) -> None:
    lent, poison = toy.shifted()
    assert toy.auroc(configure(name, {}).score(lent), poison) > 0.97


@pytest.mark.parametrize("name", ["norm", "isolation-forest"])
def test_what_sees_no_label_cannot_find_wrong_labels(name: str) -> None:
    lent, poison = toy.flipped()
    assert 0.3 < toy.auroc(configure(name, {}).score(lent), poison) < 0.7
