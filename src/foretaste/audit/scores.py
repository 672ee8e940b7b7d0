"""Accuracy with intervals: the clean twin, the poisoned head, and the paired change between them."""

from __future__ import annotations

from torch import Tensor

from foretaste.record import Estimate, ProbeScores
from foretaste.statistics import paired_change, wilson


def accuracy(predictions: Tensor, truth: Tensor) -> Estimate:
    """Share of right predictions [n] with Wilson's interval."""
    right = predictions == truth
    return wilson(int(right.sum()), len(right))


def compare(clean: Tensor, poisoned: Tensor, truth: Tensor) -> ProbeScores:
    """Both accuracies and the paired change; all arguments are labels int64 [n] over the same test rows."""
    return ProbeScores(
        clean=accuracy(clean, truth),
        poisoned=accuracy(poisoned, truth),
        change=paired_change((clean == truth).numpy(), (poisoned == truth).numpy()),
    )
