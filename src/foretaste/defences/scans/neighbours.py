"""Neighbours: images whose neighbourhood under the suspect is not the one that an independent encoder sees.

Two encoders that were trained apart agree roughly on which images are alike; an image that was pulled into another
class has neighbours under the suspect that are far away under the other encoder, and the other way round. With N_f(i)
the k nearest images of i under f (cosine in standard units) and rank_g(i, j) the place of j among all others under g,
from 0, as in trustworthiness and continuity (Venna and Kaski, ICANN 2001):

    score_i = mean of  rank_other(i, j), j in N_suspect(i)  and  rank_suspect(i, j), j in N_other(i),

shifted and scaled so that 0 is the same neighbours and 1 the furthest ones; a random neighbourhood has about 0.5. The
encoder's score is how far the highest of these stands out. The score is ours.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from foretaste.defences.scans.base import Finding, Need, Progress, Scan, Scene, prominence, quiet, standardised
from foretaste.encoders.base import Encoder
from foretaste.errors import DataError

ENTRIES = 2**23
"""Similarities held at once, 64 MiB."""
NOTHING = 1e-6


class Neighbours(Scan):
    """Images whose nearest neighbours disagree with those under an independent encoder; needs no original."""

    name: ClassVar[str] = "neighbours"
    needs: ClassVar[tuple[Need, ...]] = ("data", "other")
    scores_inputs: ClassVar[bool] = True
    k: int = Field(default=10, ge=1, description="neighbours that are looked at")
    top: int = Field(default=10, ge=1, description="most suspicious images in the evidence")

    def scan(self, encoder: Encoder, scene: Scene, seed: int = 0, progress: Progress = quiet) -> Finding:
        """Compare neighbourhoods with those under the other encoder, see `Scan.scan`; `inputs` are the scores.

        Raises:
            DataError: no images, no other encoder, or too few images for k neighbours that are not all others.
        """
        images = scene.require_images(self.name)
        other = scene.features(scene.require(self.name, "other"), self.name)
        scores, nearest = disagreement(scene.features(encoder, self.name), other, self.k)
        rows = scores.argsort(descending=True, stable=True)[: self.top].tolist()
        towards = images.labels[nearest].mode(1).values
        top = [
            {
                "index": row,
                "label": images.classes[int(images.labels[row])],
                "towards": images.classes[int(towards[row])],
                "score": float(scores[row]),
            }
            for row in rows
        ]
        evidence = {"mean_disagreement": float(scores.mean()), "top": top}
        return Finding(prominence(scores, NOTHING), scores, evidence, towards=towards)


def disagreement(one: Tensor, two: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """How far apart the neighbourhoods of each row are under two encoders.

    Args:
        one: [n, d], features of n images.
        two: [n, e], features of the same images under another encoder.
        k: neighbours, at most n - 2.

    Returns:
        float64 [n] in [0, 1], higher for less alike, and the k nearest under the first, int64 [n, k].

    Raises:
        DataError: under k + 2 images.
    """
    n = len(one)
    if n < k + 2:
        raise DataError(f"neighbours: {k + 2} images at least, for k = {k}", got=str(n), do="pass more, or a smaller k")
    x, y = normalize(standardised(one), dim=1), normalize(standardised(two), dim=1)
    parts = [_ranks(x, y, rows, k) for rows in torch.arange(n).split(max(1, ENTRIES // n))]
    ranks, nearest = (torch.cat(part) for part in zip(*parts, strict=True))
    return (ranks - (k - 1) / 2) / (n - 1 - k), nearest


def _ranks(x: Tensor, y: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Mean rank of the neighbours under the other of the two, [b]; the nearest under the first, [b, k]."""
    orders = []
    for z in (x, y):
        cosines = z[rows] @ z.T  # [b, n]
        cosines[torch.arange(len(rows)), rows] = -torch.inf  # itself comes last
        orders.append(cosines.argsort(dim=1, descending=True, stable=True))
    count = torch.arange(len(x)).expand(len(rows), -1)
    places = [torch.empty_like(order).scatter_(1, order, count) for order in orders]  # the inverse permutation
    there, back = places[1].gather(1, orders[0][:, :k]), places[0].gather(1, orders[1][:, :k])
    return (there.double().mean(1) + back.double().mean(1)) / 2, orders[0][:, :k]
