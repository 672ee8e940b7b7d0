"""The embedded default: scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np

from foretaste.data.arrays import Part, assemble
from foretaste.data.base import Dataset


def load_digits() -> Dataset:
    """1,797 digits, 8x8, grey copied to three channels, no test part of their own.

    scikit-learn's values are counts 0 to 16 (of the on-pixels in a 4x4 block of the scan); here they are
    round(value * 255 / 16).
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # [N, 8, 8]
    return assemble("digits", Part("digits", pixels, bunch.target), classes=[str(name) for name in bunch.target_names])
