"""The vote of random views, simulated: the target is edited under the guard's own crops, flips and noise."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.defences.guards.views_vote import ViewsVote
from foretaste.defences.surrogates.encoders import EncoderSurrogate
from foretaste.pretrain.views import make_views

VIEWS = 8
"""Views of each target per step, one of them the image itself: all of them are to get the class."""


class Voting(EncoderSurrogate[ViewsVote]):
    """Views as the guard draws them; the plain image, whose class they are held against, is among them."""

    views = VIEWS

    def view(self, target: Tensor, count: int, random: torch.Generator) -> Tensor:
        """The image and count - 1 views of it, uint8 [count, 3, H, W]."""
        views = make_views(target[None].expand(count - 1, -1, -1, -1), self.defence.views, random) * 255
        if self.defence.noise:
            views = views + self.defence.noise * torch.randn(views.shape, generator=random)
        return torch.cat([target[None], views.round().clamp(0, 255).to(torch.uint8)])
