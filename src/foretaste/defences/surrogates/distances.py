"""Stand-ins of the filters by distance: sphere, slab, norm and the spectral signature."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.defences.base import TrainingRows, centroids
from foretaste.defences.filters.norm import Norm
from foretaste.defences.filters.slab import Slab
from foretaste.defences.filters.spectral import Spectral, top_direction
from foretaste.defences.filters.sphere import Sphere
from foretaste.defences.surrogates.filters import INSIDE, FilterSurrogate


class SphereSurrogate(FilterSurrogate[Sphere]):
    """Distance to the clean centroid of the label; its projection is along the ray to that."""

    def learn(self, rows: TrainingRows) -> None:
        """Centroids [C, d]."""
        self.centre = centroids(rows, "all", self.defence.name)

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """Euclidean distance."""
        return _length(z - self.centre.to(z)[y])

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """Rows outside the sphere are pulled to its surface."""
        centre = self.centre[y]
        offset = z.double() - centre
        shrink = self.threshold * (1 - INSIDE) / offset.norm(dim=1).clamp(min=1e-300)
        return torch.where((shrink < 1)[:, None], (centre + offset * shrink[:, None]).to(z), z)


class SlabSurrogate(FilterSurrogate[Slab]):
    """Distance to the clean centroid of the label along the axes between centroids; projected on for two classes."""

    def learn(self, rows: TrainingRows) -> None:
        """Centroids [C, d], and for each label the axes [C, d] of length 1 to the others; 0 where there is none."""
        self.centre = centroids(rows, "all", self.defence.name)
        axes = (self.centre[:, None] - self.centre[None]).nan_to_num(0.0)  # [C, C, d]
        self.axes = axes / axes.norm(dim=2, keepdim=True).clamp(min=1e-300)

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """Largest distance along an axis."""
        return torch.einsum("md,mcd->mc", z - self.centre.to(z)[y], self.axes.to(z)[y]).abs().amax(1)

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """Along the one axis that two classes have; with more of them the nearest row has no closed form."""
        if self.classes != 2:
            return z
        axis = self.axes[y, 1 - y]  # [m, d]
        return _clipped(z, self.centre[y], axis, self.threshold * (1 - INSIDE))


class NormSurrogate(FilterSurrogate[Norm]):
    """Distance of the norm from the clean rows' median norm; its projection makes rows shorter or longer."""

    def learn(self, rows: TrainingRows) -> None:
        """The median norm."""
        self.median = float(rows.z.double().norm(dim=1).median())

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """Absolute difference."""
        return (_length(z) - self.median).abs()

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """Along the ray from 0; a row at 0 has no ray and stays."""
        norms, reach = z.double().norm(dim=1, keepdim=True), self.threshold * (1 - INSIDE)
        wanted = norms.clamp(max(self.median - reach, 0.0), self.median + reach)
        return torch.where((wanted != norms) & (norms > 0), (z.double() * (wanted / norms)).to(z), z)


class SpectralSurrogate(FilterSurrogate[Spectral]):
    """Squared component along the clean rows' top direction of the label; its projection clips that component."""

    def learn(self, rows: TrainingRows) -> None:
        """Origins and directions, [C, d] each."""
        d = rows.z.shape[1]
        self.origin = torch.zeros(rows.classes, d, dtype=torch.float64)
        self.direction = torch.zeros(rows.classes, d, dtype=torch.float64)
        for label, places in rows.by_label():
            z = rows.z[places].double()
            self.direction[label] = top_direction(z - z.mean(0))
            if self.defence.centred:
                self.origin[label] = z.mean(0)

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """Squared projection."""
        return ((z - self.origin.to(z)[y]) * self.direction.to(z)[y]).sum(1).square()

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """Along the direction."""
        return _clipped(z, self.origin[y], self.direction[y], (self.threshold * (1 - INSIDE)) ** 0.5)


def _length(rows: Tensor) -> Tensor:
    """Euclidean norms [m] whose gradient at 0 is 0."""
    return rows.square().sum(1).clamp(min=1e-30).sqrt()


def _clipped(z: Tensor, origin: Tensor, axis: Tensor, reach: float) -> Tensor:
    """Rows z [m, d] moved along their axis [m, d] of length 1 until they are within `reach` of the origin on it."""
    along = ((z.double() - origin) * axis).sum(1, keepdim=True)
    over = along - along.clamp(-reach, reach)
    return torch.where(over != 0, (z.double() - over * axis).to(z), z)
