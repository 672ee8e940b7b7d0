"""Base learners against the head fitted alone and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.subsample_heads import Groups, Learner, fit_heads
from foretaste.heads.fit import fit_head
from foretaste.heads.objective import HeadObjective, Rows
from foretaste.heads.scaler import Scaler
from tests.defences import fixture as toy

HEADS: tuple[Learner, ...] = ("exact", "ridge", "prototype")


def lent(n: int, seed: int = 0, distance: float = 1.5) -> TrainingRows:
    return toy.rows(*toy.blob(n, seed, distance), clean=toy.blob(60, 7, distance))


def uneven(rows: TrainingRows) -> Groups:
    """Heads of 1, 2, 5, 9, 30 and 60 rows, and one without any; some lack classes, some share rows."""
    sizes = torch.tensor([1, 2, 0, 5, 9, 30, 60])
    draws = np.random.default_rng(0).integers(len(rows), size=int(sizes.sum()))
    return Groups(torch.from_numpy(draws), sizes)


# Base learners.


@pytest.mark.parametrize("standardise", [True, False])
def test_exact_heads_are_the_head_fitted_alone(standardise: bool) -> None:
    rows, test = lent(300), lent(90, 5)
    groups = uneven(rows)
    found = fit_heads(rows.z, rows.y, 3, groups, "exact", ridge=1e-2, standardise=standardise, tolerance=1e-8)
    for weight, place in zip(found, groups.rows.split(groups.sizes.tolist()), strict=True):
        if not len(place):
            assert not weight.any()
            continue
        z, y = rows.z[place], rows.y[place]
        scores = test.z.double() @ weight[:, :-1].T + weight[:, -1]
        if standardise:
            alone = fit_head(z, y, 3, 1e-2, tolerance=1e-7).logits(test.z).double()
            torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-4)
            assert torch.equal(scores.argmax(1), alone.argmax(1))
            scaler = Scaler.of([z])
            z = scaler.apply(z.double())
            weight = torch.cat(
                [weight[:, :-1] * scaler.scale, (weight[:, -1] + weight[:, :-1] @ scaler.mean)[:, None]], 1
            )
        objective = HeadObjective((Rows(z.double(), y),), 3, 1e-2)
        gradient, start = (objective.loss_and_gradient(w)[1].norm() for w in (weight, torch.zeros_like(weight)))
        assert float(gradient) <= 2e-8 * float(start)


def test_ridge_heads_are_scikit_learns() -> None:
    rows, groups = lent(300), uneven(lent(300))
    found = fit_heads(rows.z, rows.y, 3, groups, "ridge", ridge=0.3)
    for weight, place in zip(found, groups.rows.split(groups.sizes.tolist()), strict=True):
        if len(place):
            a = torch.cat([rows.z[place], torch.ones(len(place), 1)], 1).double().numpy()
            model = Ridge(alpha=0.3 * len(place), fit_intercept=False).fit(a, np.eye(3)[rows.y[place].tolist()])
            np.testing.assert_allclose(weight, model.coef_, rtol=1e-8, atol=1e-10)


def test_prototypes_are_scikit_learns_centroids_and_shrink_to_the_mean() -> None:
    rows, test, groups = lent(300), lent(90, 5), uneven(lent(300))
    found = fit_heads(rows.z, rows.y, 3, groups, "prototype", ridge=1.0)
    for weight, place in zip(found, groups.rows.split(groups.sizes.tolist()), strict=True):
        z, y = rows.z[place].double(), rows.y[place]
        if not len(place):
            continue
        scores = test.z.double() @ weight[:, :-1].T + weight[:, -1]
        assert set(scores.argmax(1).tolist()) <= set(y.tolist()), "a class without rows never wins"
        if len(set(y.tolist())) > 1:
            model = NearestCentroid().fit(z.numpy(), y.numpy())
            assert scores.argmax(1).tolist() == model.predict(test.z.double().numpy()).tolist()
    shrunk = fit_heads(rows.z, rows.y, 3, groups, "prototype", ridge=1.0, shrinkage=2.0)[-1]
    place = groups.rows[-60:]
    z, y = rows.z[place].double(), rows.y[place]
    own = (z[y == 1].sum(0) + 2 * z.mean(0)) / (int((y == 1).sum()) + 2)
    torch.testing.assert_close(shrunk[1, :-1], own)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_does_not_depend_on_the_others(head: Learner) -> None:
    """To the bit: the same rows in another company, also where the others are harder or more."""
    rows, groups = lent(300), uneven(lent(300))
    all_heads = fit_heads(rows.z, rows.y, 3, groups, head, ridge=1e-3, standardise=True)
    start = 0
    for weight, size in zip(all_heads, groups.sizes.tolist(), strict=True):
        alone = Groups(groups.rows[start : start + size], torch.tensor([size]))
        torch.testing.assert_close(
            fit_heads(rows.z, rows.y, 3, alone, head, ridge=1e-3, standardise=True)[0], weight, rtol=1e-10, atol=1e-10
        )
        start += size
