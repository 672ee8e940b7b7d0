"""`Victim`: an encoder (or features), a training set, the probes fitted on it, and what they say of the test rows.

An attack is a function from a victim to a victim: `poisoned_by` adds or replaces training rows, `edited_by` changes the
weights of the encoder. Nothing is changed in place, and the referee looks at every result first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.audits.auxiliary_data import Pool
from foretaste.audits.crafted import Crafted
from foretaste.audits.inputs import embed_setting, load_setting, setting_of_features
from foretaste.audits.methods import listed
from foretaste.audits.referee import judge, require
from foretaste.audits.setting import Setting
from foretaste.audits.spec import AuditSpec
from foretaste.audits.training import TrainingSet, clean_rows, fit_probes, mix, predict
from foretaste.encoders.base import Encoder
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import DataError, SpecError
from foretaste.features.cache import FeatureCache
from foretaste.features.embed import embed
from foretaste.features.file import Array, features_of
from foretaste.heads.fit import LinearHead, fit_head
from foretaste.method import Method
from foretaste.pretrain.continued import continued
from foretaste.pretrain.simclr import SimCLR
from foretaste.probes.base import FittedProbe
from foretaste.record import Estimate
from foretaste.runtime import fixed_threads
from foretaste.statistics import wilson

Methods = str | type[Method] | Method | Sequence[str | type[Method] | Method]
"""One method or several, each as a name, a class or a configured value."""
Stage = Callable[[str], AbstractContextManager[None]]
"""Clock of the stage of that name, see `attempt.Timer`."""


DOORS = {Poisoning: "poisoned_by", Corruption: "edited_by", PretrainingPoison: "pretrained_by"}
"""Result of an attack -> what of a victim takes it."""


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
        encoder: its own; None when features come from memory or from files.
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

    @classmethod
    @fixed_threads()
    def from_features(
        cls,
        X: Array,
        y: Array,
        *,
        validation: tuple[Array, Array] | None = None,
        test: tuple[Array, Array] | None = None,
        clean: tuple[Array, Array] | None = None,
        classes: Sequence[str] | None = None,
        probes: Methods = ("exact",),
        ridge: float = 1e-3,
    ) -> Victim:
        """A victim on features of any modality; arrays are of numpy or torch, and are copied.

        Args:
            X: features of the training rows, float [n, d], n >= 2, finite.
            y: their labels, integers in [0, C), [n].
            validation: features and labels of the attacker's own rows; None: 40 % of the rows above.
            test: those of the referee's rows, which no attack sees; None: 20 % of the rows above.
            clean: those of the defender's own clean rows; None: 10 % of the rows above if one of the others is split
                off as well, else none.
            classes: names by label; None: their numbers.
            probes: the victim's heads: names as in `foretaste audit --probes`, classes or configured values; the first
                is the headline.
            ridge: L2 weight of the exact head, above 0.

        Raises:
            DataError: a wrong shape or dtype, NaN or infinity, labels outside the classes, or parts that do not go
                together.
            SpecError: an unknown probe, or one that trains on images.

        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> y = np.arange(300) % 3
        >>> X = random.normal(size=(300, 5)) + np.eye(3, 5)[y] * 3
        >>> Victim.from_features(X, y).accuracy.n
        60
        """
        own = features_of(X, y, classes, "training rows", "features", keys=("X", "y"))
        parts = {"validation": validation, "test": test, "clean": clean}
        given = {
            name: features_of(*_pair(name, part), own.classes, name, name, classes=len(own.classes), keys=("X", "y"))
            for name, part in parts.items()
            if part is not None
        }
        return cls.clean(setting_of_features(own, given, probes=probes, ridge=ridge)).ready()

    @classmethod
    @fixed_threads()
    def from_data(cls, data: str | Path = "digits", encoder: Any = None, **settings: Any) -> Victim:
        """A victim on images, as `foretaste audit --data DATA --encoder ENCODER` makes it.

        Args:
            data: name of a data set, an .npz file or an image folder.
            encoder: name of an encoder, `timm:NAME`, a weight file, or keys of an `EncoderSpec`; None: that of the
                digits, for the digits.
            settings: further keys of an audit: split, probes, ridge, data_dir, download, device, precision.

        Raises:
            SpecError: a key or value that an audit does not have.
            DataError: the data cannot be read.
            EncoderError: the encoder cannot be built, or breaks its contract.
        """
        allowed = ("split", "probes", "ridge", "data_dir", "download", "device", "precision")
        if wrong := [key for key in settings if key not in allowed]:
            raise SpecError(f"Victim.from_data: settings among {', '.join(allowed)}", got=wrong[0])
        if not isinstance(data, str | Path):
            raise SpecError(
                "Victim.from_data: data: a name, an .npz file or a folder",
                got=f"a {type(data).__name__}",
                do="save arrays with numpy.savez, or pass features to Victim.from_features",
            )
        if not isinstance(encoder, str | Path | dict | EncoderSpec | None):
            raise SpecError(
                "Victim.from_data: encoder: a name, a file or keys of an EncoderSpec",
                got=f"a {type(encoder).__name__}",
                do="name your code, as in encoder='mine.py:make'",
            )
        encoder = str(encoder) if isinstance(encoder, Path) else encoder
        if "probes" in settings:
            settings["probes"] = listed("probes", settings["probes"])
        values = {"data": str(data), **({} if encoder is None else {"encoder": encoder}), **settings}
        spec = AuditSpec.make(values, "Victim.from_data")
        return cls.clean(embed_setting(spec, load_setting(spec), FeatureCache())).ready()

    def __repr__(self) -> str:
        rows, data = len(self.train.y), self.setting.train
        encoder = "" if self.setting.encoder is None else f", {self.setting.encoder.card.name}"
        edited = ", edited" if self.encoder is not self.setting.encoder else ""
        poison = f", {int(self.train.poison.sum())} of them poison" if self.train.poisoned else ""
        test, classes = len(self.setting.test), self.setting.classes
        return (
            f"Victim({data.name!r}{encoder}{edited}, {rows} training rows{poison}, {test} test rows, {classes} classes)"
        )

    @cached_property
    @fixed_threads()
    def fitted(self) -> dict[str, FittedProbe]:
        """The probes fitted on the training rows, by key, the headline first."""
        own = self.setting
        return fit_probes(own.probes, self.train, own.classes, self.seed, own.runtime, self.encoder)

    @cached_property
    @fixed_threads()
    def predictions(self) -> dict[str, Tensor]:
        """Of the fitted probes on the test rows, int64 [k] by key."""
        images = self.setting.images
        return predict(self.setting.probes, self.fitted, self.test_z, None if images is None else images.test.pixels)

    @cached_property
    @fixed_threads()
    def head(self) -> LinearHead:
        """The exact head on the training rows."""
        return fit_head(self.train.z, self.train.y, self.setting.classes, self.setting.ridge)

    @property
    def truth(self) -> Tensor:
        """Labels of the test rows, int64 [k]."""
        return self.setting.test.y

    @property
    def accuracy(self) -> Estimate:
        """Share of the test rows that the headline probe gets right, with Wilson's interval at 95 %."""
        right = self.predictions[self.setting.headline] == self.truth
        return wilson(int(right.sum()), len(right))

    @property
    def attacked(self) -> bool:
        """Whether it trains on poison, or behind another encoder than its setting's."""
        return self.train.poisoned or self.encoder is not self.setting.encoder

    @property
    def used_encoder(self) -> Encoder:
        """Its encoder.

        Raises:
            SpecError: it is a victim on features, without one.
        """
        if self.encoder is None:
            raise SpecError("a victim with an encoder", got="one on features", do="use Victim.from_data")
        return self.encoder

    @fixed_threads()
    def predict(self, pixels: Tensor) -> dict[str, Tensor]:
        """What the probes say of images uint8 [k, 3, H, W], int64 [k] by key.

        Raises:
            SpecError: it is a victim on features.
            EncoderError: the encoder fails on such images.
        """
        z = embed(self.used_encoder, pixels, self.setting.runtime)
        return predict(self.setting.probes, self.fitted, z, pixels)

    @fixed_threads()
    def poisoned_by(self, poison: Crafted) -> Victim:
        """The victim with the poison among its training rows, its probes fitted anew; the referee looks first.

        Args:
            poison: what `foretaste.attack` gave, of an attack on the training rows.

        Raises:
            RefereeError: the poison breaks its budget, range, constraint or ledger.
            SpecError: it is no poison of training rows, or was made for other ones.
        """
        result = self._passed(poison, Poisoning, "rows of the training data")
        return self.poisoned(result, poison.order.seed)

    @fixed_threads()
    def edited_by(self, edit: Crafted) -> Victim:
        """The victim behind the edited encoder, its probes fitted anew; the referee looks first.

        Args:
            edit: what `foretaste.attack` gave, of an attack on the weights.

        Raises:
            RefereeError: keys, shapes or ledger are not as promised, or a weight is not finite.
            SpecError: it is no edit of an encoder, or was made for another one.
        """
        return self.edited(self._passed(edit, Corruption, "an edit of an encoder"), edit.order.seed)

    @fixed_threads()
    def pretrained_by(self, poison: Crafted, *, poisoned: bool = True, **fields: Any) -> Victim:
        """The victim whose encoder went on learning from images with the poison among them; the referee looks first.

        Compare it with the one whose encoder went on learning as long without poison (`poisoned=False`): what more
        pre-training does by itself is no success of the attack.

        Args:
            poison: what `foretaste.attack` gave, of an attack on pre-training images.
            poisoned: with the poison, or from the clean images alone.
            fields: of the training, as in `foretaste list simclr`: epochs, lr, batch ...

        Raises:
            RefereeError: the poison breaks its budget, form, shares or ledger.
            SpecError: it is no poison of pre-training images, or was made for another victim; an unknown field.
            EncoderError: the training diverged.
        """
        result = self._passed(poison, PretrainingPoison, "pre-training images")
        assert poison.view.pool is not None
        pool = Pool(poison.view.pool, SimCLR.configure(**fields))
        images = pool.poisoned(result.pixels) if poisoned else pool.images
        seed, setting = poison.order.seed, self.setting
        encoder = continued(setting.original, images, pool.method, seed, setting.runtime)
        return self.behind(encoder, seed)

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

    def _passed(self, made: Crafted, kind: type[Any], expected: str) -> Any:
        if not isinstance(made, Crafted):
            raise SpecError(f"{expected}, as foretaste.attack gives it", got=type(made).__name__)
        if not isinstance(made.result, kind):
            raise SpecError(
                expected, got=f"what {made.attack.name} gives", do=f"pass it to `{DOORS[type(made.result)]}`"
            )
        if self.attacked:
            raise SpecError("a victim that nobody has attacked", got=repr(self), do="use the one before")
        if made.setting.inputs() != self.setting.inputs():
            raise SpecError("an attack on this victim", got="one made for other rows or another encoder")
        require(judge(self.setting, made))
        return made.result


def poison_features(victim: Victim) -> Tensor:
    """Features of the poison among a victim's training rows, float32 [m, d], in the order of the attack."""
    at = victim.train.at
    return victim.train.z[victim.train.poison] if at is None else victim.train.z[at]


def _pair(name: str, part: Any) -> tuple[Array, Array]:
    """Features and labels of one of the further parts."""
    if not isinstance(part, tuple | list) or len(part) != 2:
        got = f"{len(part)} of them" if isinstance(part, tuple | list) else f"a {type(part).__name__}"
        raise DataError(f"{name}: a pair of features and labels", got=got, do=f"pass {name}=(X, y)")
    return part[0], part[1]
