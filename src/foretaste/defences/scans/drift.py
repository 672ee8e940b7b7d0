"""Drift: what changed against the original, and who moved.

With the original f at hand nothing about the suspect f' is hidden: which tensors differ, how alike the two see the
user's images (linear CKA per block, see `cka`), and which single images moved towards which class. An edit for one
target (PA-CL, Chen et al., IEEE TIFS 2024) moves one image much more than all others; honest further training moves
all of them alike. In standard units of each encoder, with m_c the mean of class c,

    gain_i = max over c != y_i of  cos(f'(x_i), m'_c) - cos(f(x_i), m_c)
    score  = (max_i gain_i - median) / (1.4826 MAD)

so that the score is how far the most moved image stands out, whatever the size of the drift. This score is ours.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from foretaste.defences.scans.base import Finding, Need, Progress, Scan, Scene, prominence, quiet, standardised
from foretaste.defences.scans.changes import changed_tensors
from foretaste.defences.scans.cka import Estimator, activations, linear_cka
from foretaste.encoders.base import Encoder
from foretaste.errors import DataError
from foretaste.images import Images

NOTHING = 1e-6
"""Gain below which an image has not moved: rounding of features."""


class Drift(Scan):
    """What changed against the original: tensors, similarity per block, and the images that moved to another class."""

    name: ClassVar[str] = "drift"
    needs: ClassVar[tuple[Need, ...]] = ("data", "reference")
    scores_inputs: ClassVar[bool] = True
    top: int = Field(default=10, ge=1, description="most moved images in the evidence")
    images: int = Field(default=512, ge=4, description="images that the similarity of blocks is computed on, at most")
    estimator: Estimator = Field(
        default="unbiased", description="of CKA; biased: the paper's, near 1 for few images and many activations"
    )

    def scan(self, encoder: Encoder, scene: Scene, seed: int = 0, progress: Progress = quiet) -> Finding:
        """Compare with the reference, see `Scan.scan`; `inputs` are the gains.

        Raises:
            DataError: no images, no reference, or images of one class only.
        """
        images, reference = scene.require_images(self.name), scene.require(self.name, "reference")
        tensors = changed_tensors(reference.body, encoder.body)
        before = similarities(scene.features(reference, self.name), images)
        after = similarities(scene.features(encoder, self.name), images)
        gains, towards = moved(before, after, images.labels)
        score = prominence(gains, NOTHING)
        return Finding(
            score,
            gains,
            {
                "tensors": len(reference.body.state_dict()),
                "changed": [{"name": name, "relative": relative} for name, relative in tensors],
                "cka": self._alike(encoder, reference, images, scene) if scene.evidence else {},
                "median_gain": float(gains.median()),
                "top": _told(gains, towards, before, after, images, self.top),
            },
            towards=towards,
        )

    def _alike(self, encoder: Encoder, reference: Encoder, images: Images, scene: Scene) -> dict[str, float]:
        rows = torch.linspace(0, len(images) - 1, min(self.images, len(images))).round().long()  # spread, not drawn
        one, two = (activations(each, images.pixels[rows], scene.runtime) for each in (reference, encoder))
        return {name: linear_cka(one[name], two[name], self.estimator) for name in one if name in two}


def similarities(z: Tensor, images: Images) -> Tensor:
    """Cosine of each row of z [n, d], in standard units, with each class mean: float64 [n, C]; NaN for no such row."""
    x = standardised(z)
    held = torch.zeros(len(images.classes), x.shape[1], dtype=x.dtype).index_add_(0, images.labels, x)
    counts = torch.bincount(images.labels, minlength=len(images.classes))
    cosines = normalize(x, dim=1) @ normalize(held / counts.clamp(min=1)[:, None], dim=1).T
    return torch.where(counts > 0, cosines, torch.nan)


def moved(before: Tensor, after: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How much nearer each image came to a class that is not its own: the largest gain [n], and that class [n].

    Args:
        before: [n, C] under the reference, as of `similarities`.
        after: the same under the suspect.
        labels: int64 [n].

    Raises:
        DataError: all images are of one class.
    """
    gains = (after - before).nan_to_num(nan=-torch.inf)
    gains = gains.scatter(1, labels[:, None], -torch.inf)
    best, towards = gains.max(1)
    if not bool(best.isfinite().all()):
        raise DataError("drift: images of two classes at least", got="one", do="pass more of your data")
    return best, towards


def _told(
    gains: Tensor, towards: Tensor, before: Tensor, after: Tensor, images: Images, top: int
) -> list[dict[str, Any]]:
    rows = gains.argsort(descending=True, stable=True)[:top].tolist()
    return [
        {
            "index": row,
            "label": images.classes[int(images.labels[row])],
            "towards": images.classes[(c := int(towards[row]))],
            "gain": float(gains[row]),
            "cosine_before": float(before[row, c]),
            "cosine_after": float(after[row, c]),
        }
        for row in rows
    ]
