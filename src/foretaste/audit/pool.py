"""The pre-training images of an audit: loaded, thinned, and without a test row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foretaste.audit.spec import AuditSpec
from foretaste.data import load
from foretaste.errors import DataError
from foretaste.images import Images
from foretaste.pretrain.simclr import SimCLR
from foretaste.runtime import generator


@dataclass(frozen=True, eq=False)
class Pool:
    """Clean pre-training images, and how the encoder learns from them.

    Attributes:
        images: none of them a test row of the audit; labels are not used.
        method: settings of the training.
    """

    images: Images
    method: SimCLR

    def poisoned(self, pixels: Tensor) -> Images:
        """The images with poison uint8 [m, 3, H, W] behind them; its labels mean nothing."""
        clean = self.images
        labels = torch.cat([clean.labels, clean.labels.new_zeros(len(pixels))])
        return Images(torch.cat([clean.pixels, pixels]), labels, clean.classes, f"{clean.name} with poison")


def open_pool(spec: AuditSpec, test: Images) -> Pool | None:
    """The pool of an audit, None where its spec has none.

    Args:
        spec: the audit.
        test: the referee's rows; images that equal one are left out, so that no encoder learns from them.

    Raises:
        SpecError: a wrong field of the training.
        DataError: the images cannot be read, or fewer than two are left.
    """
    if spec.pretraining is None:
        return None
    method = SimCLR.configure(**spec.pretraining.fields)
    images = load(spec.pretraining.data, data_dir=spec.data_dir, download=spec.download).train
    kept = torch.ones(len(images), dtype=torch.bool)
    if images.pixels.shape[1:] == test.pixels.shape[1:]:
        unseen = {row.tobytes() for row in test.pixels.numpy()}
        kept = torch.tensor([row.tobytes() not in unseen for row in images.pixels.numpy()])
    rows = kept.nonzero()[:, 0]
    if spec.pretraining.limit is not None and spec.pretraining.limit < len(rows):
        chosen = generator(0, "pretraining").permutation(len(rows))[: spec.pretraining.limit]
        rows = rows[torch.from_numpy(chosen)].sort().values
    if len(rows) < 2:
        raise DataError(f"pretraining {images.name}: two images that are no test rows", got=str(len(rows)))
    return Pool(images.take(rows), method)
