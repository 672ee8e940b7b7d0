"""How trials, attacks and classes are called in the report."""

from __future__ import annotations

from foretaste.record import DataEntry, TrialRecord
from foretaste.report.numbers import budget


def label(attack: str, variant: str) -> str:
    """Name of an attack in tables."""
    return f"{attack} ({variant})" if variant else attack


def where(trial: TrialRecord) -> str:
    """One trial in words: attack, budget or target, seed."""
    if trial.threat == "clean":
        return "clean twin"
    parts = [label(trial.attack, trial.variant)]
    if trial.target:
        parts.append(f"image {trial.target.index} to {class_name(trial.data, trial.target.target_class)}")
    if trial.budget is not None:
        parts.append(budget(trial.budget))
    return ", ".join([*parts, f"seed {trial.seed}"])


def class_name(data: DataEntry, index: int) -> str:
    """Name of a class; a label outside the list keeps its number."""
    return data.classes[index] if 0 <= index < len(data.classes) else f"class {index}"


def refusals(trial: TrialRecord) -> list[str]:
    """What the referee found wrong with a trial, one line per check."""
    return [f"{check.name}: {check.found}" for check in trial.referee if not check.ok]
