"""What a certified head is: fitted on rows that may be poison, it says how much it takes to change each prediction.

The certificate is about the rows that the head is fitted on. It takes the encoder as given: whoever edits a shared
encoder moves every base learner at once, and no radius says anything about that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.subsample_heads import Groups, Learner, Standardise, fit_heads
from foretaste.errors import DataError
from foretaste.heads.scaler import Scaler
from foretaste.method import Method

BLOCK = 2**24
"""Entries of the scores (test rows x heads x classes) that are held at once."""


@dataclass(frozen=True, eq=False)
class Certified:
    """Predictions with their certificates.

    Attributes:
        predictions: int64 [k] on the CPU.
        radii: int64 [k], how many changes of the training rows, counted by `CertifiedHead.changes`, leave the
            prediction as it is; -1: not even that it is the most frequent vote is sure.
    """

    predictions: Tensor
    radii: Tensor

    def at(self, truth: Tensor, changes: int) -> Tensor:
        """Bool [k]: rows that are right and stay right whatever is done to so many training rows."""
        return (self.predictions == truth) & (self.radii >= changes)


@dataclass(frozen=True, eq=False)
class FittedCertified:
    """A certified head after fitting.

    Attributes:
        certify: float [k, d], in the units that it was fitted in, to predictions with radii.
        figures: numbers about the fit, e.g. the rows of the smallest base learner.
    """

    certify: Callable[[Tensor], Certified]
    figures: dict[str, float] = field(default_factory=dict)


class CertifiedHead(Method):
    """A vote of many base learners, each a linear head on a few rows.

    What the base learners see of a row must depend on that row alone, or on nothing that an attacker reaches: a mean
    over all training rows would let one row move every vote. So features are standardised by the base learner's own
    rows (`partition`), by the defender's clean rows (`clean`) or not at all, never by all training rows.
    """

    certain: ClassVar[bool]
    """Whether the certificate holds for sure, or with a confidence of 1 - alpha over the head's own draws."""

    head: Learner = Field(
        default="exact",
        description="base learner: exact softmax regression, ridge regression on the labels, or nearest class mean",
    )
    ridge: float = Field(default=5e-2, gt=0, allow_inf_nan=False, description="L2 weight of exact and ridge heads")
    shrinkage: float = Field(
        default=0.5,
        ge=0,
        allow_inf_nan=False,
        description="rows at the mean of all, added to each class of a prototype",
    )
    standardise: Standardise = Field(
        default="partition", description="features by mean and deviation of each base learner's rows, or of clean rows"
    )
    unit_length: bool = Field(default=False, description="scale each row to unit length (after clean standardisation)")

    @abstractmethod
    def fit(self, rows: TrainingRows, seed: int = 0) -> FittedCertified:
        """Fit all base learners. The same arguments give the same bytes.

        Args:
            rows: the training rows; never changed.
            seed: of the named stream `defence`, for the heads that draw.

        Raises:
            DataError: too few rows, or `clean` standardisation without clean rows.
        """

    @abstractmethod
    def changes(self, added: int, relabelled: int, replaced: int) -> int:
        """What a radius must reach to cover an attack.

        Args:
            added: rows added (or taken away).
            relabelled: rows that got another label and kept their features.
            replaced: rows that got other features.
        """

    def view(self, rows: TrainingRows) -> Callable[[Tensor], Tensor]:
        """Features float [k, d] to what base learners see of them, float64 [k, d], row by row."""
        scaler = Scaler.of([rows.clean(self.name)[0]]) if self.standardise == "clean" else None

        def view(z: Tensor) -> Tensor:
            x = z.cpu().double()
            x = x if scaler is None else scaler.apply(x)
            return torch.nn.functional.normalize(x, dim=1) if self.unit_length else x

        return view

    def _fitted(self, rows: TrainingRows, groups: Groups) -> Callable[[Tensor], Iterator[Tensor]]:
        """Fit a base learner per group: a function of z [k, d] to blocks of scores, see `score_blocks`.

        An empty group has no vote.
        """
        view = self.view(rows)
        weight = self.heads(view(rows.z), rows.y, rows.classes, groups)[groups.sizes > 0]
        return lambda z: score_blocks(weight, view(z))

    def heads(self, x: Tensor, y: Tensor, classes: int, groups: Groups) -> Tensor:
        """Base learners float64 [P, C, d + 1] on groups of rows x float64 [n, d], which are as `view` makes them."""
        return fit_heads(
            x,
            y,
            classes,
            groups,
            self.head,
            ridge=self.ridge,
            shrinkage=self.shrinkage,
            standardise=self.standardise == "partition",
        )

    def _need(self, rows: TrainingRows, least: int, what: str) -> None:
        if len(rows) < least:
            raise DataError(
                f"{self.name}: at least {least:,} training rows, {what}", got=f"{len(rows):,}", do="ask for fewer"
            )


def score_blocks(weight: Tensor, x: Tensor) -> Iterator[Tensor]:
    """Scores float64 [b, P, C] of heads float64 [P, C, d + 1] on blocks of x float64 [k, d], in order."""
    heads, classes, _ = weight.shape
    slopes, biases = weight[:, :, :-1].flatten(0, 1).T, weight[:, :, -1].flatten()  # [d, P C] and [P C]
    for block in x.split(max(1, BLOCK // (heads * classes))):
        yield (block @ slopes).add_(biases).view(len(block), heads, classes)


def count_votes(scores: Tensor) -> Tensor:
    """Votes int64 [b, C] by scores [b, P, C]; a head whose best classes are equal votes for the smallest."""
    chosen = scores.argmax(2)  # [b, P], the first of equals
    votes = torch.zeros(len(scores), scores.shape[2], dtype=torch.int64)
    return votes.scatter_add_(1, chosen, torch.ones_like(chosen))
