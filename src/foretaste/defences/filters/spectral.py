"""Spectral signatures (Tran, Li and Madry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018, algorithm 1).

For the rows R of each label, with mean r and v the top right singular vector of R - r:

    score_i = ( (z_i - r) . v )^2

The authors' code and others' take v from the centred rows and then score the uncentred z_i . v; `centred` chooses.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from scipy.linalg import eigh
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows


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
    n, d = rows.shape
    r = rows.numpy()
    small = r.T @ r if d <= n else r @ r.T  # the smaller Gram matrix has the same largest value
    last = len(small) - 1
    vector = torch.from_numpy(eigh(small, subset_by_index=[last, last], check_finite=False)[1][:, 0])
    image = rows @ vector if d <= n else rows.T @ vector
    size = image.norm()
    if float(size) == 0:
        return torch.zeros(d, dtype=rows.dtype)
    return vector if d <= n else image / size
