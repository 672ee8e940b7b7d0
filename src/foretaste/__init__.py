"""Foretaste: how much poison can a pre-trained encoder and the head on top of it take?

Importing this package imports neither torch nor scikit-learn; each name below is imported when it is first used.

>>> import foretaste as ft
>>> "exact" in [attack.name for attack in ft.list_attacks()]
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

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
    "read_records": "record",
    "render": "report",
    # What one has.
    "AuditResult": "api.audit",
    "AuditSpec": "audit.spec",
    "Comparison": "api.evaluate",
    "Crafted": "audit.crafted",
    "Encoder": "encoders.base",
    "Estimate": "entries",
    "FeatureSet": "features.file",
    "Images": "images",
    "TrialRecord": "record",
    "Victim": "audit.victim",
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
    from foretaste.api.attack import attack as attack
    from foretaste.api.audit import AuditResult as AuditResult
    from foretaste.api.audit import audit as audit
    from foretaste.api.audit import estimate as estimate


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
