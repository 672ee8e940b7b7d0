"""What the attacker of the labelled data knows, by `AttackerSpec`: the victim's own rows and encoder, or less."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from foretaste.audit.attacker import AttackerSpec
from foretaste.audit.parts import Note
from foretaste.data.split import Split, stratified
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache, cached_embed
from foretaste.features.file import FeatureSet
from foretaste.images import Images
from foretaste.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Known:
    """The attacker's view, as the referee keeps it; an attack works on copies.

    Attributes:
        rows: features of the rows that stand for the victim's training rows, of the attacker's own encoder.
        validation: features of the attacker's other rows.
        images: the images of `rows`; None when features come from files.
        encoder: the attacker's: the victim's own, or a surrogate; None likewise.
        victim_rows: the victim's number of training rows, where `rows` are others or fewer; else None.
        surrogate: `encoder` is not the victim's.
    """

    rows: FeatureSet
    validation: FeatureSet
    images: Images | None = None
    encoder: Encoder | None = None
    victim_rows: int | None = None
    surrogate: bool = False


@dataclass(frozen=True, eq=False)
class Loan:
    """Copies for attacks to work on: the encoder and training images as the attacker knows them, and its own images.

    `pool` is the pre-training images, where an attack may add to them; `shadow` those whose features attacks on the
    weights keep, where they are not its own.
    """

    encoder: Encoder
    train: Images
    validation: Images
    pool: Images | None = None
    shadow: Images | None = None

    @property
    def kept(self) -> Images:
        """Images whose features attacks on the weights keep."""
        return self.validation if self.shadow is None else self.shadow


def know(
    spec: AttackerSpec,
    seed: int,
    parts: dict[str, FeatureSet],
    images: Split | None,
    encoder: Encoder | None,
    runtime: Runtime,
    cache: FeatureCache,
    note: Note,
) -> Known:
    """The attacker's view of a pipeline.

    Args:
        spec: what it knows.
        seed: of the split; the named streams are `attacker/subset` and `attacker/surrogate`.
        parts: the victim's features.
        images: the same rows; None when features come from files.
        encoder: the victim's; None likewise.
        runtime: device and precision of the surrogate encoder's passes.
        cache: for its features.
        note: called with the progress.

    Raises:
        SpecError: too few rows of the attacker to be divided.
        EncoderError: the surrogate encoder cannot be built.
    """
    train, own = parts["train"], parts["validation"]
    shown = None if images is None else images.train
    own_images = None if images is None else images.validation
    victim_rows = None if spec.rows == "full" else len(train)
    if spec.rows == "subset":
        chosen, _ = stratified(train.y, len(train.classes), spec.share, seed, "attacker/subset")
        train, shown = _take(train, shown, chosen)
    elif spec.rows == "surrogate":
        half, rest = stratified(own.y, len(own.classes), 0.5, seed, "attacker/surrogate")
        if not len(rest):
            raise SpecError(
                "attacker: rows surrogate with two validation rows of some class",
                got=f"{len(own)} validation rows",
                do="pass a larger validation share",
            )
        (train, shown), (own, own_images) = _take(own, own_images, half), _take(own, own_images, rest)
    if spec.encoder is None:
        return Known(train, own, shown, encoder, victim_rows)
    assert shown is not None
    assert own_images is not None
    surrogate = build(spec.encoder, (shown.pixels.shape[2], shown.pixels.shape[3])).to(runtime.device)
    train, own = (
        FeatureSet(
            cached_embed(surrogate, part, runtime, cache, progress=partial(note, "embed attacker")),
            part.labels,
            part.classes,
            part.name,
        )
        for part in (shown, own_images)
    )
    return Known(train, own, shown, surrogate, victim_rows, surrogate=True)


def lend(known: Known, validation: Images, pool: Images | None = None, shadow: Images | None = None) -> Loan:
    """Copies of what the attacker knows and of its own images: no attack reaches what the referee compares with."""
    assert known.images is not None
    assert known.encoder is not None
    lent = [None if images is None else _copy(images) for images in (pool, shadow)]
    return Loan(copy.deepcopy(known.encoder), _copy(known.images), _copy(validation), *lent)


def _copy(images: Images) -> Images:
    return images.take(torch.arange(len(images)))


def _take(rows: FeatureSet, images: Images | None, chosen: Tensor) -> tuple[FeatureSet, Images | None]:
    return rows.take(chosen), None if images is None else images.take(chosen)
