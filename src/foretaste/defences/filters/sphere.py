"""The sphere defence of Steinhardt, Koh and Liang, "Certified Defenses for Data Poisoning Attacks", NeurIPS 2017, s. 3.

    score_i = || z_i - mu_{y_i} ||

The paper drops rows outside a radius around the centroid of their class, and tells apart centroids of clean rows (an
oracle's) and of the poisoned rows themselves (data-dependent); `reference` chooses.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from foretaste.defences.base import Filter, Reference, TrainingRows, centroids


class Sphere(Filter):
    """Distance of a row to the centroid of the label that it carries."""

    name: ClassVar[str] = "sphere"
    reference: Reference = Field(
        default="all", description="rows that the centroids are of: all training rows, or the defender's clean ones"
    )

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """Euclidean distance, float64 [n], in the encoder's units; see `Filter.score`."""
        distance: Tensor = (rows.z.double() - centroids(rows, self.reference, self.name)[rows.y]).norm(dim=1)
        return distance
