"""What no attack changes: the rows of every part, the encoder as it was found, and how the victim fits its probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from foretaste.data.split import Split
from foretaste.encoders.base import Encoder
from foretaste.features.file import FeatureSet
from foretaste.images import Images
from foretaste.probes.base import ImageProbe, Probe
from foretaste.record import DataEntry, EncoderEntry
from foretaste.runtime import Runtime

Probes = Mapping[str, Probe | ImageProbe]


@dataclass(frozen=True, eq=False)
class Setting:
    """The ground on which a victim stands, with or without an attack.

    Attributes:
        parts: features of train, validation, clean and test through the encoder as it was found; a part may be
            missing when features come from files.
        probes: by their key in the record, the headline first.
        ridge: L2 weight of the exact head, and of the head that attacks assume.
        runtime: device and precision.
        images: the same rows as images; None when features come from files.
        encoder: as it was found; None likewise.
        on_pixels: whether the victim does something with the training images themselves.
    """

    parts: dict[str, FeatureSet]
    probes: Probes
    ridge: float
    runtime: Runtime
    images: Split | None = None
    encoder: Encoder | None = None
    on_pixels: bool = False

    @property
    def train(self) -> FeatureSet:
        """The clean training rows."""
        return self.parts["train"]

    @property
    def test(self) -> FeatureSet:
        """The referee's rows; nothing outside `audit` sees them."""
        return self.parts["test"]

    @property
    def clean(self) -> FeatureSet | None:
        """The defender's own clean rows; None: it has none."""
        return self.parts.get("clean")

    @property
    def classes(self) -> int:
        """C."""
        return len(self.train.classes)

    @property
    def headline(self) -> str:
        """Key of the first probe."""
        return next(iter(self.probes))

    @property
    def split(self) -> Split:
        """The rows as images, where there must be some."""
        assert self.images is not None
        return self.images

    @property
    def original(self) -> Encoder:
        """The encoder as it was found, where there must be one."""
        assert self.encoder is not None
        return self.encoder

    @property
    def clean_images(self) -> Images:
        """The defender's own clean images."""
        return self.split.clean

    @property
    def sample(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.split.train.pixels.shape[2:]
        return height, width

    def inputs(self) -> dict[str, str]:
        """Digests of the rows and of the encoder; the same on every machine."""
        if self.images is None or self.encoder is None:
            return {name: part.digest for name, part in self.parts.items()}
        images = {name: getattr(self.images, name).digest for name in self.parts}
        return {**images, "encoder": self.encoder.card.sha256}

    def data_entry(self) -> DataEntry:
        """The record's entry about the data."""
        counts = torch.bincount(self.test.y, minlength=self.classes)
        return DataEntry(
            name=self.train.name,
            digest=self.train.digest if self.images is None else self.images.train.digest,
            classes=list(self.train.classes),
            rows={name: len(part) for name, part in self.parts.items()},
            chance=float(counts.max() / counts.sum()),
        )

    def encoder_entry(self) -> EncoderEntry | None:
        """The record's entry about the encoder."""
        if self.encoder is None:
            return None
        card = self.encoder.card
        return EncoderEntry(
            name=card.name,
            architecture=card.architecture,
            d=card.d,
            sha256=card.sha256,
            input_size=card.input_size,
            source=card.source,
            licence=card.licence,
            dropped_keys=list(card.dropped_keys),
        )
