"""Activation clustering (Chen et al., "Detecting Backdoor Attacks by Activation Clustering", 2018, arXiv 1811.03728).

For each label the rows are reduced to ten dimensions and split by 2-means; the paper calls the smaller cluster poison,
and offers the clusters' relative size as a sign of how likely that is. As one score, with a the centre of the smaller
cluster, b that of the larger, and s <= 1/2 the share of rows in the smaller:

    score_i = (1 - 2 s) * ( ||t_i - b|| - ||t_i - a|| ) / ||a - b||,     in [-1, 1]; above 0: in the smaller cluster

so that halves of equal size, as clean rows give them, say nothing. The paper reduces by independent components; PCA
spans the same ten dimensions as its whitening step and is exact (as in common implementations).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

from foretaste.defences.base import Filter, TrainingRows, random_state


class Activation(Filter):
    """On which side of two clusters of its label a row lies, weighed by how unequal the clusters are."""

    name: ClassVar[str] = "activation"
    dimensions: int = Field(default=10, ge=1, description="principal components that are clustered")

    def score(self, rows: TrainingRows, seed: int = 0) -> Tensor:
        """Signed margin, float64 [n] in [-1, 1]; 0 for a label whose rows cannot be split. See `Filter.score`."""
        scores = torch.zeros(len(rows), dtype=torch.float64)
        for _, places in rows.by_label():
            z = rows.z[places].double()
            if bool((z != z[0]).any()):
                scores[places] = self._score(z, random_state(seed))
        return scores

    def _score(self, z: Tensor, state: int) -> Tensor:
        count = min(self.dimensions, *z.shape)
        reduced = PCA(count, random_state=state).fit_transform(z.numpy())  # [n, count]
        clusters = KMeans(2, n_init=10, random_state=state).fit(reduced)
        centres, t = torch.from_numpy(clusters.cluster_centers_), torch.from_numpy(reduced)
        sizes = torch.bincount(torch.from_numpy(clusters.labels_).long(), minlength=2)
        small = int(sizes.argmin())
        far, near = ((t - centres[side]).norm(dim=1) for side in (1 - small, small))
        gap = (centres[0] - centres[1]).norm()
        margin: Tensor = (far - near) / gap.clamp(min=1e-300)
        return margin * (1 - 2 * float(sizes[small]) / len(z))
