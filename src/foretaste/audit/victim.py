"""`Victim`: an encoder (or features), a training set, the probes fitted on it, and what they say of the test rows.

An attack is a function from a victim to a victim: `poisoned` adds or replaces training rows, `behind` puts another
encoder in front of them. Nothing is changed in place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from foretaste.attacks.results import Corruption, Poisoning
from foretaste.audit.setting import Setting
from foretaste.audit.training import TrainingSet, clean_rows, fit_probes, mix, predict
from foretaste.encoders.base import Encoder
from foretaste.features.embed import embed
from foretaste.heads.fit import LinearHead, fit_head
from foretaste.probes.base import FittedProbe

Stage = Callable[[str], AbstractContextManager[None]]
"""Clock of the stage of that name, see `attempt.Timer`."""


def untimed(stage: str) -> AbstractContextManager[None]:
    """The default clock: none."""
    return nullcontext()


@dataclass(frozen=True, eq=False)
class Victim:
    """A head on an encoder, as its owner trained it.

    Attributes:
        setting: what no attack changes.
        train: what it is trained on.
        test_z: features of the test rows through its encoder, float32 [k, d].
        encoder: its own; None when features come from files.
        seed: of the probes that draw.
    """

    setting: Setting
    train: TrainingSet
    test_z: Tensor
    encoder: Encoder | None = None
    seed: int = 0

    @classmethod
    def clean(cls, setting: Setting) -> Victim:
        """The victim that nobody attacked."""
        return cls(setting, clean_rows(setting), setting.test.z, setting.encoder)

    @cached_property
    def fitted(self) -> dict[str, FittedProbe]:
        """The probes fitted on the training rows, by key, the headline first."""
        own = self.setting
        return fit_probes(own.probes, self.train, own.classes, self.seed, own.runtime, self.encoder)

    @cached_property
    def predictions(self) -> dict[str, Tensor]:
        """Of the fitted probes on the test rows, int64 [k] by key."""
        images = self.setting.images
        return predict(self.setting.probes, self.fitted, self.test_z, None if images is None else images.test.pixels)

    @cached_property
    def head(self) -> LinearHead:
        """The exact head on the training rows."""
        return fit_head(self.train.z, self.train.y, self.setting.classes, self.setting.ridge)

    @property
    def truth(self) -> Tensor:
        """Labels of the test rows, int64 [k]."""
        return self.setting.test.y

    @property
    def used_encoder(self) -> Encoder:
        """Its encoder, where there must be one."""
        assert self.encoder is not None
        return self.encoder

    def predict(self, pixels: Tensor) -> dict[str, Tensor]:
        """What the probes say of images uint8 [k, 3, H, W], int64 [k] by key."""
        z = embed(self.used_encoder, pixels, self.setting.runtime)
        return predict(self.setting.probes, self.fitted, z, pixels)

    def poisoned(self, poisoning: Poisoning, seed: int, stage: Stage = untimed) -> Victim:
        """The victim with poison among its training rows; its features are computed where the poison is images.

        Args:
            poisoning: checked already.
            seed: of the probes that draw.
            stage: a clock.
        """
        with stage("embed"):
            z = poisoning.z
            if poisoning.pixels is not None:
                z = embed(self.used_encoder, poisoning.pixels, self.setting.runtime)
            assert z is not None
        with stage("probes"):
            at = poisoning.base if poisoning.replaces else None
            rows = mix(self.setting, z, poisoning.y, poisoning.pixels, at)
            return replace(self, train=rows, seed=seed).ready()

    def edited(self, corruption: Corruption, seed: int, stage: Stage = untimed) -> Victim:
        """The victim behind its own encoder with other weights, a complete state dict that was checked already."""
        encoder = copy.deepcopy(self.setting.original)
        encoder.body.load_state_dict(corruption.state)
        return self.behind(encoder, seed, stage)

    def behind(self, encoder: Encoder, seed: int, stage: Stage = untimed) -> Victim:
        """The victim trained on the clean training rows behind another encoder.

        Args:
            encoder: the other one.
            seed: of the probes that draw.
            stage: a clock.
        """
        setting, images = self.setting, self.setting.split
        with stage("embed"):
            train, test = (embed(encoder, part.pixels, setting.runtime) for part in (images.train, images.test))
        with stage("probes"):
            return Victim(setting, clean_rows(setting, train), test, encoder, seed).ready()

    def ready(self) -> Victim:
        """The victim with its probes fitted, so that the time is spent here."""
        assert self.predictions
        return self


def poison_features(victim: Victim) -> Tensor:
    """Features of the poison among a victim's training rows, float32 [m, d], in the order of the attack."""
    at = victim.train.at
    return victim.train.z[victim.train.poison] if at is None else victim.train.z[at]
