"""The probes behind one encoder: fitted on its features (or on its images), and what they say of the test rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from foretaste.encoders.base import Encoder
from foretaste.features.embed import embed
from foretaste.heads.fit import LinearHead, fit_head
from foretaste.probes.base import FittedProbe, ImageProbe, Probe
from foretaste.runtime import Runtime

if TYPE_CHECKING:
    from foretaste.audit.pipeline import Pipeline

Probes = Mapping[str, Probe | ImageProbe]
Stage = Callable[[str], AbstractContextManager[None]]
"""Clock of the stage of that name, see `attempt.Timer`."""


@dataclass(frozen=True, eq=False)
class Behind:
    """Probes behind one encoder.

    Attributes:
        encoder: of the features.
        test: features [k, d] of the test rows.
        fitted: by key, the headline first.
        predictions: of the fitted probes on the test rows, int64 [k].
        head: the exact head on the same training rows; None where no guard asks for it.
    """

    encoder: Encoder
    test: Tensor
    fitted: dict[str, FittedProbe]
    predictions: dict[str, Tensor]
    head: LinearHead | None = None


def fit_probes(
    probes: Probes,
    z: Tensor,
    y: Tensor,
    classes: int,
    seed: int,
    runtime: Runtime,
    encoder: Encoder | None = None,
    pixels: Tensor | None = None,
) -> dict[str, FittedProbe]:
    """Fit every probe.

    Args:
        probes: by key.
        z: features [n, d].
        y: labels [n].
        classes: C.
        seed: of the probes that draw.
        runtime: where to compute.
        encoder: of the features; probes on images start from a copy.
        pixels: uint8 [n, 3, H, W], the same rows, for probes on images.
    """
    found = {}
    for key, probe in probes.items():
        if isinstance(probe, ImageProbe):
            assert encoder is not None
            assert pixels is not None
            found[key] = probe.fit(encoder, pixels, y, classes, seed, runtime)
        else:
            found[key] = probe.fit(z, y, classes, seed, runtime)
    return found


def predict(probes: Probes, fitted: dict[str, FittedProbe], z: Tensor, pixels: Tensor | None) -> dict[str, Tensor]:
    """Classes int64 [k] of rows with features z [k, d] and, for probes on images, uint8 pixels [k, 3, H, W]."""
    found = {}
    for key, one in fitted.items():
        rows = pixels if isinstance(probes[key], ImageProbe) else z
        assert rows is not None
        found[key] = one.predict(rows)
    return found


def behind(pipeline: Pipeline, encoder: Encoder, seed: int, stage: Stage) -> Behind:
    """All probes fitted on the clean training rows behind another encoder than the victim's own; `stage` is a clock."""
    images, runtime = pipeline.images, pipeline.runtime
    assert images is not None
    pixels = images.train.pixels
    with stage("embed"):
        train, test = (embed(encoder, part.pixels, runtime) for part in (images.train, images.test))
    with stage("probes"):
        y, classes = pipeline.train.y, pipeline.classes
        fitted = fit_probes(pipeline.probes, train, y, classes, seed, runtime, encoder, pixels)
        head = fit_head(train, y, classes, pipeline.spec.ridge) if pipeline.encoder_defences.guards else None
        return Behind(encoder, test, fitted, predict(pipeline.probes, fitted, test, images.test.pixels), head)


def predicted(pipeline: Pipeline, one: Behind, pixels: Tensor) -> dict[str, Tensor]:
    """What the probes say of other images uint8 [k, 3, H, W], int64 [k] by key."""
    return predict(pipeline.probes, one.fitted, embed(one.encoder, pixels, pipeline.runtime), pixels)


def clean_behind(pipeline: Pipeline) -> Behind:
    """The victim's own encoder and probes."""
    assert pipeline.encoder is not None
    head = pipeline.clean_head if pipeline.encoder_defences.guards else None
    return Behind(pipeline.encoder, pipeline.test.z, pipeline.fitted, pipeline.predictions, head)
