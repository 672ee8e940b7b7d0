"""Views of a target: what a victim's augmentation may make of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def views_of(target: Tensor, count: int, random: torch.Generator, noise: float = 0.0) -> Tensor:
    """Uint8 [count, 3, H, W]: the image itself, or random flips and shifts by up to an eighth of its sides.

    Args:
        target: uint8 [3, H, W].
        count: 1 for the image itself.
        random: where flips, shifts and noise are drawn.
        noise: standard deviation, in 1/255, of normal noise on several views.
    """
    if count == 1:
        return target[None]
    height, width = target.shape[1:]
    reach = max(1, min(height, width) // 8)
    padded = pad(target[None].float(), [reach] * 4, mode="replicate")[0].to(torch.uint8)
    top, left, flip = (
        torch.randint(high, (count,), generator=random).tolist() for high in (2 * reach + 1, 2 * reach + 1, 2)
    )
    crops = [padded[:, i : i + height, j : j + width] for i, j in zip(top, left, strict=True)]
    views = torch.stack([crop.flip(-1) if turned else crop for crop, turned in zip(crops, flip, strict=True)])
    if not noise:
        return views
    noisy = views + noise * torch.randn(views.shape, generator=random)
    return noisy.round().clamp(0, 255).to(torch.uint8)
