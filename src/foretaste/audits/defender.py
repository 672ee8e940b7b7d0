"""The defender of an audit: its defences, configured and checked before any work, and the evaluators that run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from foretaste.audits.evaluators.base import Evaluator, Faces
from foretaste.audits.evaluators.certified import CertifiedEvaluator
from foretaste.audits.evaluators.filters import FilterEvaluator
from foretaste.audits.evaluators.guards import GuardEvaluator
from foretaste.audits.evaluators.preprocessing import PreprocessingEvaluator
from foretaste.audits.evaluators.repairs import RepairEvaluator
from foretaste.audits.evaluators.scans import NullEncoders, ScanEvaluator
from foretaste.audits.scan_once import null_files
from foretaste.audits.setting import Setting
from foretaste.audits.spec import AuditSpec, MethodSpec
from foretaste.defences import configure
from foretaste.defences.base import Filter
from foretaste.defences.certified.base import CertifiedHead
from foretaste.defences.guards.base import Guard
from foretaste.defences.repairs.base import Repair
from foretaste.defences.scans.base import Scan
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.errors import DataError, SpecError
from foretaste.method import Method

OF_ENCODERS: dict[str, type[Method]] = {"repair": Repair, "guard": Guard, "scan": Scan}
"""Kinds of defences that look at the encoder and not at the training rows."""


@dataclass(frozen=True, eq=False)
class Defender:
    """Who stands between an attack and the victim.

    Attributes:
        preprocessing, filters, certified, repairs, guards, scans: the evaluators, one per kind of defence.
        other: its second encoder, of another origin; None: it has none.
    """

    preprocessing: PreprocessingEvaluator
    filters: FilterEvaluator
    certified: CertifiedEvaluator
    repairs: RepairEvaluator
    guards: GuardEvaluator
    scans: ScanEvaluator
    other: Encoder | None = None

    @property
    def evaluators(self) -> tuple[Evaluator[Any, Any], ...]:
        """Those that have something to run, in the order of the report."""
        every = (self.preprocessing, self.filters, self.certified, self.repairs, self.guards, self.scans)
        return tuple(one for one in every if one.defences)

    def facing(self, faces: Faces) -> tuple[Evaluator[Any, Any], ...]:
        """Those that have something to do where an attack changed the rows, or the encoder."""
        return tuple(one for one in self.evaluators if one.faces == faces)

    def resolved(self, setting: Setting) -> Defender:
        """With certified heads that leave nothing open.

        Raises:
            DataError: too few rows for a count of partitions to be chosen.
        """
        return replace(self, certified=self.certified.resolved(setting))

    def digests(self) -> dict[str, str]:
        """Of what the defender has beside its clean rows; nothing where it has nothing."""
        other = {} if self.other is None else {"other encoder": self.other.card.sha256}
        return other | self.scans.digests() | self.repairs.digests()

    def entries(self) -> list[dict[str, Any]]:
        """Its defences with all their fields, for the identity of trials."""
        return [entry for one in self.evaluators for entry in one.entries()]


def configured_defences(spec: AuditSpec) -> dict[str, Method]:
    """The audit's defences by their key in the record: the name, with the fields that differ from the defaults.

    Raises:
        SpecError: an unknown defence or field, or a defence twice with the same fields.
    """
    defences: list[Method] = [configure(method.name, method.fields) for method in spec.defences]
    found = {MethodSpec.key_of(one): one for one in defences}
    if len(found) < len(defences):
        raise SpecError(
            "defences: each one once", got=", ".join(map(str, spec.defences)), do="drop one, or give it other fields"
        )
    return found


def require_useful(spec: AuditSpec, steered: bool) -> None:
    """Refuse defences of an encoder that could do nothing in this audit, and what no defence would use.

    Args:
        spec: the audit.
        steered: some attack changes the encoder.

    Raises:
        SpecError: as said; or a defence lacks what it cannot do without.
    """
    every = configured_defences(spec)
    found = {key: one for key, one in every.items() if _kind(one)}
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


def defend(spec: AuditSpec, setting: Setting) -> Defender:
    """The defender of an audit, with the encoders that it needs; nothing has run yet, and no features are needed.

    Raises:
        DataError: the defender has no clean images, or too few.
        SpecError: a repair lacks a field; the null holds nothing, or the victim's own encoder.
        EncoderError: the second encoder or one of the null cannot be used.
        WeightsError: a file that a repair reads cannot be read.
    """
    every = configured_defences(spec).items()
    repairs = {key: one for key, one in every if isinstance(one, Repair)}
    guards = {key: one for key, one in every if isinstance(one, Guard)}
    scans = {key: one for key, one in every if isinstance(one, Scan)}
    other, null = None, NullEncoders()
    if repairs or guards or scans:
        _require_clean_images(setting, repairs, guards, scans)
        other = None if spec.other is None else build(spec.other, setting.sample)
        files = () if spec.null is None else tuple(null_files(spec.null))
        null = NullEncoders.opened(files, spec.encoder, setting)
    return Defender(
        PreprocessingEvaluator({name: name for name in spec.countermeasures}),
        FilterEvaluator({key: one for key, one in every if isinstance(one, Filter)}),
        CertifiedEvaluator({key: one for key, one in every if isinstance(one, CertifiedHead)}, spec.budgets),
        RepairEvaluator.opened(repairs),
        GuardEvaluator(guards, other),
        ScanEvaluator(scans, other, null),
        other,
    )


def _require_clean_images(
    setting: Setting, repairs: Mapping[str, Repair], guards: Mapping[str, Guard], scans: Mapping[str, Scan]
) -> None:
    for repair in repairs.values():
        repair.check(setting.clean_images)
    looking = [key for key, scan in scans.items() if "data" in scan.needs]
    # A guard learns from one half of them and is calibrated on the other.
    for key, least in [*((key, 2) for key in guards), *((key, 1) for key in looking)]:
        if len(setting.clean_images) < least:
            raise DataError(
                f"{key}: at least {least} clean images of the defender's own",
                got=str(len(setting.clean_images)),
                do="keep a share of the data as the clean part (the third number of --split)",
            )


def _kind(one: Method) -> str:
    """The kind of a defence of the encoder; empty for one of the rows."""
    return next((name for name, kind in OF_ENCODERS.items() if isinstance(one, kind)), "")


def _needs_other(one: Method) -> bool:
    return one.needs_second if isinstance(one, Guard) else isinstance(one, Scan) and "other" in one.needs
