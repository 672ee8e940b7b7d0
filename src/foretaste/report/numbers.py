"""How numbers and names look in the report: one place, so that verdict, tables and plots agree to the digit."""

from __future__ import annotations

from foretaste.record import DataEntry, Estimate, TrialRecord


def percent(share: float, digits: int = 1) -> str:
    """0.831 as `83.1`, without the sign, for text that says `%` itself."""
    return f"{100 * share:.{digits}f}"


def points(change: float) -> str:
    """-0.091 as `−9.1`, percentage points with their sign; what rounds to zero has none."""
    rounded = round(100 * change, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def budget(share: float | None) -> str:
    """0.03 as `3 %`."""
    return "none" if share is None else f"{100 * share:.4g} %"


def interval(estimate: Estimate, digits: int = 1) -> str:
    """`[73.1, 74.9]`, in percent."""
    return f"[{percent(estimate.low, digits)}, {percent(estimate.high, digits)}]"


def share(estimate: Estimate) -> str:
    """`90 % [70, 97]`, for shares of a few outcomes."""
    return f"{percent(estimate.value, 0)} % {interval(estimate, 0)}"


def outcomes(estimate: Estimate) -> str:
    """`3 of 20`, of a share of a few outcomes."""
    return f"{round(estimate.value * estimate.n)} of {estimate.n}"


def change_interval(estimate: Estimate) -> str:
    """`[−10.0, −8.2]`, in percentage points."""
    return f"[{points(estimate.low)}, {points(estimate.high)}]"


def accuracy(estimate: Estimate) -> str:
    """`74.0 [73.1, 74.9]`, in percent."""
    return f"{percent(estimate.value)} {interval(estimate)}"


def moved(estimate: Estimate) -> str:
    """`−9.1 [−10.0, −8.2]`, in percentage points."""
    return f"{points(estimate.value)} {change_interval(estimate)}"


def method(text: str) -> str:
    """`wilson 0.95`, as the record names it, as `wilson, 95 %`."""
    head, _, level = text.rpartition(" ")
    try:
        return f"{head}, {100 * float(level):g} %"
    except ValueError:
        return text


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 seed`, `3 seeds`, `2,000 rows`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Seconds as a person would say them: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
