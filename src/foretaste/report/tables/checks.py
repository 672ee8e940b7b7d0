"""Tables that let a reader check the report: failures, cost, the referee's checks, ledgers, cards, versions."""

from __future__ import annotations

from collections.abc import Iterable

from foretaste.record import TrialRecord
from foretaste.report.aggregate import grouped, keys_of
from foretaste.report.numbers import budget, duration, label, percent, where
from foretaste.report.summary import Summary
from foretaste.report.tables import NONE, Line, Table


def failures(summary: Summary) -> Table:
    """Trials that are in no figure, and why."""
    lines = [Line([where(item.trial), item.reason], [item.trial.command]) for item in summary.failures]
    return Table("failures", "Trials that failed or were refused; they are in no figure", ["trial", "reason"], lines, 2)


def cost(summary: Summary) -> Table:
    """Seconds per stage and images through the encoder, mean per trial."""
    groups = [("none (clean twin)", NONE, [summary.clean])] if summary.clean else []
    groups += [*_labelled(summary), *_steering(summary)]
    groups = [group for group in groups if group[2]]
    stages = keys_of(trial.seconds for _, _, trials in groups for trial in trials)
    lines = []
    for name, share, trials in groups:
        means = [sum(trial.seconds.get(stage, 0.0) for trial in trials) / len(trials) for stage in stages]
        known = [any(stage in trial.seconds for trial in trials) for stage in stages]
        passes = sum(trial.ledger.passes for trial in trials if trial.ledger) / len(trials)
        cells = [duration(mean) if there else NONE for mean, there in zip(means, known, strict=True)]
        lines.append(Line([name, share, f"{len(trials)}", *cells, duration(sum(means)), f"{passes:,.0f}"]))
    total = sum(sum(trial.seconds.values()) for trial in summary.records)
    return Table(
        "cost",
        f"Time and images through the encoder, mean per trial; all trials together took {duration(total)}",
        ["attack", "budget", "trials", *stages, "total", "images through the encoder"],
        lines,
    )


def referee(summary: Summary) -> Table:
    """What the referee recomputed, per attack: passed of all, with one finding as an example."""
    found = [(label(trial.attack, trial.variant), check) for trial in summary.records for check in trial.referee]
    lines = []
    for (name, check), results in grouped(found, lambda one: (one[0], one[1].name)).items():
        example = min((one.ok, one.found) for _, one in results)[1]  # a failed one first
        lines.append(Line([name, check, f"{sum(one.ok for _, one in results)} of {len(results)}", example]))
    return Table(
        "referee",
        "What the referee recomputed from the poison itself, not from what the attack says",
        ["attack", "check", "passed", "found, for example"],
        lines,
        4,
    )


def ledgers(summary: Summary) -> Table:
    """What the attacks report: objective, worst residuals, other figures (means over trials)."""
    lines = []
    for name, share, trials in [*_labelled(summary), *_steering(summary)]:
        kept = [trial.ledger for trial in trials if trial.ledger]
        if not kept:
            continue
        moving = [ledger.objective for ledger in kept if ledger.objective]
        first, last = (sum(values[end] for values in moving) / max(len(moving), 1) for end in (0, -1))
        objective = f"{kept[0].objective_name or 'objective'} {first:.4g} → {last:.4g}" if moving else NONE
        residuals, figures = _by_key(one.residuals for one in kept), _by_key(one.figures for one in kept)
        worst = "; ".join(f"{key} {max(values):.2g}" for key, values in residuals.items()) or NONE
        means = "; ".join(f"{key} {sum(values) / len(values):.4g}" for key, values in figures.items()) or NONE
        changed = f"{sum(len(ledger.changed) for ledger in kept) / len(kept):,.0f}"
        lines.append(Line([name, share, objective, worst, means, changed]))
    return Table(
        "ledgers",
        "What the attacks report of themselves: mean objective at the start and the end, worst relative residuals of "
        "the inner solves, other figures, and how many rows or tensors the poison is based on",
        ["attack", "budget", "objective", "residuals", "figures", "rows or tensors"],
        lines,
        5,
    )


def dropped(summary: Summary) -> Table:
    """Shares of poisoned and of clean training rows that each filter dropped: means over seeds, clean twin first."""
    groups = [("none (clean twin)", budget(0.0), [summary.clean])] if summary.clean else []
    groups += _labelled(summary)
    lines = []
    for name, share, trials in groups:
        for key in keys_of(trial.dropped for trial in trials):
            found = [trial.dropped[key] for trial in trials if key in trial.dropped]
            poison = [one.poison.value for one in found if one.poison]
            clean = percent(sum(one.clean.value for one in found) / len(found))
            caught = percent(sum(poison) / len(poison)) if poison else NONE
            lines.append(Line([name, share, key, found[0].reference, caught, clean]))
    return Table(
        "dropped",
        "Training rows that each filter dropped before the head was fitted, in %: of the poison, and of the clean rows",
        ["attack", "budget", "score", "thresholds from", "poison dropped", "clean dropped"],
        lines,
        4,
    )


def cards(summary: Summary) -> list[Table]:
    """Data, encoder, machine and versions."""
    data, encoder = summary.data, summary.encoder
    tables = [
        _facts(
            "data",
            "Data",
            {
                "name": data.name,
                "rows": ", ".join(f"{part} {rows:,}" for part, rows in data.rows.items()),
                "classes": f"{len(data.classes)}: {', '.join(data.classes)}",
                "sha256": data.digest,
            },
        )
    ]
    if encoder:
        dropped = f"{len(encoder.dropped_keys)}: {', '.join(encoder.dropped_keys)}" if encoder.dropped_keys else "none"
        facts = {
            "name": encoder.name,
            "architecture": encoder.architecture,
            "features": f"{encoder.d}",
            "input size": f"{encoder.input_size}" if encoder.input_size else NONE,
            "source": encoder.source or NONE,
            "licence": encoder.licence or NONE,
            "keys of the file that were not used": dropped,
            "sha256": encoder.sha256,
        }
        tables.append(_facts("encoder", "Encoder", facts))
    if summary.clean and summary.clean.digests:
        tables.append(_facts("digests", "Digests of the clean twin", dict(summary.clean.digests)))
    tables.append(_facts("machine", "Machine", _values([trial.machine for trial in summary.records])))
    tables.append(_facts("versions", "Versions", _values([trial.versions for trial in summary.records])))
    return [table for table in tables if table.lines]


def _by_key(found: Iterable[dict[str, float]]) -> dict[str, list[float]]:
    groups = grouped((item for one in found for item in one.items()), lambda item: item[0])
    return {key: [value for _, value in items] for key, items in groups.items()}


Group = tuple[str, str, list[TrialRecord]]
"""An attack, its budget and its trials."""


def _labelled(summary: Summary) -> list[Group]:
    return [(row.name, budget(row.budget), row.trials) for row in summary.rows]


def _steering(summary: Summary) -> list[Group]:
    return [(row.name, NONE if row.budget is None else budget(row.budget), row.pairs) for row in summary.steering]


def _facts(name: str, caption: str, facts: dict[str, str]) -> Table:
    return Table(name, caption, ["what", "value"], [Line([key, value]) for key, value in facts.items()], 2)


def _values(entries: list[dict[str, str]]) -> dict[str, str]:
    """One value per key; trials that ran elsewhere add theirs."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        for key, value in entry.items():
            found.setdefault(key, {})[value] = None
    return {key: "; ".join(values) for key, values in found.items()}
