"""From a spec to what a victim stands on: load the rows and the encoder, then embed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foretaste import probes as probe_table
from foretaste.audits.methods import listed
from foretaste.audits.parts import Note, divided_parts, embed_parts, feature_parts
from foretaste.audits.setting import Setting
from foretaste.audits.spec import AuditSpec
from foretaste.data import load, split
from foretaste.encoders.build import build
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache
from foretaste.features.file import FeatureSet, check_same
from foretaste.probes.base import ImageProbe, Probe
from foretaste.runtime import Runtime, make_runtime, plain_runtime

PRECISIONS = {
    "float32": ("float32", False),
    "float32-channels-last": ("float32", True),
    "bfloat16": ("bfloat16", False),
    "bfloat16-channels-last": ("bfloat16", True),
}


def silent(stage: str, done: int, total: int) -> None:
    """The default: say nothing."""


def configured_probes(spec: AuditSpec) -> dict[str, Probe | ImageProbe]:
    """The audit's probes by their key in the record.

    Raises:
        SpecError: an unknown probe or field, a probe twice, or one on images as the headline or where there are none.
    """
    probes = [probe_table.configure(p.name, _with_ridge(p.name, p.fields, spec.ridge)) for p in spec.probes]
    names = [probe.name for probe in probes]
    if len(set(names)) < len(names):
        raise SpecError("probes: each one once", got=", ".join(names), do="drop one")
    found: dict[str, Probe | ImageProbe] = dict(zip(names, probes, strict=True))
    on_images = [key for key, probe in found.items() if isinstance(probe, ImageProbe)]
    if on_images and spec.features is not None:
        raise SpecError(
            "probes on features, since the audit starts from a file of them", got=on_images[0], do="drop that probe"
        )
    if on_images[:1] == names[:1]:  # countermeasures and filters work on the headline's training rows as features
        raise SpecError(
            "probes: one on features first, the headline",
            got=f"{names[0]}, which trains on images",
            do="put exact first",
        )
    return found


def load_setting(spec: AuditSpec) -> Setting:
    """Rows and encoder; features only where they come from files.

    Raises:
        ForetasteError: bad data, a bad encoder or a setting that does not fit them.
    """
    runtime, probes = make_runtime(spec.device), configured_probes(spec)
    on_pixels = "pixel-clipped" in spec.countermeasures or any(isinstance(one, ImageProbe) for one in probes.values())
    if spec.features is not None:
        return Setting(feature_parts(spec), probes, spec.ridge, runtime)
    images = split(load(spec.data, data_dir=spec.data_dir, download=spec.download), spec.split)
    encoder = build(spec.encoder, (images.train.pixels.shape[2], images.train.pixels.shape[3]))
    return Setting({}, probes, spec.ridge, runtime, images, encoder.to(runtime.device), on_pixels)


def setting_of_features(
    train: FeatureSet, given: dict[str, FeatureSet], *, probes: Any = ("exact",), ridge: float = 1e-3
) -> Setting:
    """What a victim on features in memory stands on; parts that are not given are split off the training rows.

    Args:
        train: the training rows, and those of parts that are not given.
        given: `validation`, `test` and `clean`, as far as there are some.
        probes: as in `AuditSpec`, the first is the headline.
        ridge: L2 weight of the exact head.

    Raises:
        DataError: parts that do not go together, or too few rows to be divided.
        SpecError: an unknown probe, or one on images.
    """
    for part in given.values():
        check_same(train, part)
    spec = AuditSpec.make({"features": "features", "probes": listed("probes", probes), "ridge": ridge}, "victim")
    parts = divided_parts(train, given, spec.split)
    return Setting(parts, configured_probes(spec), spec.ridge, make_runtime("cpu"))


def embed_setting(spec: AuditSpec, setting: Setting, cache: FeatureCache, note: Note = silent) -> Setting:
    """With the features of every part and the precision that they are computed in.

    Raises:
        SpecError: the attacker has no row.
        EncoderError: the encoder fails on an image.
    """
    runtime = _resolve_precision(spec, setting.runtime)
    parts = embed_parts(setting.split, setting.original, runtime, cache, note)
    return replace(setting, parts=parts, runtime=runtime)


def _with_ridge(name: str, fields: dict[str, object], ridge: float) -> dict[str, object]:
    return {"ridge": ridge, **fields} if name == "exact" else fields


def _resolve_precision(spec: AuditSpec, runtime: Runtime) -> Runtime:
    if spec.precision == "auto":
        return plain_runtime(runtime)
    precision, channels_last = PRECISIONS[spec.precision]
    return replace(runtime, precision=precision, channels_last=channels_last, reason="set in the spec")


def precision_of(runtime: Runtime) -> str:
    """The value of `AuditSpec.precision` that a runtime stands for."""
    return next(name for name, kind in PRECISIONS.items() if kind == (runtime.precision, runtime.channels_last))
