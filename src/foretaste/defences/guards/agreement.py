"""Agreement of two encoders on an input's neighbours among clean images.

An edit that moves one image moves it in one encoder. In a second encoder of another origin the image stays among its
like, so the two disagree about which clean images it resembles. With N(x) and N'(x) the k nearest clean images of an
input x (Euclidean, standardised features) and p(x), p'(x) the shares of the labels among them:

    labels:      score = 1/2 sum_c |p_c - p'_c|        neighbours:  score = 1 - |N and N'| / k        both in [0, 1]

Deep k-NN (Peri et al. 2020, arXiv 1909.13374) compares neighbours with an input's label; at use time there is no label,
and the second encoder takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from foretaste.defences.guards.base import FittedGuard, Guard, GuardRows, check_inputs
from foretaste.heads.scaler import Scaler
from foretaste.images import Images


class Agreement(Guard):
    """How little two encoders agree on the neighbours of an input among the clean images."""

    name: ClassVar[str] = "agreement"
    needs_second: ClassVar[bool] = True
    k: int = Field(default=20, ge=1, description="neighbours of each input")
    compare: Literal["labels", "neighbours"] = Field(
        default="labels", description="the neighbours' labels, or which images they are (reads no labels)"
    )

    def planned(self, inputs: int, clean: int) -> int:
        """Each image once through both encoders, see `Guard.planned`."""
        return 2 * (inputs + clean)

    def fit(self, context: GuardRows) -> FittedGuard:
        """Index the clean images under both encoders, see `Guard.fit`.

        Raises:
            DataError: fewer than k clean images.
            EncoderError: there is no second encoder.
        """
        second = partial(context.second_features, name=self.name)
        z = second(context.clean.pixels)
        context.enough(self.name, self.k)
        return _Fitted(self, (_Side.of(context.features, context.z), _Side.of(second, z)), context.clean)


@dataclass(frozen=True, eq=False)
class _Side:
    """One encoder with its index of the clean images in standard units."""

    features: Callable[[Tensor], Tensor]
    scaler: Scaler
    index: NearestNeighbors

    @classmethod
    def of(cls, features: Callable[[Tensor], Tensor], z: Tensor) -> _Side:
        scaler = Scaler.of([z])
        return cls(features, scaler, NearestNeighbors(algorithm="brute").fit(scaler.apply(z).numpy()))

    def nearest(self, inputs: Tensor, k: int) -> Tensor:
        """The k nearest clean images, int64 [n, k]."""
        x = self.scaler.apply(self.features(inputs))
        return torch.from_numpy(self.index.kneighbors(x.numpy(), k, return_distance=False).astype(np.int64))


@dataclass(frozen=True, eq=False)
class _Fitted(FittedGuard):
    guard: Agreement
    sides: tuple[_Side, _Side]
    clean: Images

    def score(self, inputs: Tensor) -> Tensor:
        """See `FittedGuard.score`; in [0, 1]."""
        check_inputs(inputs, self.clean)
        if not len(inputs):
            return torch.zeros(0, dtype=torch.float64)
        k = self.guard.k
        one, other = (side.nearest(inputs, k) for side in self.sides)
        if self.guard.compare == "neighbours":
            return 1 - (one[:, :, None] == other[:, None]).sum((1, 2)).double() / k
        votes = [_votes(self.clean.labels[nearest], len(self.clean.classes)) for nearest in (one, other)]
        return (votes[0] - votes[1]).abs().sum(1) / 2


def _votes(labels: Tensor, classes: int) -> Tensor:
    """Shares of the classes among labels int64 [n, k], float64 [n, C]."""
    ones = torch.ones(labels.shape, dtype=torch.float64)
    return torch.zeros(len(labels), classes, dtype=torch.float64).scatter_add_(1, labels, ones) / labels.shape[1]
