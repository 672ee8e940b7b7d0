"""Views of a target."""

from __future__ import annotations

import numpy as np
import torch

from foretaste.attacks.editing.augmentations import views_of
from foretaste.runtime import stream


def test_views_are_flips_and_shifts_of_the_image() -> None:
    target = torch.arange(3 * 16 * 16).remainder(251).to(torch.uint8).view(3, 16, 16)
    assert torch.equal(views_of(target, 1, stream(0, "views")), target[None])
    padded = np.pad(target.numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge")
    allowed = {
        padded[:, i : i + 16, j : j + 16][..., ::s].tobytes() for i in range(5) for j in range(5) for s in (1, -1)
    }
    views = views_of(target, 60, stream(0, "views"))
    found = {view.numpy().tobytes() for view in views}
    assert found <= allowed and len(found) > 20
