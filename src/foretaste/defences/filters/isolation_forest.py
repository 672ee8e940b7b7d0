"""Isolation forest (Liu, Ting and Zhou, "Isolation Forest", ICDM 2008), scikit-learn's.

    score_i = 2^( -E[h(z_i)] / c(psi) ),     in (0, 1]

with h the number of random cuts until a row of a sample of psi rows stands alone and c(psi) what it is on average.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from sklearn.ensemble import IsolationForest
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows, random_state


class Forest(Filter):
    """How few random cuts separate a row from the others."""

    name: ClassVar[str] = "isolation-forest"
    trees: int = Field(default=100, ge=1, description="random trees")
    sample: int = Field(default=256, ge=2, description="rows that each tree is made from; all where there are fewer")
    per_label: bool = Field(default=False, description="a forest for each label instead of one that sees no label")

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """The anomaly score of the paper, float64 [n] in (0, 1]; see `Filter.score`."""
        scores = torch.full((len(rows),), 0.5, dtype=torch.float64)  # the paper's score of what is not unusual
        groups = [places for _, places in rows.by_label()] if self.per_label else [torch.arange(len(rows))]
        for places in groups:
            if len(places) > 1:
                z = rows.z[places].numpy()
                forest = IsolationForest(
                    n_estimators=self.trees, max_samples=min(self.sample, len(z)), random_state=random_state(seed)
                )
                scores[places] = torch.from_numpy(-forest.fit(z).score_samples(z)).double()
        return scores
