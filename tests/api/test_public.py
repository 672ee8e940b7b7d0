"""What `import foretaste` gives, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import foretaste

PUBLIC = [
    "__version__",
    "attack",
    "audit",
    "compare",
    "estimate",
    "evaluate",
    "list_attacks",
    "list_defences",
    "list_probes",
    "read_records",
    "AuditResult",
    "AuditSpec",
    "Comparison",
    "Crafted",
    "Encoder",
    "Estimate",
    "FeatureSet",
    "Images",
    "TrialRecord",
    "Victim",
    "Corruption",
    "EditProblem",
    "Filter",
    "CertifiedHead",
    "Guard",
    "ImageProbe",
    "Knowledge",
    "LabelledAttack",
    "Ledger",
    "Poisoning",
    "PretrainingAttack",
    "PretrainingPoison",
    "Probe",
    "FittedProbe",
    "Repair",
    "Scan",
    "TargetedAttack",
    "TrainingRows",
    "WeightAttack",
    "AttackError",
    "BudgetError",
    "DataError",
    "EncoderError",
    "ForetasteError",
    "RecordError",
    "RefereeError",
    "SpecError",
    "WeightsError",
    "testing",
]
HEAVY = ("lightly", "pandas", "plotly", "scipy", "sklearn", "timm", "torch", "torchvision")


def fresh(program: str) -> str:
    """What a program prints in a process of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_the_public_names_are_these() -> None:
    assert foretaste.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there_and_is_called_so(name: str) -> None:
    thing = getattr(foretaste, name)
    assert thing is getattr(foretaste, name)
    if name not in ("__version__", "testing", "read_records"):
        assert thing.__name__ == name


def test_all_names_are_shown_before_any_is_used() -> None:
    shown = fresh("import foretaste; print(*sorted(set(foretaste.__all__) - set(dir(foretaste)))); print('x')")
    assert shown == "x"


def test_importing_and_looking_loads_nothing_heavy() -> None:
    program = f"import sys, foretaste; dir(foretaste); print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert fresh(program) == "[]"


@pytest.mark.parametrize("name", ["SpecError", "Estimate", "TrialRecord", "list_probes", "read_records", "AuditSpec"])
def test_what_needs_no_torch_does_not_load_it(name: str) -> None:
    call = "()" if name.startswith("list") else ""
    assert fresh(f"import sys, foretaste; foretaste.{name}{call}; print('torch' in sys.modules)") == "False"


def test_star_gives_all_names() -> None:
    names: dict[str, object] = {}
    exec("from foretaste import *", names)
    assert set(PUBLIC) <= names.keys()


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'foretaste' has no attribute 'Atack'"):
        _ = foretaste.Atack


def test_a_function_keeps_its_name_after_its_room_was_imported() -> None:
    """`foretaste.attack` and `foretaste.audit` must never become modules."""
    assert (
        fresh("import foretaste.audits.trial, foretaste.attacks, foretaste; print(callable(foretaste.audit))") == "True"
    )
