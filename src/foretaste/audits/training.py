"""How a victim trains: the rows that it fits on, every probe fitted to them, and what the probes say of other rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foretaste.audits.setting import Probes, Setting
from foretaste.encoders.base import Encoder
from foretaste.probes.base import FittedProbe, ImageProbe
from foretaste.runtime import Runtime


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What the victim trains on.

    Attributes:
        z: float32 [N, d]; N is n + m with the clean training rows first, or n where poison replaces some of them.
        y: int64 [N].
        poison: bool [N]; only what is counted afterwards looks at it, no filter does.
        pixels: uint8 [N, 3, H, W], where something works on the images themselves.
        at: training rows that the poison replaces, int64 [m]; None: it is added, or there is none.
    """

    z: Tensor
    y: Tensor
    poison: Tensor
    pixels: Tensor | None = None
    at: Tensor | None = None

    @property
    def poisoned(self) -> bool:
        """Whether any row is poison."""
        return bool(self.poison.any())


def mix(setting: Setting, z: Tensor, y: Tensor, pixels: Tensor | None = None, at: Tensor | None = None) -> TrainingSet:
    """The clean training rows with poison added to them or put in their place.

    Args:
        setting: the victim's.
        z: features of the poison [m, d].
        y: its labels [m].
        pixels: the poison itself, if it is images.
        at: training rows that the poison replaces, int64 [m], each once; None: it is added.
    """
    train = setting.train
    poison = torch.arange(len(train) + (len(y) if at is None else 0)) >= len(train)
    if at is not None:
        poison[at] = True
    if pixels is not None and setting.images is not None and setting.on_pixels:
        pixels = _join(setting.images.train.pixels, pixels, at)
    else:
        pixels = None
    return TrainingSet(_join(train.z, z, at), _join(train.y, y, at), poison, pixels, at)


def clean_rows(setting: Setting, z: Tensor | None = None) -> TrainingSet:
    """The training rows without poison; `z` [n, d]: their features through another encoder than the original."""
    train = setting.train
    pixels = None if setting.images is None else setting.images.train.pixels
    return TrainingSet(train.z if z is None else z, train.y, torch.zeros(len(train), dtype=torch.bool), pixels)


def fit_probes(
    probes: Probes, rows: TrainingSet, classes: int, seed: int, runtime: Runtime, encoder: Encoder | None = None
) -> dict[str, FittedProbe]:
    """Fit every probe.

    Args:
        probes: by key.
        rows: what they are fitted to.
        classes: C.
        seed: of the probes that draw.
        runtime: where to compute.
        encoder: of the features; probes on images start from a copy.
    """
    found = {}
    for key, probe in probes.items():
        if isinstance(probe, ImageProbe):
            assert encoder is not None
            assert rows.pixels is not None
            found[key] = probe.fit(encoder, rows.pixels, rows.y, classes, seed, runtime)
        else:
            found[key] = probe.fit(rows.z, rows.y, classes, seed, runtime)
    return found


def predict(probes: Probes, fitted: dict[str, FittedProbe], z: Tensor, pixels: Tensor | None) -> dict[str, Tensor]:
    """Classes int64 [k] of rows with features z [k, d] and, for probes on images, uint8 pixels [k, 3, H, W]."""
    found = {}
    for key, one in fitted.items():
        rows = pixels if isinstance(probes[key], ImageProbe) else z
        assert rows is not None
        found[key] = one.predict(rows)
    return found


def refit(setting: Setting, z: Tensor, y: Tensor, seed: int) -> Tensor:
    """Test predictions int64 [k] of the headline probe fitted on rows z [n, d] with labels y [n]."""
    key = setting.headline
    rows = TrainingSet(z, y, torch.zeros(len(y), dtype=torch.bool))
    fitted = fit_probes({key: setting.probes[key]}, rows, setting.classes, seed, setting.runtime)
    return fitted[key].predict(setting.test.z)


def _join(clean: Tensor, poison: Tensor, at: Tensor | None) -> Tensor:
    if at is None:
        return torch.cat([clean, poison])
    rows = clean.clone()
    rows[at] = poison
    return rows
