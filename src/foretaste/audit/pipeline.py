"""The clean pipeline: data, encoder, features and fitted probes, made once and shared by every trial."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from foretaste import probes as probe_table
from foretaste.attacks.base import Knowledge
from foretaste.audit.behind import Behind, Probes, fit_probes, predict
from foretaste.audit.certifying import Vote, resolved, voted_twin
from foretaste.audit.encoder_defences import EncoderDefences, opened
from foretaste.audit.known import Known, Loan, know, lend
from foretaste.audit.parts import Note, embed_parts, feature_parts
from foretaste.audit.pool import Pool, open_pool, open_shadow
from foretaste.audit.retrain import Countered, countered_twin
from foretaste.audit.screening import Screened, configured_defences, screened_twin
from foretaste.audit.shared import Shared
from foretaste.audit.spec import AuditSpec
from foretaste.data import load, split
from foretaste.data.split import Split
from foretaste.defences.base import Filter
from foretaste.defences.certified.base import CertifiedHead
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache
from foretaste.features.file import FeatureSet
from foretaste.heads.fit import LinearHead, fit_head
from foretaste.images import Images
from foretaste.probes.base import FittedProbe, ImageProbe, Probe
from foretaste.record import DataEntry, EncoderEntry
from foretaste.runtime import Runtime, make_runtime, plain_runtime

PRECISIONS = {
    "float32": ("float32", False),
    "float32-channels-last": ("float32", True),
    "bfloat16": ("bfloat16", False),
    "bfloat16-channels-last": ("bfloat16", True),
}


def silent(stage: str, done: int, total: int) -> None:
    """The default: say nothing."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The victim's clean pipeline.

    Attributes:
        spec: the audit, with `precision` resolved.
        parts: features of train, validation, clean and test; a part may be missing when features come from files.
        images: the same rows as images; None when features come from files.
        encoder: None likewise.
        runtime: device and precision.
        probes: by their key in the record, the headline first.
        fitted: the probes fitted on the clean training rows.
        predictions: of the fitted probes on the test rows.
        known: what the attacker of the labelled data knows of all this.
        countered: the headline probe on the clean training rows after each countermeasure that changes them.
        filters: the defender's, by their key in the record.
        screened: what each filter makes of the clean training rows.
        pool: what the encoder goes on learning from; None where no attack on that is part of the audit.
        shadow: images whose features attacks on the weights keep; None: the attacker's own rows.
        runs: of attacks on the encoder that trials share.
        marked: what the clean probes say of the test rows with a trigger on them, by the digest of these images.
        twins: encoders that went on learning without poison, by seed.
        certified: the defender's certified heads, by their key in the record.
        voted: these on the clean training rows.
        encoder_defences: the defender's repairs, guards and scans of the encoder.
        seconds: spent on each stage.
        notes: what the record should say about the pipeline itself.
    """

    spec: AuditSpec
    parts: dict[str, FeatureSet]
    images: Split | None
    encoder: Encoder | None
    runtime: Runtime
    probes: dict[str, Probe | ImageProbe]
    fitted: dict[str, FittedProbe]
    predictions: dict[str, Tensor]
    known: Known
    countered: dict[str, Countered] = field(default_factory=dict)
    filters: dict[str, Filter] = field(default_factory=dict)
    screened: dict[str, Screened] = field(default_factory=dict)
    pool: Pool | None = None
    shadow: Images | None = None
    runs: Shared[Any] = field(default_factory=lambda: Shared(1))
    marked: Shared[dict[str, Tensor]] = field(default_factory=lambda: Shared(4))
    twins: Shared[Behind] = field(default_factory=lambda: Shared(16))
    certified: dict[str, CertifiedHead] = field(default_factory=dict)
    voted: dict[str, Vote] = field(default_factory=dict)
    encoder_defences: EncoderDefences = field(default_factory=EncoderDefences)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def train(self) -> FeatureSet:
        """The victim's training rows."""
        return self.parts["train"]

    @property
    def test(self) -> FeatureSet:
        """The referee's rows; nothing outside `audit` sees them."""
        return self.parts["test"]

    @property
    def headline(self) -> str:
        """Key of the first probe."""
        return next(iter(self.probes))

    @property
    def on_pixels(self) -> bool:
        """Whether the victim does something with the training images themselves."""
        probes = self.probes.values()
        return "pixel-clipped" in self.spec.countermeasures or any(isinstance(probe, ImageProbe) for probe in probes)

    def clean_twin(self, key: str) -> Tensor:
        """Test predictions that a score is compared with: the same probe and countermeasure, without poison."""
        if key in self.countered:
            return self.countered[key].predictions
        # A clip that leaves the clean rows as they are has the headline probe itself as its twin.
        return self.predictions.get(key, self.predictions[self.headline])

    @cached_property
    def clean_head(self) -> LinearHead:
        """The exact head on the clean training rows."""
        return fit_head(self.train.z, self.train.y, self.classes, self.spec.ridge)

    @property
    def classes(self) -> int:
        """C."""
        return len(self.train.classes)

    @cached_property
    def loan(self) -> Loan:
        """What attacks work on. Trials share it, so that an attack can keep what it computed; see `recall`."""
        assert self.images is not None
        return lend(self.known, self.images.validation, None if self.pool is None else self.pool.images, self.shadow)

    def recall(self) -> None:
        """Give the next trial a new loan: this one may have come back changed."""
        self.__dict__.pop("loan", None)

    def knowledge(self) -> Knowledge:
        """What an attack on the labelled data is given: copies, so that no attack can change the victim's own."""
        shown, own = self.known.rows, self.known.validation
        return Knowledge(
            z=shown.z.clone(),
            y=shown.y.clone(),
            validation_z=own.z.clone(),
            validation_y=own.y.clone(),
            classes=self.classes,
            ridge=self.spec.ridge,
            runtime=self.runtime,
            images=None if self.images is None else self.loan.train,
            encoder=None if self.encoder is None else self.loan.encoder,
            victim_rows=self.known.victim_rows,
        )

    def inputs(self) -> dict[str, str]:
        """Digests of everything that a trial starts from; the same on every machine."""
        if self.images is None or self.encoder is None:
            return {name: part.digest for name, part in self.parts.items()}
        images = {name: getattr(self.images, name).digest for name in self.parts}
        own = self.known.encoder
        surrogate = {"attacker encoder": own.card.sha256} if own is not None and self.known.surrogate else {}
        pool = {} if self.pool is None else {"pretraining": self.pool.images.digest}
        shadow = {} if self.shadow is None else {"shadow": self.shadow.digest}
        own_models = self.encoder_defences.digests()
        return {**images, "encoder": self.encoder.card.sha256, **surrogate, **pool, **shadow, **own_models}

    def digests(self) -> dict[str, str]:
        """`inputs`, and the digests of the features that this machine made of them."""
        return self.inputs() | {f"{name} features": part.digest for name, part in self.parts.items()}

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


