"""How a defender calibrates: thresholds from scores of clean rows, the rates they are set at, and who refers to what.

Of the defender's clean rows one half is what a defence may refer to, and the other half calibrates it (split conformal
calibration, Papadopoulos et al., ECML 2002).
"""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor

from foretaste.features.file import FeatureSet
from foretaste.images import Images

RATES = (0.01, 0.05)
"""False-alarm rates that thresholds are set at."""
Rows = TypeVar("Rows", FeatureSet, Images)


def threshold(calibration: Tensor, rate: float) -> float:
    """The least calibration score above which, on average, at most `rate` of rows like those lie.

    Of k scores the one of rank ceil((k + 1) (1 - rate)): a further row of the same kind exceeds it with a chance of at
    most `rate`. Where k is too small for that, the highest, which it exceeds with a chance of at most 1 / (k + 1).

    Args:
        calibration: scores [k], k >= 1.
        rate: in (0, 1).
    """
    k = len(calibration)
    rank = min(k, math.ceil(round((k + 1) * (1 - rate), 9)))  # rounded: 0.99 is a little more than 99 / 100
    return float(calibration.sort().values[rank - 1])


def halves(rows: Rows) -> tuple[Rows, Rows]:
    """Clean rows as (those that a defence may refer to, those that calibrate it), every other row of each class.

    Of an odd number the first part has one more; a single row cannot be divided and is for reference.
    """
    labels = rows.labels if isinstance(rows, Images) else rows.y
    order = labels.argsort(stable=True)
    reference, held = (rows.take(order[start::2].sort().values) for start in (0, 1))
    return reference, held


def unreachable(rows: int, what: str, calibrated: str) -> list[str]:
    """Warnings about rates that so few calibration rows cannot set.

    Args:
        rows: that calibrate.
        what: whose rates they are, e.g. `defences`.
        calibrated: what they are, e.g. `rows`.
    """
    return [
        f"{what}: {rows} calibration {calibrated} cannot set a false-alarm rate of {rate:.0%}; the threshold is their "
        f"highest score, which flags about {1 / (rows + 1):.1%} of clean {calibrated}"
        for rate in RATES
        if (rows + 1) * rate < 1
    ]
