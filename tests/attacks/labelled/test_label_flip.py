"""Label flips against naive answers and scikit-learn's head."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from foretaste.attacks.labelled.label_flip import LabelFlip
from tests.attacks import attacks_fixture as toy


def test_label_flip_copies_rows_under_wrong_labels() -> None:
    known = toy.feature_knowledge()
    made = LabelFlip().poison(known, 30, 0)
    assert made.z is not None and made.pixels is None and made.constraint == "box"
    assert torch.equal(made.z, known.z[made.base]) and len(set(made.base.tolist())) == 30
    assert not bool((made.y == known.y[made.base]).any())
    pictures = toy.pixel_knowledge()
    made = LabelFlip().poison(pictures, 30, 0)
    assert pictures.images is not None and made.pixels is not None and made.z is None
    assert torch.equal(made.pixels, pictures.images.pixels[made.base])


def test_least_likely_label_is_the_one_of_scikit_learn() -> None:
    known = toy.feature_knowledge()
    known.y[:40] = (known.y[:40] + 2) % 4  # rows whose own label is the least likely one: it must not be taken
    made = LabelFlip(labels="least-likely").poison(known, 200, 0)
    scaler = StandardScaler().fit(known.z.numpy())
    rows = np.hstack([scaler.transform(known.z.numpy()), np.ones((len(known.z), 1))])
    head = LogisticRegression(C=1 / (known.ridge * len(rows)), fit_intercept=False, tol=1e-10, max_iter=10_000)
    likely = head.fit(rows, known.y.numpy()).predict_proba(rows[made.base.numpy()])
    assert bool((likely.argmin(1) == known.y[made.base].numpy()).any())
    likely[np.arange(200), known.y[made.base].numpy()] = 2
    np.testing.assert_array_equal(made.y.numpy(), likely.argmin(1))
    assert len(made.y.unique()) > 2
