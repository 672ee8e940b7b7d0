"""Bagging: base learners on few rows drawn with replacement (Jia, Cao and Gong, AAAI 2021).

Among very many base learners on k of n rows, let p_1 be the share that votes for the winner and p_2 that of the
runner-up. Counts of the N that were drawn bound them, by Clopper and Pearson, for all classes and all certified rows
at once with confidence 1 - alpha. Where r rows are added, taken away or replaced and n' are left, the prediction stands
if (theorem 1, without its rounding to multiples of n^-k)

    max over n - r <= n' <= n + r of (n' / n)^k - 2 ((max(n, n') - r) / n)^k + 1 < p_1 - p_2.

The left side grows with n' up to n, and beyond it is largest at r / (1 - 2^(-1 / (k - 1))), if that is within reach.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import beta
from torch import Tensor

from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.base import Certified, CertifiedHead, FittedCertified, count_votes
from foretaste.defences.certified.subsample_heads import Groups
from foretaste.runtime import stream

Array = NDArray[np.float64]


class Bagging(CertifiedHead):
    """A vote of base learners on rows drawn with replacement; radii hold with confidence 1 - alpha over the draws."""

    name: ClassVar[str] = "bagging"
    certain: ClassVar[bool] = False
    learners: int = Field(default=1000, ge=2, description="base learners N")
    bag: int = Field(default=30, ge=1, description="rows k of each, drawn with replacement")
    alpha: float = Field(
        default=1e-3, gt=0, lt=1, description="chance that the bounds of any certified row fail; all rows share it"
    )

    def fit(self, rows: TrainingRows, seed: int = 0) -> FittedCertified:
        """See `CertifiedHead.fit`; bags are drawn from the stream `defence`."""
        self._need(rows, self.bag, "as many as a bag holds")
        random = stream(seed, "defence")
        drawn = torch.randint(len(rows), (self.learners, self.bag), generator=random).sort(1).values
        blocks = self._fitted(rows, Groups(drawn.flatten(), torch.full((self.learners,), self.bag)))
        reach = worst_case(len(rows), self.bag)

        def certify(z: Tensor) -> Certified:
            counts = torch.cat([count_votes(scores) for scores in blocks(z)])
            first, low, high = bounds(counts, self.alpha / max(1, len(z)))
            return Certified(first, radii(low - high, reach))

        return FittedCertified(certify, {"rows": float(self.bag)})

    def changes(self, added: int, relabelled: int, replaced: int) -> int:
        """Every row that comes, goes or changes counts once."""
        return added + relabelled + replaced


def bounds(counts: Tensor, alpha: float) -> tuple[Tensor, Array, Array]:
    """Winner int64 [k], lower bound of its share and upper bound of the runner-up's, [k] each, at once at 1 - alpha.

    Args:
        counts: votes int64 [k, C], the same number N in each row; ties are won by the smaller class.
        alpha: chance that any of the C bounds of a row fails.
    """
    first = counts.argmax(1)
    found, total = counts.numpy(), int(counts[0].sum()) if len(counts) else 0
    share = alpha / counts.shape[1]
    won = found[np.arange(len(found)), first.numpy()]
    low = beta.ppf(share, won, total - won + 1)  # the winner has at least one vote
    others = found.copy()
    others[np.arange(len(found)), first.numpy()] = -1
    second = others.max(1)
    high = np.where(second >= total, 1.0, beta.ppf(1 - share, second + 1, np.maximum(total - second, 1)))
    return first, low, np.minimum(high, 1 - low)


def worst_case(n: int, bag: int) -> Array:
    """Left side of the inequality for r = 0, ..., n, float64 [n + 1], ascending."""
    r = np.arange(n + 1)
    peak = r / (1 - 2 ** (-1 / (bag - 1))) if bag > 1 else np.full(n + 1, float(n))
    ends = [np.clip(np.floor(peak), n, n + r), np.clip(np.ceil(peak), n, n + r)]  # n' is whole
    found: Array = np.max([(m / n) ** bag - 2 * ((m - r) / n) ** bag + 1 for m in ends], axis=0)
    return found


def radii(margin: Array, reach: Array) -> Tensor:
    """The largest r whose worst case, and that of every smaller one, is below the margin, int64 [k]; -1: none."""
    return torch.from_numpy(np.searchsorted(np.maximum.accumulate(reach), margin, side="left") - 1)
