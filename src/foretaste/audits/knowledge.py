"""What an attacker knows: the victim's own rows and encoder, or less, and the copies of it that attacks work on."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from foretaste.attacks.knowledge import Knowledge
from foretaste.audits.parts import Note
from foretaste.audits.run_cache import RunCache
from foretaste.audits.setting import Setting
from foretaste.audits.spec_parts import AttackerSpec
from foretaste.data.split import stratified
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache, cached_embed
from foretaste.features.file import FeatureSet
from foretaste.images import Images


@dataclass(frozen=True, eq=False)
class AttackerView:
    """What an attacker is to know, as the referee keeps it; an attack works on copies, see `lend`.

    Attributes:
        rows: features of the rows that stand for the victim's training rows, of the attacker's own encoder.
        validation: features of the attacker's other rows.
        images: the images of `rows`; None when features come from files.
        validation_images: those of `validation`; None likewise.
        encoder: the attacker's: the victim's own, or a surrogate; None likewise.
        victim_rows: the victim's number of training rows, where `rows` are others or fewer; else None.
        surrogate: `encoder` is not the victim's.
        pool: clean pre-training images that attacks may add to; None: there are none.
        shadow: images whose features attacks on the weights keep; None: the attacker's own.
        lent: the copies that attacks work on.
    """

    rows: FeatureSet
    validation: FeatureSet
    images: Images | None = None
    validation_images: Images | None = None
    encoder: Encoder | None = None
    victim_rows: int | None = None
    surrogate: bool = False
    pool: Images | None = None
    shadow: Images | None = None
    lent: RunCache[Knowledge] = field(default_factory=lambda: RunCache(1))

    def lend(self, setting: Setting) -> Knowledge:
        """Copies: no attack reaches what the referee compares with, and no attack is given a test row.

        Features are copied anew for each attack. Images and the encoder are kept, so that an attack can keep what it
        computed of them; see `recall`.
        """
        kept = self.lent.get((), lambda: self._copied(setting))
        return replace(
            kept,
            z=self.rows.z.clone(),
            y=self.rows.y.clone(),
            validation_z=self.validation.z.clone(),
            validation_y=self.validation.y.clone(),
        )

    def recall(self) -> None:
        """Give the next attack new copies: these may have come back changed."""
        self.lent.clear()

    def _copied(self, setting: Setting) -> Knowledge:
        return Knowledge(
            z=self.rows.z,
            y=self.rows.y,
            validation_z=self.validation.z,
            validation_y=self.validation.y,
            classes=setting.classes,
            ridge=setting.ridge,
            runtime=setting.runtime,
            images=_copy(self.images),
            encoder=copy.deepcopy(self.encoder),
            victim_rows=self.victim_rows,
            validation_images=_copy(self.validation_images),
            pool=_copy(self.pool),
            shadow=_copy(self.shadow),
        )


def know(
    spec: AttackerSpec,
    seed: int,
    setting: Setting,
    cache: FeatureCache,
    note: Note,
    pool: Images | None = None,
    shadow: Images | None = None,
) -> AttackerView:
    """The attacker's view of a victim.

    Args:
        spec: what it knows.
        seed: of the split; the named streams are `attacker/subset` and `attacker/surrogate`.
        setting: the victim's.
        cache: for features of the surrogate encoder.
        note: called with the progress.
        pool: clean pre-training images that it may add to.
        shadow: images whose features attacks on the weights keep.

    Raises:
        SpecError: too few rows of the attacker to be divided.
        EncoderError: the surrogate encoder cannot be built.
    """
    train, own, images = setting.train, setting.parts["validation"], setting.images
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
    encoder = setting.encoder
    if spec.encoder is not None:
        assert shown is not None
        assert own_images is not None
        encoder = build(spec.encoder, setting.sample).to(setting.runtime.device)
        train, own = (
            FeatureSet(
                cached_embed(encoder, part, setting.runtime, cache, progress=partial(note, "embed attacker")),
                part.labels,
                part.classes,
                part.name,
            )
            for part in (shown, own_images)
        )
    return AttackerView(
        train, own, shown, own_images, encoder, victim_rows, spec.encoder is not None, pool=pool, shadow=shadow
    )


def _copy(images: Images | None) -> Images | None:
    return None if images is None else images.take(torch.arange(len(images)))


def _take(rows: FeatureSet, images: Images | None, chosen: Tensor) -> tuple[FeatureSet, Images | None]:
    return rows.take(chosen), None if images is None else images.take(chosen)
