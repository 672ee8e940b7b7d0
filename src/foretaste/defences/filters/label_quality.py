"""Label quality from out-of-sample probabilities (Northcutt, Jiang and Chuang, "Confident Learning", JAIR 2021;
Kuan and Mueller, "Model-agnostic label quality scoring to detect real-world label errors", 2022, section 3).

With p_i the probabilities of a head that was not fitted on row i:

    self-confidence     score_i = 1 - p_i[y_i]
    normalised margin   score_i = 1 - ( p_i[y_i] - max over c != y_i of p_i[c] + 1 ) / 2

These are one less the scores of the authors' package cleanlab (methods `self_confidence` and `normalized_margin`),
which are higher for better labels. Two lines are written out here rather than depended on.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows
from foretaste.errors import DataError
from foretaste.heads.fit import fit_head
from foretaste.runtime import generator


class LabelQuality(Filter):
    """How little a head that has not seen the row believes the label that the row carries."""

    name: ClassVar[str] = "label-quality"
    measure: Literal["self-confidence", "normalised-margin"] = Field(
        default="self-confidence", description="of the label's probability alone, or against the next best label's"
    )
    folds: int = Field(default=5, ge=2, description="parts, each scored by a head fitted on the others")

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """One less the label's quality, float64 [n] in [0, 1]; see `Filter.score`.

        Raises:
            DataError: a single row, which leaves none to fit on.
        """
        p = out_of_sample(rows, self.folds, seed)
        return 1 - quality(p, rows.y, self.measure)


def quality(p: Tensor, y: Tensor, measure: str) -> Tensor:
    """Quality [n] in [0, 1] of labels y [n] under probabilities p [n, C]; `LabelQuality` has the formulas."""
    own = p.gather(1, y[:, None])[:, 0]
    if measure == "self-confidence":
        return own
    rival = p.scatter(1, y[:, None], 0.0).amax(1)
    return (own - rival + 1) / 2


def out_of_sample(rows: TrainingRows, folds: int, seed: int) -> Tensor:
    """Probabilities float64 [n, C] of each row by the exact head on the other folds.

    Raises:
        DataError: a single row.
    """
    n = len(rows)
    if n < 2:
        raise DataError("label-quality: at least two training rows", got="one")
    # Folds dealt out label by label: each has its share of every label.
    order = np.lexsort((generator(seed, "defence").random(n), rows.y.numpy()))
    fold = torch.empty(n, dtype=torch.int64)
    fold[torch.from_numpy(order)] = torch.arange(n) % min(folds, n)
    p = torch.empty(n, rows.classes, dtype=torch.float64)
    for index in range(min(folds, n)):
        out = fold == index
        head = fit_head(rows.z[~out], rows.y[~out], rows.classes, rows.ridge)
        p[out] = torch.softmax(head.logits(rows.z[out]).double(), 1)
    return p
