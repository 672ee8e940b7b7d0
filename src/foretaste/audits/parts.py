"""Features of the parts of the data: of images through the encoder, or from files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from foretaste.audits.spec import AuditSpec
from foretaste.data import SplitSpec
from foretaste.data.split import Split, divide
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache, cached_embed
from foretaste.features.file import FeatureSet, check_same, read_features
from foretaste.images import Images
from foretaste.runtime import Runtime

Note = Callable[[str, int, int], None]
"""Called with (stage, done, in all)."""


def embed_parts(
    images: Split, encoder: Encoder, runtime: Runtime, cache: FeatureCache, note: Note
) -> dict[str, FeatureSet]:
    """Features of every part that has rows.

    Raises:
        SpecError: the attacker has no row.
        EncoderError: the encoder fails on an image.
    """
    if not len(images.validation):
        raise _no_validation()
    parts = {}
    for name in ("train", "validation", "clean", "test"):
        part: Images = getattr(images, name)
        if not len(part):
            continue
        z = cached_embed(encoder, part, runtime, cache, progress=partial(note, f"embed {name}"))
        parts[name] = FeatureSet(z, part.labels, part.classes, part.name)
    return parts


def feature_parts(spec: AuditSpec) -> dict[str, FeatureSet]:
    """Features from files; parts that no file gives are split off the training file, as images would be.

    Raises:
        SpecError: the attacker has no row.
        DataError: a file cannot be used, or does not go with the others.
    """
    assert spec.features is not None
    rest = read_features(spec.features)
    given = {}
    for name, path in (("validation", spec.validation), ("test", spec.test)):
        if path is not None:
            given[name] = read_features(path, classes=len(rest.classes))
            check_same(rest, given[name])
    return divided_parts(rest, given, spec.split)


def divided_parts(rest: FeatureSet, given: dict[str, FeatureSet], spec: SplitSpec) -> dict[str, FeatureSet]:
    """The parts that are given, and those that are not, split off the rest as images would be.

    Raises:
        SpecError: the attacker has no row.
        DataError: too few rows to be divided.
    """
    if "test" in given and "validation" in given:
        return {"train": rest, **given}
    parts = _split_features(rest, given, spec)
    if "validation" not in parts:
        raise _no_validation()
    return parts


def _split_features(rest: FeatureSet, given: dict[str, FeatureSet], spec: SplitSpec) -> dict[str, FeatureSet]:
    if "validation" in given:  # the victim has what no part needs
        spec = spec.model_copy(update={"train": spec.train + spec.validation, "validation": 0.0})
    rows = divide(rest.y, rest.classes, spec, rest.name, test="test" not in given)
    own = {name: rest.take(index) for name, index in rows.items() if len(index) and name not in given}
    return {**own, **given}


def _no_validation() -> SpecError:
    return SpecError("split: a validation share above 0", got="0", do="the attacker needs rows of its own")
