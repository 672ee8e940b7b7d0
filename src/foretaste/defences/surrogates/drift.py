"""Drift, simulated: the target moves no further than it must, and the shadow images' own moves spread.

    penalty = WEIGHT * log( (gain of the target - median gain) / (1.4826 MAD of the gains + FLOOR) )

with gains those of the scan (`scans.drift`) over a batch of shadow images. The attacker has no labels: classes are
clusters of the clean features by k-means, and an image's own class is its cluster.
"""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import normalize

from foretaste.defences.scans.base import prominence
from foretaste.defences.scans.drift import NOTHING, Drift
from foretaste.defences.surrogates.encoders import EncoderSurrogate
from foretaste.encoders.base import Encoder
from foretaste.features.embed import embed
from foretaste.heads.scaler import Scaler

CLUSTERS, IMAGES = 10, 1000
BORDER, WEIGHT, FLOOR = 0.1, 0.1, 0.01


class Drifting(EncoderSurrogate[Drift]):
    """Just over the border, among images that drift as well."""

    border = BORDER

    def learn(self) -> None:
        """Clusters of the shadow images' clean features."""
        self.pixels = self.shadow.pixels[:IMAGES]
        z = embed(self.encoder, self.pixels, self.runtime)
        self.scaler = Scaler.of([z])
        self.clean = self.scaler.apply(z)
        count = min(CLUSTERS, len(z))
        found = KMeans(count, n_init=1, random_state=0).fit(self.clean.numpy())
        self.centres = normalize(torch.from_numpy(found.cluster_centers_).float(), dim=1)

    def gains(self, x: Tensor, clean: Tensor, centres: Tensor) -> Tensor:
        """How much nearer each row of x [n, d] came to a class that is not its own, [n]; all in standard units."""
        before = normalize(clean, dim=1) @ centres.T
        gained = normalize(x, dim=1) @ centres.T - before
        return gained.scatter(1, before.argmax(1, keepdim=True), -torch.inf).amax(1)

    def suspicion(self, z: Tensor, wanted: Tensor, shadow: Tensor, clean: Tensor) -> Tensor:
        """The penalty; the target's gain is its cosine with the wanted class, less a constant that no slope sees."""
        centres = self.centres.to(z)
        gains = self.gains(shadow, clean, centres)
        spread = 1.4826 * (gains - gains.median()).abs().median()
        to_class = normalize(z.mean(0), dim=0) @ normalize(wanted, dim=0)
        return WEIGHT * ((1 + to_class - gains.median()).clamp(min=FLOOR) / (spread + FLOOR)).log()

    def figures(self, encoder: Encoder, targets: Tensor) -> dict[str, float]:
        """The scan's score over the shadow images and the targets, by clusters in the place of classes."""
        pixels = torch.cat([self.pixels, targets])
        x = self.scaler.apply(embed(encoder, pixels, self.runtime))
        clean = torch.cat([self.clean, self.scaler.apply(embed(self.encoder, targets, self.runtime))])
        return {"drift_score": prominence(self.gains(x, clean, self.centres).double(), NOTHING)}
