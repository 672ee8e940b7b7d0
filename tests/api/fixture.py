"""Rows with planted classes, a victim on them, and one on images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import foretaste as ft

RIDGE = 1e-3
Pair = tuple[NDArray[np.float32], NDArray[np.int64]]


def rows(n: int, seed: int = 0, classes: int = 3, d: int = 6) -> Pair:
    """Features float32 [n, d] and labels int64 [n]."""
    y = np.arange(n) % classes
    X = np.random.default_rng(seed).normal(size=(n, d)) + 1.5 * np.eye(classes, d)[y]
    return X.astype(np.float32), y


def parts() -> dict[str, Any]:
    """Every part apart, so that nothing is drawn."""
    return {"validation": rows(60, 1), "test": rows(90, 2), "clean": rows(60, 3)}


def victim(**settings: Any) -> ft.Victim:
    """On features, every part apart."""
    return ft.Victim.from_features(*rows(120), **{**parts(), **settings})


def sklearn_predictions(train: list[Pair], test: NDArray[np.float32]) -> NDArray[np.int64]:
    """The head's objective in scikit-learn's words; a column of ones, because its own bias is not regularised."""
    z, y = (np.concatenate([np.asarray(pair[place]) for pair in train]) for place in (0, 1))
    scaler = StandardScaler().fit(z.astype(np.float64))
    x, x_test = (np.hstack([scaler.transform(part), np.ones((len(part), 1))]) for part in (z, test))
    head = LogisticRegression(C=1 / (RIDGE * len(z)), fit_intercept=False, tol=1e-10, max_iter=5000).fit(x, y)
    predictions: NDArray[np.int64] = head.predict(x_test)
    return predictions
