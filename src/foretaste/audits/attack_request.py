"""What one attack outside an audit is asked for, and what it is mounted on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from foretaste.attacks.base import Attack, LabelledAttack, PretrainingAttack, TargetedAttack, WeightAttack
from foretaste.audits.auxiliary_data import open_pool
from foretaste.audits.crafted import Order
from foretaste.audits.knowledge import AttackerView
from foretaste.audits.setting import Setting
from foretaste.audits.spec_parts import PretrainingSpec
from foretaste.data import SplitSpec, load, split, whole
from foretaste.data.split import Split
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache, cached_embed
from foretaste.features.file import FeatureSet, check_same, read_features
from foretaste.images import Images
from foretaste.method import describe
from foretaste.runtime import Runtime, make_runtime


@dataclass(frozen=True)
class Request:
    """What an attack is to be run on; see the flags of `foretaste attack`."""

    data: str | None = None
    data_dir: Path | None = None
    download: bool = False
    encoder: dict[str, Any] | None = None
    features: Path | None = None
    pretraining: PretrainingSpec | None = None
    validation: Path | None = None
    budget: float | None = None
    target_index: int | None = None
    target_class: str | None = None
    seed: int = 0
    ridge: float = 1e-3
    split: SplitSpec = field(default_factory=SplitSpec)
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Ground:
    """What an attack is mounted on, and what it is to do there."""

    setting: Setting
    view: AttackerView
    order: Order


def ground_of(method: Attack, request: Request) -> Ground:
    """Load what the attack needs, and no more: nothing is embedded for one that looks at images alone.

    An attack on labelled rows meets all rows that are not test rows as the victim's; without a validation file the
    attacker tunes on them too. One on the weights or on pre-training images meets the parts of the split.

    Raises:
        ForetasteError: data, encoder, target or class that cannot be used.
    """
    match method:
        case LabelledAttack() | TargetedAttack():
            return _of_features(request) if request.features is not None else _of_rows(method, request)
        case WeightAttack() | PretrainingAttack():
            return _of_parts(method, request)
    raise SpecError("an attack of one of the four threats", got=method.name)


def class_of(text: str, classes: tuple[str, ...]) -> int:
    """The class of that number or name.

    Raises:
        SpecError: there is none.
    """
    if text in classes and not text.isdecimal():
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    some = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    raise SpecError(f"--target-class: a number in [0, {len(classes) - 1}] or a name ({some})", got=repr(text))


def _of_features(request: Request) -> Ground:
    assert request.features is not None
    train = read_features(request.features)
    own = train
    if request.validation is not None:
        own = read_features(request.validation, classes=len(train.classes))
        check_same(train, own)
    setting = Setting({"train": train, "validation": own}, {}, request.ridge, make_runtime(request.device))
    return Ground(setting, AttackerView(train, own), Order(request.budget, request.seed))


def _of_rows(method: Attack, request: Request) -> Ground:
    assert request.data is not None
    runtime, cache = make_runtime(request.device), FeatureCache()
    train, test = whole(load(request.data, data_dir=request.data_dir, download=request.download), request.split)
    encoder = _encoder(request, train, runtime)
    own = train
    if request.validation is not None:
        own = load(str(request.validation)).train
        if len(own.classes) != len(train.classes):
            found = f"{len(own.classes)} classes"
            raise SpecError(f"{request.validation}: the {len(train.classes)} classes of the data", got=found)
    parts = {
        name: FeatureSet(cached_embed(encoder, part, runtime, cache), part.labels, part.classes, part.name)
        for name, part in (("train", train), ("validation", own))
    }
    images = Split(train, own, _none_of(train), test)
    setting = Setting(parts, {}, request.ridge, runtime, images, encoder)
    view = AttackerView(parts["train"], parts["validation"], train, own, encoder)
    pairs = (_pair(request, test),) if isinstance(method, TargetedAttack) else ()
    return Ground(setting, view, Order(request.budget, request.seed, pairs))


def _of_parts(method: Attack, request: Request) -> Ground:
    assert request.data is not None
    runtime = make_runtime(request.device)
    images = split(load(request.data, data_dir=request.data_dir, download=request.download), request.split)
    parts = {name: _unembedded(getattr(images, name)) for name in ("train", "validation")}
    setting = Setting(parts, {}, request.ridge, runtime, images)
    view = AttackerView(parts["train"], parts["validation"], images.train, images.validation)
    if isinstance(method, WeightAttack):
        encoder = _encoder(request, images.train, runtime)
        setting, view = replace(setting, encoder=encoder), replace(view, encoder=encoder)
    pair = _pair(request, images.test)
    if request.pretraining is not None:
        pool = open_pool(request.pretraining, images.test, request.data_dir, download=request.download)
        view = replace(view, pool=pool.images)
    return Ground(setting, view, Order(request.budget, request.seed, (pair,)))


def _unembedded(images: Images) -> FeatureSet:
    """The rows without features, for attacks that look at images alone."""
    return FeatureSet(torch.zeros(len(images), 0), images.labels, images.classes, images.name)


def _none_of(images: Images) -> Images:
    return images.take(torch.zeros(0, dtype=torch.int64))


def _encoder(request: Request, images: Images, runtime: Runtime) -> Encoder:
    try:
        spec = EncoderSpec.model_validate(request.encoder)
    except ValidationError as error:
        raise SpecError("--encoder and its flags: an encoder", got=describe(error)) from None
    encoder = build(spec, (images.pixels.shape[2], images.pixels.shape[3]))
    return encoder.to(runtime.device)


def _pair(request: Request, test: Images) -> tuple[int, int]:
    """Test row and wanted class."""
    row = request.target_index
    assert row is not None
    assert request.target_class is not None
    if not 0 <= row < len(test):
        raise SpecError(f"--target-index: a test row in [0, {len(test) - 1}]", got=str(row))
    wanted = class_of(request.target_class, test.classes)
    if int(test.labels[row]) == wanted:
        found = f"its own, {test.classes[wanted]!r}"
        raise SpecError("--target-class: another class than the target's own", got=found, do="pass another")
    return row, wanted
