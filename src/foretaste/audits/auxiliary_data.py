"""Images of an audit that are no labelled rows, for pre-training or as shadow set: thinned, without a test row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from foretaste.attacks.budget import share_of
from foretaste.audits.spec_parts import DrawnSpec, PretrainingSpec, ShadowSpec
from foretaste.data import load
from foretaste.errors import BudgetError, DataError, SpecError
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


def open_pool(spec: PretrainingSpec, test: Images, data_dir: Path | None = None, *, download: bool = False) -> Pool:
    """Load and thin the pool.

    Args:
        spec: which images, and how the encoder learns from them.
        test: the referee's rows; images that equal one are left out, so that no encoder learns from them.
        data_dir: as of `data.load`.
        download: likewise.

    Raises:
        SpecError: a wrong field of the training.
        DataError: the images cannot be read, or fewer than two are left.
    """
    method = SimCLR.configure(**spec.fields)
    return Pool(_unseen(spec, "pretraining", test, data_dir, download=download), method)


def open_shadow(spec: ShadowSpec, test: Images, data_dir: Path | None = None, *, download: bool = False) -> Images:
    """Load and thin a shadow set of another origin; images that equal a test row are left out.

    Args:
        spec: which images.
        test: the referee's rows, whose size the images must have.
        data_dir: as of `data.load`.
        download: likewise.

    Raises:
        SpecError: images of another size.
        DataError: the images cannot be read, or fewer than two are left.
    """
    images = _unseen(spec, "shadow", test, data_dir, download=download)
    sizes = [list(part.pixels.shape[2:]) for part in (images, test)]
    if sizes[0] != sizes[1]:
        raise SpecError(
            f"shadow {images.name}: images of {sizes[1][0]} x {sizes[1][1]} pixels, as the audited ones",
            got=f"{sizes[0][0]} x {sizes[0][1]}",
            do="pass images of that size",
        )
    return images


def _unseen(spec: DrawnSpec, what: str, test: Images, data_dir: Path | None, *, download: bool) -> Images:
    """The images of a spec that equal no test row, at most its limit; `what` names them and their draw."""
    images = load(spec.data, data_dir=data_dir, download=download).train
    kept = torch.ones(len(images), dtype=torch.bool)
    if images.pixels.shape[1:] == test.pixels.shape[1:]:
        unseen = {row.tobytes() for row in test.pixels.numpy()}
        kept = torch.tensor([row.tobytes() not in unseen for row in images.pixels.numpy()])
    rows = kept.nonzero()[:, 0]
    if spec.limit is not None and spec.limit < len(rows):
        chosen = generator(0, what).permutation(len(rows))[: spec.limit]
        rows = rows[torch.from_numpy(chosen)].sort().values
    if len(rows) < 2:
        raise DataError(f"{what} {images.name}: two images that are no test rows", got=str(len(rows)))
    return images.take(rows)


def budgeted(budget: float, n: int, pairs: int = 1) -> int:
    """Poisoned images of one run, floor(budget x n) of n pre-training images, at least one for each pair.

    Raises:
        BudgetError: the budget is not a positive number, or leaves fewer.
    """
    rows = share_of(budget, n)
    if rows < pairs:
        raise BudgetError(
            f"budget: a share of the {n} pre-training images that gives one for each of the {pairs} pairs of a run",
            got=f"{budget:g}",
            do=f"pass at least {math.ceil(10_000 * pairs / n) / 10_000:g}",
        )
    return rows
