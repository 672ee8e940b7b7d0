"""Stand-ins of the filters that fit a head: loss, label quality or influence of a row under the clean head."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.defences.base import TrainingRows
from foretaste.defences.filters.influence import Influence, direction
from foretaste.defences.filters.label_quality import LabelQuality, quality
from foretaste.defences.filters.trimmed import Trimmed
from foretaste.defences.surrogates.filters import FilterSurrogate, Kind
from foretaste.heads.fit import LinearHead, fit_head


class _HeadSurrogate(FilterSurrogate[Kind]):
    """Scores by a linear head on standardised rows."""

    head: LinearHead
    follows = True

    def standard(self, z: Tensor) -> Tensor:
        """Rows [m, d] in the head's units."""
        return (z - self.head.scaler.mean.to(z)) / self.head.scaler.scale.to(z)

    def logits(self, z: Tensor) -> Tensor:
        """Scores [m, C] in z's dtype, which `LinearHead.logits` would round to float32."""
        return affine(self.standard(z), self.head.optimum.weight)


class TrimmedSurrogate(_HeadSurrogate[Trimmed]):
    """Cross-entropy under the head that the filter ends with on the clean rows."""

    def learn(self, rows: TrainingRows) -> None:
        """The head."""
        self.head = self.defence.head(rows)

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy in nats."""
        return torch.nn.functional.cross_entropy(self.logits(z), y, reduction="none")


class LabelQualitySurrogate(_HeadSurrogate[LabelQuality]):
    """Log odds against the label, or of its lost margin, under the head on all rows, which stands for those of folds.

    Log odds, in the order of the filter's scores: those lie in [0, 1], and a row that is sure to be seen would feel no
    slope that leads it back.
    """

    def learn(self, rows: TrainingRows) -> None:
        """The head."""
        self.head = fit_head(rows.z, rows.y, rows.classes, rows.ridge)

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """In nats."""
        logits = self.logits(z)
        if self.defence.measure == "self-confidence":  # logit of p, without the rounding of p near 0 and 1
            return logits.scatter(1, y[:, None], -torch.inf).logsumexp(1) - logits.gather(1, y[:, None])[:, 0]
        return -torch.logit(quality(torch.softmax(logits, 1), y, self.defence.measure), 1e-6)


class InfluenceSurrogate(_HeadSurrogate[Influence]):
    """What a row would add to the loss of the attacker's other rows, by the clean head and its inverse Hessian."""

    def learn(self, rows: TrainingRows) -> None:
        """The head, U = H^-1 dL/dW, and what all rows have in common."""
        self.head, self.u = direction(rows, self.defence.name)
        self.common = rows.ridge * float((self.u * self.head.optimum.weight).sum())
        self.others = max(len(rows) - 1, 1)

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """Increase of the mean cross-entropy, in nats."""
        pull = torch.softmax(self.logits(z), 1) - torch.nn.functional.one_hot(y, self.classes).to(z)
        return -((pull * affine(self.standard(z), self.u)).sum(1) + self.common) / self.others


def affine(x: Tensor, weight: Tensor) -> Tensor:
    """[m, C] scores of rows x [m, d] under weight [C, d + 1], in x's dtype."""
    return x @ weight[:, :-1].T.to(x) + weight[:, -1].to(x)
