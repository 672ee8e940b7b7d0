"""The victim's head on the mixed rows, with and without countermeasures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretaste.audit.behind import fit_probes, predict
from foretaste.audit.countermeasures import CLIPS, FILTERS, spare_classes
from foretaste.features.embed import embed
from foretaste.probes.base import FittedProbe
from foretaste.record import Dropped
from foretaste.statistics import wilson

if TYPE_CHECKING:
    from foretaste.audit.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class Mixed:
    """What the victim trains on.

    Attributes:
        z: float32 [N, d]; N is n + m with the clean training rows first, or n where poison replaces some of them.
        y: int64 [N].
        poison: bool [N]; only what is counted afterwards looks at it, no filter does.
        pixels: uint8 [N, 3, H, W], where the poison is images and something works on them.
    """

    z: Tensor
    y: Tensor
    poison: Tensor
    pixels: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Countered:
    """The headline probe after one countermeasure.

    Attributes:
        predictions: on the test rows, int64 [k].
        dropped: shares of the rows that a filter dropped; None for a clip.
        notes: warnings for the record.
    """

    predictions: Tensor
    dropped: Dropped | None = None
    notes: list[str] = field(default_factory=list)


def mix(pipeline: Pipeline, z: Tensor, y: Tensor, pixels: Tensor | None, at: Tensor | None = None) -> Mixed:
    """The clean training rows with poison added to them or put in their place.

    Args:
        pipeline: the victim's.
        z: features of the poison [m, d].
        y: its labels [m].
        pixels: the poison itself, if it is images.
        at: training rows that the poison replaces, int64 [m], each once; None: it is added.
    """
    train = pipeline.train
    poison = torch.arange(len(train) + (len(y) if at is None else 0)) >= len(train)
    if at is not None:
        poison[at] = True
    if pixels is not None and pipeline.images is not None and pipeline.on_pixels:
        pixels = _join(pipeline.images.train.pixels, pixels, at)
    else:
        pixels = None
    return Mixed(_join(train.z, z, at), _join(train.y, y, at), poison, pixels)


def _join(clean: Tensor, poison: Tensor, at: Tensor | None) -> Tensor:
    if at is None:
        return torch.cat([clean, poison])
    rows = clean.clone()
    rows[at] = poison
    return rows


def fit_mixed(pipeline: Pipeline, mixed: Mixed, seed: int) -> dict[str, FittedProbe]:
    """Every probe fitted on the mixed rows."""
    return fit_probes(
        pipeline.probes,
        mixed.z,
        mixed.y,
        pipeline.classes,
        seed,
        pipeline.runtime,
        pipeline.encoder,
        mixed.pixels,
    )


def after(pipeline: Pipeline, fitted: dict[str, FittedProbe]) -> dict[str, Tensor]:
    """Test predictions int64 [k] of probes behind the victim's own encoder."""
    images = pipeline.images
    return predict(pipeline.probes, fitted, pipeline.test.z, None if images is None else images.test.pixels)


def refit(pipeline: Pipeline, z: Tensor, y: Tensor, seed: int) -> Tensor:
    """Test predictions int64 [k] of the headline probe fitted on rows z [n, d] with labels y [n]."""
    key = pipeline.headline
    fitted = fit_probes({key: pipeline.probes[key]}, z, y, pipeline.classes, seed, pipeline.runtime)
    return fitted[key].predict(pipeline.test.z)


def countered(pipeline: Pipeline, mixed: Mixed, seed: int) -> dict[str, Countered]:
    """The headline probe after each countermeasure of the audit, by score key (`exact, clipped`).

    A clip that changes nothing gives no score: it would be the headline's own. A filter always gives one, since what it
    drops of the clean rows is its price.
    """
    found = {}
    for name in pipeline.spec.countermeasures:
        key = pipeline.headline
        if name in FILTERS:
            result = _filtered(pipeline, name, mixed, seed)
        else:
            z = _clipped(pipeline, mixed) if name == "clipped" else _clipped_images(pipeline, mixed)
            if z is None or torch.equal(z, mixed.z):
                continue
            result = Countered(refit(pipeline, z, mixed.y, seed))
        found[f"{key}, {name}"] = result
    return found


def countered_twin(pipeline: Pipeline) -> dict[str, Countered]:
    """The same on the clean training rows: what each countermeasure costs where there is no poison."""
    images = pipeline.images
    no_rows, no_labels = pipeline.train.z[:0], pipeline.train.y[:0]
    return countered(pipeline, mix(pipeline, no_rows, no_labels, images.train.pixels[:0] if images else None), seed=0)


def _clipped(pipeline: Pipeline, mixed: Mixed) -> Tensor:
    # The range is that of the clean training rows themselves (the data range of the paper): clipping leaves them as
    # they are. A defender who does not know which rows are clean can only come near it.
    z = mixed.z.clone()
    z[mixed.poison] = CLIPS["clipped"](z[mixed.poison], pipeline.train.z)
    return z


def _clipped_images(pipeline: Pipeline, mixed: Mixed) -> Tensor | None:
    """Features after the channels are clipped; only images that this changes are embedded again."""
    if mixed.pixels is None or pipeline.images is None or pipeline.encoder is None:
        return None
    own = pipeline.images.clean.pixels
    pixels = CLIPS["pixel-clipped"](mixed.pixels, own if len(own) else mixed.pixels)
    changed = (pixels != mixed.pixels).flatten(1).any(1)
    z = mixed.z.clone()
    if bool(changed.any()):
        z[changed] = embed(pipeline.encoder, pixels[changed], pipeline.runtime)
    return z


def _filtered(pipeline: Pipeline, name: str, mixed: Mixed, seed: int) -> Countered:
    own = pipeline.parts.get("clean")
    reference_z, reference_y = (mixed.z, mixed.y) if own is None else (own.z, own.y)
    kept, spared = spare_classes(FILTERS[name](mixed.z, mixed.y, reference_z, reference_y), mixed.y)
    notes = [f"{name}: every row of class {label} would have been dropped; they were kept" for label in spared]
    poison, lost = mixed.poison, ~kept
    dropped = Dropped(
        reference="mixed training rows" if own is None else "defender's clean rows",
        clean=wilson(int((lost & ~poison).sum()), int((~poison).sum())),
        poison=wilson(int((lost & poison).sum()), int(poison.sum())) if bool(poison.any()) else None,
    )
    return Countered(refit(pipeline, mixed.z[kept], mixed.y[kept], seed), dropped, notes)
