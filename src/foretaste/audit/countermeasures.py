"""What a defender does to the training rows before the head is fitted: clip them, or drop the outliers among them.

Functions on tensors that see the mixed rows with their labels and reference rows, never which rows are poison. Clipping
to the data range: the countermeasure of Lu et al., arXiv 2402.12626. The filters are the L2 (`sphere`) defence of
Steinhardt, Koh and Liang, "Certified Defenses for Data Poisoning Attacks", NeurIPS 2017, section 3, with a quantile of
clean distances as its radius, and the same rule on the norm alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NORM_QUANTILES = (0.005, 0.995)
CENTROID_QUANTILE = 0.99

Filter = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(z [n, d], y [n], reference z [k, d], reference y [k]) -> bool [n], the rows to keep."""


def clip_features(z: Tensor, reference: Tensor) -> Tensor:
    """Each feature of z [m, d] clipped to its range in the reference rows [k, d]."""
    return z.clamp(reference.amin(0), reference.amax(0))


def clip_channels(pixels: Tensor, reference: Tensor) -> Tensor:
    """Each channel of images uint8 [n, 3, H, W] clipped to its range over all pixels of the reference [k, 3, H, W]."""
    low, high = (bound[:, None, None] for bound in (reference.amin((0, 2, 3)), reference.amax((0, 2, 3))))
    return pixels.clamp(low, high)


def within_norms(z: Tensor, y: Tensor, reference_z: Tensor, reference_y: Tensor) -> Tensor:
    """Rows whose Euclidean norm lies within `NORM_QUANTILES` of the reference norms, ends included; see `Filter`."""
    bounds = torch.tensor(NORM_QUANTILES, dtype=torch.float64)
    low, high = torch.quantile(reference_z.double().norm(dim=1), bounds)
    norms = z.double().norm(dim=1)
    kept: Tensor = (norms >= low) & (norms <= high)
    return kept


def within_centroids(z: Tensor, y: Tensor, reference_z: Tensor, reference_y: Tensor) -> Tensor:
    """Rows no further from the reference centroid of the label they carry than `CENTROID_QUANTILE` of its own rows.

    A label without reference rows has no centroid: all of its rows stay. See `Filter`.
    """
    kept = torch.ones(len(y), dtype=torch.bool)
    for label in reference_y.unique().tolist():
        own = reference_z[reference_y == label].double()
        radius = torch.quantile((own - own.mean(0)).norm(dim=1), CENTROID_QUANTILE)
        mine = y == label
        kept[mine] = (z[mine].double() - own.mean(0)).norm(dim=1) <= radius
    return kept


def spare_classes(kept: Tensor, y: Tensor) -> tuple[Tensor, list[int]]:
    """The rows to keep bool [n], with every class whole that would have lost all of its rows, and those classes."""
    gone = sorted(set(y.tolist()) - set(y[kept].tolist()))
    return kept | torch.isin(y, torch.tensor(gone, dtype=y.dtype)), gone


FILTERS: dict[str, Filter] = {"norm-filtered": within_norms, "centroid-filtered": within_centroids}
CLIPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"clipped": clip_features, "pixel-clipped": clip_channels}
"""Name of `audit.options.COUNTERMEASURES` -> function."""
