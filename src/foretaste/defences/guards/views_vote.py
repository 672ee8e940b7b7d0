"""A vote of random views: a prediction that only holds for the image as it is, pixel for pixel, is suspicious.

An edit that steers one image steers it as the attacker saw it; crops, flips and noise move the image off that point and
back among its like. With c the class that the head gives the plain input, p_v its probabilities of view v of V:

    soft: score = 1 - 1/V sum_v p_v[c]      hard: score = share of views whose largest p_v is not c      both in [0, 1]

Randomised views as a test at use time: Xie et al. (ICLR 2018, arXiv 1711.01991), Cohen et al. (ICML 2019, noise).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from foretaste.defences.guards.base import FittedGuard, Guard, GuardRows, check_inputs
from foretaste.features.embed import embed
from foretaste.pretrain.simclr import recipe
from foretaste.pretrain.views import RECIPES, Views, make_views
from foretaste.runtime import stream

LIGHT = Views(scale=(0.5, 1.0), jitter=0.0, grey=0.0)
"""Crops and flips: an ordinary image mostly keeps its class under these."""


class ViewsVote(Guard):
    """How far the predictions of random views are from the prediction of the plain input."""

    name: ClassVar[str] = "views-vote"
    votes: int = Field(default=16, ge=1, description="V, views of each input")
    views: Annotated[Views, BeforeValidator(recipe)] = Field(
        default=LIGHT, description=f"random views: a name ({', '.join(RECIPES)}) or the fields of `Views`"
    )
    noise: float = Field(default=0.0, ge=0, description="standard deviation of Gaussian noise on a view, in 1/255")
    hard: bool = Field(default=False, description="count views of another class, rather than average probabilities")

    def planned(self, inputs: int, clean: int) -> int:
        """The plain input and its views, see `Guard.planned`."""
        return inputs * (1 + self.votes) + clean

    def fit(self, context: GuardRows) -> FittedGuard:
        """Take the head in use, or fit one to the clean images; see `Guard.fit`."""
        _ = context.used_head  # fitted now and not at the first input
        return _Fitted(self, context)


@dataclass(frozen=True, eq=False)
class _Fitted(FittedGuard):
    guard: ViewsVote
    context: GuardRows

    def score(self, inputs: Tensor) -> Tensor:
        """See `FittedGuard.score`; in [0, 1]. An input's views depend on its place in `inputs`."""
        check_inputs(inputs, self.context.clean)
        if not len(inputs):
            return torch.zeros(0, dtype=torch.float64)
        plain = self._probabilities(self.context.features(inputs)).argmax(1, keepdim=True)  # [n, 1]
        kept = torch.zeros(len(inputs), dtype=torch.float64)
        for vote in range(self.guard.votes):
            p = self._probabilities(embed(self.context.encoder, self._view(inputs, vote), self.context.runtime))
            one = (p.argmax(1, keepdim=True) == plain).double() if self.guard.hard else p.gather(1, plain)
            kept += one[:, 0]
        return 1 - kept / self.guard.votes

    def _view(self, inputs: Tensor, vote: int) -> Tensor:
        """One view of every input, uint8 as an input is."""
        rng = stream(self.context.seed, f"defence/view/{vote}")
        views = make_views(inputs, self.guard.views, rng) * 255
        if self.guard.noise:
            views = views + self.guard.noise * torch.randn(views.shape, generator=rng)
        return views.round().clamp(0, 255).to(torch.uint8)

    def _probabilities(self, z: Tensor) -> Tensor:
        """Float64 [n, C] of the head at features [n, d]."""
        return self.context.used_head.logits(z).double().softmax(1)
