"""Iterative trimmed loss minimisation (Shen and Sanghavi, "Learning with Bad Training Data via Iterative Trimmed Loss
Minimization", ICML 2019, algorithm 1) with the exact head.

Fit on all rows; then again and again: keep the share of rows with the least loss, fit on those. The score of every row,
kept or not, is its cross-entropy under the last head. Fits are to the optimum, where the paper takes some steps.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows
from foretaste.heads.fit import LinearHead, fit_head


class Trimmed(Filter):
    """Loss of a row under a head fitted to the rows with the least loss."""

    name: ClassVar[str] = "trimmed"
    share: float = Field(
        default=0.85,
        gt=0,
        le=1,
        description="rows that are kept; the paper's, a little below the share of good rows, which a defender guesses",
    )
    rounds: int = Field(default=5, ge=1, description="times that rows are chosen and the head fitted again, at most")

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """Cross-entropy, float64 [n], >= 0, in nats; see `Filter.score`."""
        return losses(self.head(rows), rows)

    def head(self, rows: TrainingRows) -> LinearHead:
        """The head that the rounds end with."""
        most = max(1, int(self.share * len(rows)))
        head = fit_head(rows.z, rows.y, rows.classes, rows.ridge)
        kept = torch.arange(0)
        for _ in range(self.rounds):
            least = losses(head, rows).argsort(stable=True)[:most].sort().values
            if torch.equal(least, kept):
                break  # the same rows give the same head
            kept = least
            head = fit_head(rows.z[kept], rows.y[kept], rows.classes, rows.ridge)
        return head


def losses(head: LinearHead, rows: TrainingRows) -> Tensor:
    """Cross-entropy of each row, float64 [n]."""
    return torch.nn.functional.cross_entropy(head.logits(rows.z).double(), rows.y, reduction="none")
