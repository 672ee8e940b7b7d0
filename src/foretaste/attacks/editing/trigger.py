"""BadEncoder's trigger: an opaque white square near the lower right corner (Jia et al., IEEE S&P 2022)."""

from __future__ import annotations

from torch import Tensor

from foretaste.errors import SpecError

MARGIN = 1
"""Pixels between the square and both borders, as in the paper's public code: rows and columns 21 to 30 of 32."""


def with_square(pixels: Tensor, side: int) -> Tensor:
    """Copies of uint8 images [..., 3, H, W] with a white square of `side` pixels.

    Raises:
        SpecError: the square does not fit within its margin.

    >>> import torch
    >>> with_square(torch.zeros(3, 4, 4, dtype=torch.uint8), 2)[0].tolist()
    [[0, 0, 0, 0], [0, 255, 255, 0], [0, 255, 255, 0], [0, 0, 0, 0]]
    """
    height, width = pixels.shape[-2:]
    if side > min(height, width) - MARGIN:
        raise SpecError(
            f"trigger: a square that fits into {height} x {width} pixels beside a margin of {MARGIN}",
            got=f"{side} pixels",
            do=f"pass at most {min(height, width) - MARGIN}",
        )
    marked = pixels.clone()
    bottom, right = height - MARGIN, width - MARGIN
    marked[..., bottom - side : bottom, right - side : right] = 255
    return marked
