"""Distance of a row's norm from the median norm: the cheapest yardstick, which sees no label and no direction.

The published filters by distance (Steinhardt, Koh and Liang 2017; Koh, Steinhardt and Liang, "Stronger Data Poisoning
Attacks Break Data Sanitization Defenses", 2022, section 3) centre on the class; this one is ours and has no centre:
it tells how much of what they find is mere size.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows


class Norm(Filter):
    """How far the norm of a row is from the median norm (the lower of two middle ones), in either direction."""

    name: ClassVar[str] = "norm"

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """Absolute difference, float64 [n], in the encoder's units; see `Filter.score`."""
        norms = rows.z.double().norm(dim=1)
        distance: Tensor = (norms - norms.median()).abs()
        return distance