def configured_probes(spec: AuditSpec) -> dict[str, Probe | ImageProbe]:
    """The audit's probes by their key in the record.

    Raises:
        SpecError: an unknown probe or field, a probe twice, or one on images as the headline or where there are none.
    """
    names = [probe.name for probe in spec.probes]
    if len(set(names)) < len(names):
        raise SpecError("probes: each one once", got=", ".join(names), do="drop one")
    found: dict[str, Probe | ImageProbe] = {
        p.name: probe_table.configure(p.name, _with_ridge(p.name, p.fields, spec.ridge)) for p in spec.probes
    }
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


def prepare(spec: AuditSpec, note: Note = silent) -> Pipeline:
    """Load, embed and fit.

    Raises:
        ForetasteError: bad data, a bad encoder or a setting that does not fit them.
    """
    runtime = make_runtime(spec.device)
    probes, defences = configured_probes(spec), configured_defences(spec)
    filters = {key: one for key, one in defences.items() if isinstance(one, Filter)}
    certified = {key: one for key, one in defences.items() if isinstance(one, CertifiedHead)}
    seconds: dict[str, float] = {}
    notes: list[str] = []
    images, encoder, cache, encoder_defences = None, None, FeatureCache(), EncoderDefences()
    start = perf_counter()
    if spec.features is not None:
        parts = feature_parts(spec)
        seconds["load"] = perf_counter() - start
    else:
        dataset = load(spec.data, data_dir=spec.data_dir, download=spec.download)
        images = split(dataset, spec.split)
        encoder = build(spec.encoder, (images.train.pixels.shape[2], images.train.pixels.shape[3]))
        encoder.to(runtime.device)
        encoder_defences = opened(spec, defences, images, encoder)
        seconds["load"] = perf_counter() - start
        runtime = _resolve_precision(spec, runtime)
        spec = spec.model_copy(update={"precision": _name_of(runtime)})
        start = perf_counter()
        parts = embed_parts(images, encoder, runtime, cache, note)
        seconds["embed"] = perf_counter() - start
    start = perf_counter()
    known = know(spec.attacker, spec.split.seed, parts, images, encoder, runtime, cache, note)
    if not spec.attacker.default:
        seconds["attacker"] = perf_counter() - start
    notes += [cache.problem] if cache.problem else []
    start = perf_counter()
    fitted, predictions = _fit(probes, parts, images, encoder, runtime, note)
    pipeline = Pipeline(
        spec,
        parts,
        images,
        encoder,
        runtime,
        probes,
        fitted,
        predictions,
        known,
        filters=filters,
        pool=_pool(spec, images),
        shadow=_shadow(spec, images),
        certified=certified,
        encoder_defences=encoder_defences,
        notes=tuple(notes),
    )
    twins = countered_twin(pipeline)
    seconds["fit"] = perf_counter() - start
    start = perf_counter()
    screened = screened_twin(pipeline, note)
    pipeline = replace(pipeline, certified=resolved(pipeline))
    voted = voted_twin(pipeline, note)
    if defences:
        seconds["defences"] = perf_counter() - start
    return replace(pipeline, countered=twins, screened=screened, voted=voted, seconds=seconds)


