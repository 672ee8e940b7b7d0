"""The study of poisoned feature extractors: every audit's drops side by side, and the claims drawn from them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from foretaste.record import Estimate, read
from foretaste.report.numbers import budget, label, percent, points
from foretaste.report.summary import Row, Summary, summarise
from foretaste.studies.claims import FULL, Entry, claims, goals, table
from foretaste.studies.grid import Part

CLIPPED = "clipped"


def page(folder: Path, parts: dict[str, Part]) -> tuple[list[str], dict[str, Any]]:
    """Sections of the page in Markdown, and the same as values."""
    entries, counted, sections = collect(folder, parts)
    found, own = claims(counted), goals(counted)
    values = {
        "claims": [asdict(claim) for claim in found],
        "goals": [asdict(claim) for claim in own],
        "entries": [{**asdict(entry), "space": entry.space} for entry in entries],
    }
    return [table("The paper's claims", found), table("Goals", own), *sections], values


def collect(folder: Path, parts: dict[str, Part]) -> tuple[list[Entry], list[Entry], list[str]]:
    """All entries of a study, those that count for its claims, and a section of its page per audit.

    What does not count: attackers who know less, and pipelines whose clean head is no better than the most frequent
    class, where there is no accuracy to lose.
    """
    entries, counted = list[Entry](), list[Entry]()
    sections = []
    for name, part in parts.items():
        summary = summarise(read(folder / name))
        own = [e for row in summary.rows if (e := _entry(part, row))]
        entries += own
        able = _able(summary)
        counted += [entry for entry in own if able and entry.knowledge == FULL]
        sections.append(_section(name, part, summary, own, able))
    return entries, counted, sections


def _able(summary: Summary) -> bool:
    """The clean head is better than the most frequent class, by its interval."""
    return summary.head is not None and summary.head.clean.low > summary.data.chance


def _entry(part: Part, row: Row) -> Entry | None:
    head = row.head
    if head is None or row.budget is None:
        return None
    clipped = next((cell for key, cell in row.cells.items() if key.endswith(f", {CLIPPED}")), None)
    return Entry(
        encoder=part.encoder,
        data=part.data,
        scenario=part.scenario,
        attack=row.attack,
        variant=row.variant,
        budget=row.budget,
        knowledge=part.knowledge,
        clean=head.clean.value,
        drop=_negated(head.change),
        clipped=_negated(clipped.change) if clipped else None,
        seeds=head.seeds,
    )


def _negated(change: Estimate) -> Estimate:
    return change.model_copy(update={"value": -change.value, "low": -change.high, "high": -change.low})


def _section(name: str, part: Part, summary: Summary, entries: list[Entry], able: bool) -> str:
    clean = summary.head.clean.value if summary.head else float("nan")
    rows = ", ".join(f"{count:,} {kind}" for kind, count in summary.data.rows.items())
    budgets = sorted({entry.budget for entry in entries})
    seeds = " or ".join(str(count) for count in sorted({entry.seeds for entry in entries}))
    knows = part.knowledge
    known = "" if knows == FULL else f"; the attacker knows {knows}"
    head = (
        f"{part.scenario.capitalize()}{known}; rows: {rows}; clean accuracy {percent(clean)} %; {seeds} seeds. "
        "Drops of accuracy in points with 95 % intervals; in brackets after clipping poison to the clean feature range."
    )
    if not able:
        head += " The clean head is no better than the most frequent class: not counted in the claims."
    lines = ["| attack | " + " | ".join(budget(b) for b in budgets) + " |", "| --- |" + " ---: |" * len(budgets)]
    names = dict.fromkeys((entry.attack, entry.variant) for entry in entries)
    for attack, variant in names:
        cells = {e.budget: _cell(e) for e in entries if (e.attack, e.variant) == (attack, variant)}
        lines.append(f"| {label(attack, variant)} | " + " | ".join(cells.get(b, "") for b in budgets) + " |")
    failed = f"\n\n{len(summary.failures)} trials failed: see its report." if summary.failures else ""
    return f"## {part.encoder} on {part.data} ({name})\n\n{head}\n\n" + "\n".join(lines) + failed


def _cell(entry: Entry) -> str:
    drop = entry.drop
    clipped = f" ({points(entry.clipped.value)})" if entry.clipped else ""
    return f"{points(drop.value)} [{points(drop.low)}, {points(drop.high)}]{clipped}"
