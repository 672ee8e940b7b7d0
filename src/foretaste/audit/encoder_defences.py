"""The defender's repairs, guards and scans of the encoder: configured, checked before any work, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from foretaste.audit.screening import configured_defences
from foretaste.audit.shared import Shared
from foretaste.audit.spec import AuditSpec
from foretaste.data.split import Split
from foretaste.defences.guards.base import Guard
from foretaste.defences.repairs.base import Repair
from foretaste.defences.scans.base import Scan
from foretaste.defences.scans.run import like, null_files
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import read_state_dict
from foretaste.errors import DataError, SpecError
from foretaste.method import Method
from foretaste.record import digest_of
from foretaste.runtime import digest_tensors

Kept = Repair | Guard | Scan


@dataclass(frozen=True, eq=False)
class EncoderDefences:
    """Defences of the encoder.

    Attributes:
        repairs, guards, scans: by their key in the record.
        other: the defender's second encoder; None: it has none.
        other_features: through it, of the images that guards look at, for all trials.
        null: files of clean encoders.
        null_digests: of their weights, in the same order.
        read: digests of the weights that repairs read from files, by their key.
        spec: how the victim's encoder was built, as the null is.
        shared: what they make of the clean encoder and of the null, for all trials.
        recent: the same of scans on images that are of one run.
    """

    repairs: dict[str, Repair] = field(default_factory=dict)
    guards: dict[str, Guard] = field(default_factory=dict)
    scans: dict[str, Scan] = field(default_factory=dict)
    other: Encoder | None = None
    null: tuple[Path, ...] = ()
    null_digests: tuple[str, ...] = ()
    read: dict[str, str] = field(default_factory=dict)
    spec: EncoderSpec | None = None
    shared: Shared[Any] = field(default_factory=lambda: Shared(256))
    recent: Shared[Any] = field(default_factory=lambda: Shared(8))
    other_features: dict[str, Tensor] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, Kept]:
        """Of the three kinds, by their key."""
        return {**self.repairs, **self.guards, **self.scans}

    def digests(self) -> dict[str, str]:
        """Of what the defender has beside its clean images; nothing where it has nothing."""
        other = {} if self.other is None else {"other encoder": self.other.card.sha256}
        null = {"null": digest_of(list(self.null_digests))} if self.null_digests else {}
        return other | null | {f"checkpoint of {key}": digest for key, digest in self.read.items()}

    def clean_encoders(self, encoder: Encoder, sample: tuple[int, int]) -> Iterator[Encoder]:
        """The null, one encoder at a time: they may be many.

        Args:
            encoder: the victim's, whose architecture they have.
            sample: height and width of the images.
        """
        assert self.spec is not None or not self.null
        for path in self.null:
            assert self.spec is not None
            yield like(encoder, self.spec, path, sample, "null")


def useful(spec: AuditSpec, steered: bool) -> None:
    """Refuse defences of an encoder that could do nothing in this audit, and what no defence would use.

    Args:
        spec: the audit.
        steered: some attack changes the encoder.

    Raises:
        SpecError: as said; or a defence lacks what it cannot do without.
    """
    found = {key: one for key, one in configured_defences(spec).items() if isinstance(one, Kept)}
    if found and spec.features is not None:
        raise SpecError(
            "defences of features, since the audit starts from a file of them",
            got=f"{next(iter(found))}, which needs the encoder",
            do="pass --data and --encoder, or drop that defence",
        )
    if found and not steered:
        key, one = next(iter(found.items()))
        raise SpecError(
            f"attacks that change the encoder, since {key} is a {_kind(one)} of it",
            got=", ".join(attack.name for attack in spec.attacks),
            do="add for instance pacl, or drop that defence",
        )
    if needing := [key for key, one in found.items() if _needs_other(one)]:
        if spec.other is None:
            raise SpecError(
                f"other: a second encoder, of another origin, for {needing[0]}", got="none", do="pass --other"
            )
    elif spec.other is not None:
        raise SpecError(
            "defences that compare two encoders, since there is another one",
            got=", ".join(found) or "none",
            do="add agreement or neighbours, or drop --other",
        )
    if spec.null is not None and not any(isinstance(one, Scan) for one in found.values()):
        raise SpecError(
            "defences with a scan, since there is a null", got=", ".join(found) or "none", do="add one, or drop --null"
        )


def opened(spec: AuditSpec, defences: Mapping[str, Method], images: Split, encoder: Encoder) -> EncoderDefences:
    """The defences of the encoder, with the encoders that they need.

    Args:
        spec: the audit.
        defences: of all kinds, by their key.
        images: the split; the defender's is the clean part.
        encoder: the victim's.

    Raises:
        DataError: the defender has no clean images, or too few.
        SpecError: a repair lacks a field; the null holds nothing, or the victim's own encoder.
        EncoderError: the second encoder or one of the null cannot be used.
        WeightsError: a file that a repair reads cannot be read.
    """
    repairs = {key: one for key, one in defences.items() if isinstance(one, Repair)}
    guards = {key: one for key, one in defences.items() if isinstance(one, Guard)}
    scans = {key: one for key, one in defences.items() if isinstance(one, Scan)}
    if not repairs and not guards and not scans:
        return EncoderDefences()
    for repair in repairs.values():
        repair.check(images.clean)
    sighted = [key for key, scan in scans.items() if "data" in scan.needs]
    # A guard learns from one half of them and is calibrated on the other.
    for key, least in [*((key, 2) for key in guards), *((key, 1) for key in sighted)]:
        if len(images.clean) < least:
            raise DataError(
                f"{key}: at least {least} clean images of the defender's own",
                got=str(len(images.clean)),
                do="keep a share of the data as the clean part (the third number of --split)",
            )
    sample = (images.train.pixels.shape[2], images.train.pixels.shape[3])
    files = () if spec.null is None else tuple(null_files(spec.null))
    found = EncoderDefences(
        repairs,
        guards,
        scans,
        None if spec.other is None else build(spec.other, sample),
        files,
        spec=spec.encoder,
    )
    digests = []
    for path, one in zip(files, found.clean_encoders(encoder, sample), strict=True):
        digests.append(one.card.sha256)
        if one.card.sha256 == encoder.card.sha256:
            raise SpecError("null: clean encoders, none of them the audited one", got=str(path), do="take it out")
    read = {key: digest_tensors(read_state_dict(one.reads).tensors) for key, one in repairs.items() if one.reads}
    return replace(found, null_digests=tuple(digests), read=read)


def _kind(one: Kept) -> str:
    return "repair" if isinstance(one, Repair) else "guard" if isinstance(one, Guard) else "scan"


def _needs_other(one: Kept) -> bool:
    return one.needs_second if isinstance(one, Guard) else isinstance(one, Scan) and "other" in one.needs
