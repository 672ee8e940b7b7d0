"""Filters of training rows beside their counterparts in ART (adversarial-robustness-toolbox): the same cached features.

Data: 10 Gaussian classes in 128 features behind a ReLU, 5,000 rows; a tenth of the rows of one label is poison, moved
together. ART's defences ask a classifier for the activations; here it returns the features that it is given, so no time
goes into a network and what is timed is `detect_poison` alone, with ART's defaults. ART computes in float32, we in
float64. One thread each, in turns; the least of each side's times counts, since other load can only add to a time.

`spectral` has `SpectralSignatureDefense`, which takes the direction from the centred rows and scores the uncentred ones
without the square (our `centred=False`); `activation` has `ActivationDefence`, which splits from one start where we
take the best of ten. `ProvenanceDefense` and RONI are no counterparts: both fit ART's classifier again without the rows
in question and judge the change on trusted rows, the former for groups of known origin; `influence` reckons that
change for all rows from one fit, to first order.

On the same cached features neither is ten times as fast, and here is why. For `spectral` each label costs us a Gram
matrix in float64 and one eigenvector of it, both at the pace of the processor, where ART takes a float32 SVD; nothing
is left to leave out. For `activation` both sides call scikit-learn's PCA and KMeans, ours from ten starts: fewer would
change the scores. A 2-means of our own was three times as fast and not worth its lines.

A user of ART has no cached features: each of its defences sends the images through the classifier again. So a second
ratio, `as_used`, times ART on images with a ResNet-18 of width 16 (one round), against the same filter on features that
were computed once.

ART is needed here alone: `make bench` installs what requirements-bench.txt pins.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from foretaste.defences.base import TrainingRows
from foretaste.defences.filters.activation import Activation
from foretaste.defences.filters.spectral import Spectral
from foretaste.encoders.resnet_small import resnet18_small
from foretaste.runtime import make_runtime, stream
from foretaste.statistics import auroc

GOALS = {
    "spectral_speedup": (">=", 10.0),
    "spectral_speedup_as_used": (">=", 10.0),
    "spectral_scores_apart": ("<=", 1e-3),
    "activation_speedup": (">=", 10.0),
    "activation_speedup_as_used": (">=", 10.0),
    "activation_rows_apart": ("<=", 0.01),
}
ROWS, FEATURES, CLASSES, SHARE, ROUNDS = 5_000, 128, 10, 0.1, 9


def planted() -> tuple[TrainingRows, np.ndarray, np.ndarray]:
    """The rows, which of them carry the label 0, and which of those are poison, bool each."""
    random = stream(0, "bench filters")
    y = torch.randint(0, CLASSES, (ROWS,), generator=random)
    z = 0.5 * torch.randn(CLASSES, FEATURES, generator=random)[y] + torch.randn(ROWS, FEATURES, generator=random)
    poison = (y == 0) & (torch.rand(ROWS, generator=random) < SHARE)
    z[poison] += 0.75 * torch.randn(FEATURES, generator=random)
    own = (y == 0).numpy()
    return TrainingRows(torch.relu(z), y, CLASSES), own, poison.numpy()[own]


def cached_classifier() -> Any:
    """ART's classifier whose activations are the features themselves."""
    try:
        from art.estimators.classification import PyTorchClassifier
    except ImportError as error:
        raise SystemExit(
            "The bench `filters` needs ART: run `make bench`, or install requirements-bench.txt"
        ) from error

    class Cached(PyTorchClassifier):
        def get_activations(self, x: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
            return x

    network = torch.nn.Sequential(torch.nn.Linear(FEATURES, CLASSES))
    return Cached(network, torch.nn.CrossEntropyLoss(), (FEATURES,), CLASSES)


def classifier_of_images() -> Any:
    """ART's classifier of images whose last layer before the head gives `FEATURES` activations."""
    from art.estimators.classification import PyTorchClassifier

    network = torch.nn.Sequential(resnet18_small(16), torch.nn.Linear(FEATURES, CLASSES))
    return PyTorchClassifier(network, torch.nn.CrossEntropyLoss(), (3, 32, 32), CLASSES)


def main() -> dict[str, float]:
    """Seconds of each side and their ratio, how far the answers are apart, and the AUROC among the poisoned label."""
    make_runtime(threads=1)
    classifier = cached_classifier()
    from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense

    rows, own, poison = planted()
    z, y = rows.z.numpy(), rows.y.numpy()
    spectral, activation = Spectral(centred=False), Activation()
    sides: dict[str, Callable[[], Any]] = {
        "spectral": lambda: spectral.score(rows),
        "spectral_art": lambda: SpectralSignatureDefense(classifier, z, y).detect_poison(),
        "activation": lambda: activation.score(rows),
        "activation_art": lambda: ActivationDefence(classifier, z, y).detect_poison(),
    }
    seconds = dict.fromkeys(sides, float("inf"))
    found = {}
    with threadpool_limits(1):
        for _ in range(ROUNDS):
            for name, side in sides.items():
                start = perf_counter()
                found[name] = side()
                seconds[name] = min(seconds[name], perf_counter() - start)
        images = torch.rand(ROWS, 3, 32, 32, generator=stream(0, "bench filters/images")).numpy()
        whole = classifier_of_images()
        for name, defence in (("spectral", SpectralSignatureDefense), ("activation", ActivationDefence)):
            start = perf_counter()
            defence(whole, images, y).detect_poison()
            seconds[f"{name}_art_as_used"] = perf_counter() - start
    # With all rows expected to be poison, ART reports the score of each.
    report, _ = SpectralSignatureDefense(classifier, z, y, expected_pp_poison=1.0).detect_poison()
    theirs = np.array([report[place] for place in range(ROWS)])
    ours = found["spectral"].sqrt().numpy()
    flagged, kept = found["activation"].numpy()[own] > 0, np.array(found["activation_art"][1])[own] == 1
    scores = {
        "spectral": Spectral().score(rows).numpy()[own],
        "spectral_art": theirs[own],
        "activation": found["activation"].numpy()[own],
        "activation_art": 1.0 - kept,
    }
    results: dict[str, float] = {}
    for name in ("spectral", "activation"):
        results |= {f"{side}_seconds": seconds[side] for side in (name, f"{name}_art", f"{name}_art_as_used")}
        results[f"{name}_speedup"] = seconds[f"{name}_art"] / seconds[name]
        results[f"{name}_speedup_as_used"] = seconds[f"{name}_art_as_used"] / seconds[name]
        results |= {
            f"{side}_auroc": auroc(scores[side][poison], scores[side][~poison]).value for side in (name, f"{name}_art")
        }
    return results | {
        "spectral_scores_apart": float(np.abs(ours - theirs).max() / theirs.max()),
        "activation_rows_apart": float((flagged == kept).mean()),
    }


if __name__ == "__main__":
    for key, value in main().items():
        print(f"{key} {value:.4g}")
