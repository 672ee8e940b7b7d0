"""The slab defence of Steinhardt, Koh and Liang, "Certified Defenses for Data Poisoning Attacks", NeurIPS 2017, s. 3.

For two classes the paper scores |<z_i - mu_{y_i}, mu_1 - mu_0>|. For more classes, which the paper leaves open, ours is
the largest over the other classes, along axes of length 1 so that distant classes do not drown the near ones:

    score_i = max over c != y_i of |<z_i - mu_{y_i}, (mu_{y_i} - mu_c) / ||mu_{y_i} - mu_c|| >|

With two classes both order the rows alike.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.defences.base import Filter, Reference, TrainingRows, centroids
from foretaste.errors import DataError


class Slab(Filter):
    """Distance of a row to the centroid of its label, along the axes that lead to the other centroids."""

    name: ClassVar[str] = "slab"
    reference: Reference = Field(
        default="all", description="rows that the centroids are of: all training rows, or the defender's clean ones"
    )

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """Largest distance along an axis, float64 [n], in the encoder's units; see `Filter.score`.

        Raises:
            DataError: as `Filter.score`; rows of fewer than two classes, between which there is no axis.
        """
        centre = centroids(rows, self.reference, self.name)  # [C, d]
        labels = rows.y.unique()
        if len(labels) < 2:
            raise DataError("slab: training rows of two classes", got="one class", do="use sphere")
        scores = torch.empty(len(rows), dtype=torch.float64)
        for label, places in rows.by_label():
            axes = centre[label] - centre[labels[labels != label]]  # [C' - 1, d]
            axes /= axes.norm(dim=1, keepdim=True).clamp(min=1e-300)  # no axis to a centroid at the same place
            scores[places] = ((rows.z[places].double() - centre[label]) @ axes.T).abs().amax(1)
        return scores