def _fit(
    probes: Probes,
    parts: dict[str, FeatureSet],
    images: Split | None,
    encoder: Encoder | None,
    runtime: Runtime,
    note: Note,
) -> tuple[dict[str, FittedProbe], dict[str, Tensor]]:
    train, test = parts["train"], parts["test"]
    shown, judged = (None, None) if images is None else (images.train.pixels, images.test.pixels)
    fitted: dict[str, FittedProbe] = {}
    for index, (key, probe) in enumerate(probes.items()):
        note("fit", index, len(probes))
        fitted |= fit_probes({key: probe}, train.z, train.y, len(train.classes), 0, runtime, encoder, shown)
    return fitted, predict(probes, fitted, test.z, judged)


def _pool(spec: AuditSpec, images: Split | None) -> Pool | None:
    if spec.pretraining is None or images is None:
        return None
    return open_pool(spec.pretraining, images.test, spec.data_dir, download=spec.download)


def _shadow(spec: AuditSpec, images: Split | None) -> Images | None:
    if spec.shadow is None or images is None:
        return None
    return open_shadow(spec.shadow, images.test, spec.data_dir, download=spec.download)


def _with_ridge(name: str, fields: dict[str, object], ridge: float) -> dict[str, object]:
    return {"ridge": ridge, **fields} if name == "exact" else fields


def _resolve_precision(spec: AuditSpec, runtime: Runtime) -> Runtime:
    if spec.precision == "auto":
        return plain_runtime(runtime)
    precision, channels_last = PRECISIONS[spec.precision]
    return replace(runtime, precision=precision, channels_last=channels_last, reason="set in the spec")


def _name_of(runtime: Runtime) -> str:
    return next(name for name, kind in PRECISIONS.items() if kind == (runtime.precision, runtime.channels_last))
