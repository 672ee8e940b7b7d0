"""Foretaste: how much poison can a pre-trained encoder and the head on top of it take?

Importing this package imports neither torch nor scikit-learn; each name below is imported when it is first used.

>>> import foretaste as ft
>>> "exact" in [attack.name for attack in ft.list_attacks()]
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foretaste.version import __version__

_PLACES = {
    # What one does.
    "attack": "api.attack",
    "audit": "api.audit",
    "compare": "api.evaluate",
    "estimate": "api.audit",
    "evaluate": "api.evaluate",
    "list_attacks": "api.listing",
    "list_defences": "api.listing",
    "list_probes": "api.listing",
    "pretrain_encoder": "api.encoders",
    "repair_encoder": "api.encoders",
    "scan_encoder": "api.encoders",
    "read_records": "record",
    # What one has.
    "AuditResult": "api.audit",
    "AuditSpec": "audits.spec",
    "Comparison": "api.evaluate",
    "Crafted": "audits.crafted",
    "Encoder": "encoders.base",
    "Estimate": "entries",
    "FeatureSet": "features.file",
    "Images": "images",
    "TrialRecord": "record",
    "Victim": "audits.victim",
    # What one extends.
    "Corruption": "attacks.results",
    "EditProblem": "attacks.knowledge",
    "Filter": "defences.base",
    "CertifiedHead": "defences.certified.base",
    "Guard": "defences.guards.base",
    "ImageProbe": "probes.base",
    "Knowledge": "attacks.knowledge",
    "LabelledAttack": "attacks.base",
    "Ledger": "record",
    "Poisoning": "attacks.results",
    "PretrainingAttack": "attacks.base",
    "PretrainingPoison": "attacks.results",
    "Probe": "probes.base",
    "FittedProbe": "probes.base",
    "Repair": "defences.repairs.base",
    "Scan": "defences.scans.base",
    "TargetedAttack": "attacks.base",
    "TrainingRows": "defences.base",
    "WeightAttack": "attacks.base",
    # What goes wrong.
    "AttackError": "errors",
    "BudgetError": "errors",
    "DataError": "errors",
    "EncoderError": "errors",
    "ForetasteError": "errors",
    "RecordError": "errors",
    "RefereeError": "errors",
    "SpecError": "errors",
    "WeightsError": "errors",
}
"""Public name -> module below `foretaste` that has it."""
_CALLED = {"read_records": "read"}
"""Public name -> name there, where that is another."""
_MODULES = ("testing",)
"""Public modules."""

__all__ = ["__version__", *_PLACES, *_MODULES]

if TYPE_CHECKING:
    from foretaste import testing as testing
    from foretaste.api.attack import attack as attack
    from foretaste.api.audit import AuditResult as AuditResult
    from foretaste.api.audit import audit as audit
    from foretaste.api.audit import estimate as estimate
    from foretaste.api.encoders import pretrain_encoder as pretrain_encoder
    from foretaste.api.encoders import repair_encoder as repair_encoder
    from foretaste.api.encoders import scan_encoder as scan_encoder
    from foretaste.api.evaluate import Comparison as Comparison
    from foretaste.api.evaluate import compare as compare
    from foretaste.api.evaluate import evaluate as evaluate
    from foretaste.api.listing import list_attacks as list_attacks
    from foretaste.api.listing import list_defences as list_defences
    from foretaste.api.listing import list_probes as list_probes
    from foretaste.attacks.base import LabelledAttack as LabelledAttack
    from foretaste.attacks.base import PretrainingAttack as PretrainingAttack
    from foretaste.attacks.base import TargetedAttack as TargetedAttack
    from foretaste.attacks.base import WeightAttack as WeightAttack
    from foretaste.attacks.knowledge import EditProblem as EditProblem
    from foretaste.attacks.knowledge import Knowledge as Knowledge
    from foretaste.attacks.results import Corruption as Corruption
    from foretaste.attacks.results import Poisoning as Poisoning
    from foretaste.attacks.results import PretrainingPoison as PretrainingPoison
    from foretaste.audits.crafted import Crafted as Crafted
    from foretaste.audits.spec import AuditSpec as AuditSpec
    from foretaste.audits.victim import Victim as Victim
    from foretaste.defences.base import Filter as Filter
    from foretaste.defences.base import TrainingRows as TrainingRows
    from foretaste.defences.certified.base import CertifiedHead as CertifiedHead
    from foretaste.defences.guards.base import Guard as Guard
    from foretaste.defences.repairs.base import Repair as Repair
    from foretaste.defences.scans.base import Scan as Scan
    from foretaste.encoders.base import Encoder as Encoder
    from foretaste.entries import Estimate as Estimate
    from foretaste.errors import AttackError as AttackError
    from foretaste.errors import BudgetError as BudgetError
    from foretaste.errors import DataError as DataError
    from foretaste.errors import EncoderError as EncoderError
    from foretaste.errors import ForetasteError as ForetasteError
    from foretaste.errors import RecordError as RecordError
    from foretaste.errors import RefereeError as RefereeError
    from foretaste.errors import SpecError as SpecError
    from foretaste.errors import WeightsError as WeightsError
    from foretaste.features.file import FeatureSet as FeatureSet
    from foretaste.images import Images as Images
    from foretaste.probes.base import FittedProbe as FittedProbe
    from foretaste.probes.base import ImageProbe as ImageProbe
    from foretaste.probes.base import Probe as Probe
    from foretaste.record import Ledger as Ledger
    from foretaste.record import TrialRecord as TrialRecord
    from foretaste.record import read as read_records  # noqa: F401


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"foretaste.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'foretaste' has no attribute {name!r}")
    found = getattr(import_module(f"foretaste.{_PLACES[name]}"), _CALLED.get(name, name))
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
