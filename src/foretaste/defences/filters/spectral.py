"""Spectral signatures (Tran, Li and Madry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018, algorithm 1).

For the rows R of each label, with mean r and v the top right singular vector of R - r:

    score_i = ( (z_i - r) . v )^2

The authors' code and others' take v from the centred rows and then score the uncentred z_i . v; `centred` chooses.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows
from foretaste.defences.filters.principal import top_directions


class Spectral(Filter):
    """Squared component of a row along the direction in which the rows of its label vary most."""

    name: ClassVar[str] = "spectral"
    centred: bool = Field(
        default=True, description="score z - mean as in the paper; false: z itself, as in the authors' code"
    )

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """Squared projection, float64 [n], in squares of the encoder's units; see `Filter.score`."""
        scores = torch.empty(len(rows), dtype=torch.float64)
        for _, places in rows.by_label():
            z = rows.z[places].double()
            centred = z - z.mean(0)
            scores[places] = ((centred if self.centred else z) @ top_direction(centred)).square()
        return scores


def top_direction(rows: Tensor) -> Tensor:
    """Right singular vector [d] of the largest singular value of rows float64 [n, d]; zero if all rows are zero."""
    vector = top_directions(rows, 1)[:, 0]
    return vector if bool(rows.any()) else torch.zeros_like(vector)
