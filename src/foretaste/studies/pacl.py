"""The study of PA-CL: every attack that steers one image, side by side, and the goals drawn from that.

Threats are never ranked against each other without saying so: the headline compares PA-CL (which edits weights) with
three baselines, and each table names what the attacker of a row controls.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretaste import statistics
from foretaste.record import Estimate, TrialRecord, read
from foretaste.report.aggregate import failure, grouped, headline
from foretaste.report.numbers import accuracy, budget, label, moved, percent, points
from foretaste.report.summary import pair_row
from foretaste.studies.claims import Claim, table
from foretaste.studies.grid import Part

BASELINES = ("poisoned-encoder", "bad-encoder", "gradient-matching")
"""The three of the headline: the earlier attacks on one image of pre-training data, of weights and of labelled rows."""
HEADLINE = "headline"
STEERING = ("weights", "pretraining", "targeted")


@dataclass(frozen=True)
class Steering:
    """One attack on one pipeline, over its (image, class) pairs.

    Attributes:
        question: which part of the study it belongs to; `headline` counts for the goals.
        encoder, data: the pipeline, by its short names.
        threat, attack, variant, budget: as in the record.
        success: share of the eligible pairs that got the wanted class, with Wilson's interval; None without any.
        base: share to which the clean twin already gave it.
        clean: accuracy of the clean twin.
        change: mean change of the accuracy, over pairs.
        moved: mean absolute change of the accuracy.
        collateral: mean share of the other test predictions that changed.
        neighbours: mean share of the image's nearest test rows that got the wanted class.
        augmented, clean_augmented: mean share of altered copies of the image that get it, and did before.
        triggered, clean_triggered: mean share of the other classes' test rows that get it by the attack's trigger, and
            did before; None without a trigger.
        passes: mean number of images sent through the encoder.
        seconds: mean time of the attack, shared by the pairs of one run.
        probes: success by victim.
        failed: trials in no figure.
    """

    question: str
    encoder: str
    data: str
    threat: str
    attack: str
    variant: str
    budget: float | None
    success: Estimate | None
    base: Estimate | None
    clean: float
    change: Estimate
    moved: Estimate
    collateral: Estimate
    neighbours: Estimate | None
    augmented: Estimate | None
    clean_augmented: Estimate | None
    triggered: Estimate | None
    clean_triggered: Estimate | None
    passes: float
    seconds: float
    probes: dict[str, Estimate]
    failed: int

    @property
    def name(self) -> str:
        """The attack, with its variant and budget."""
        return label(self.attack, self.variant) + ("" if self.budget is None else f", {budget(self.budget)}")


def page(folder: Path, parts: dict[str, Part]) -> tuple[list[str], dict[str, Any]]:
    """Sections of the page in Markdown, and the same as values."""
    found = {name: steerings(part, read(folder / name)) for name, part in parts.items()}
    headline = [one for rows in found.values() for one in rows if one.question == HEADLINE]
    own = goals(headline)
    sections = [table("Goals", own), _headline(headline)]
    sections += [_section(name, parts[name], rows) for name, rows in found.items()]
    values = {
        "goals": [asdict(claim) for claim in own],
        "rows": [{"audit": name, **asdict(one)} for name, rows in found.items() for one in rows],
    }
    return sections, values


def steerings(part: Part, records: list[TrialRecord]) -> list[Steering]:
    """The attacks of one audit, in the order of its record; those whose trials all failed are left out."""
    steering = [trial for trial in records if trial.threat in STEERING]
    groups = grouped(steering, lambda trial: (json.dumps(trial.spec["attack"], sort_keys=True), trial.budget))
    variants = _variants([trials[0] for trials in groups.values()])
    found = []
    for trials, variant in zip(groups.values(), variants, strict=True):
        counted = [trial for trial in trials if not failure(trial) and trial.target]
        if counted:
            found.append(_steering(part, variant, trials, counted))
    return found


def goals(rows: list[Steering]) -> list[Claim]:
    """What this project set itself, over the cells (encoder x data set) of the headline."""
    pacl = {(one.encoder, one.data): one for one in rows if one.attack == "pacl" and one.success}
    leads = [lead for cell, one in pacl.items() if (lead := _leads(one, cell, rows)) is not None]
    shares = [one.success.value for one in pacl.values() if one.success]

    def goal(text: str, measure: str, values: list[float], met: Callable[[float], bool]) -> Claim:
        if not values:
            return Claim(text, measure, "not measured", None, 0)
        mean = statistics.mean_interval(np.array(values))
        return Claim(text, measure, "met" if met(mean.value) else "missed", mean, len(values))

    return [
        goal("PA-CL succeeds for at least 95 % of the pairs", "success, mean over cells", shares, lambda x: x >= 0.95),
        goal(
            "PA-CL is 40 points above the mean of three baselines",
            f"success minus the mean of {', '.join(BASELINES)}, mean over cells",
            [lead[0] for lead in leads],
            lambda x: x >= 0.40,
        ),
        goal(
            "Accuracy moves by at most 1 point",
            "absolute change of the head's accuracy, mean over pairs, then over cells",
            [one.moved.value for one in pacl.values()],
            lambda x: x <= 0.01,
        ),
        goal(
            "At most 5 % of the other test predictions change",
            "collateral, mean over pairs, then over cells",
            [one.collateral.value for one in pacl.values()],
            lambda x: x <= 0.05,
        ),
    ]


def _leads(one: Steering, cell: tuple[str, str], rows: list[Steering]) -> tuple[float, float] | None:
    """PA-CL's success minus the baselines' mean, and minus their best; of one at several settings the best counts."""
    best = [
        max(
            (r.success.value for r in rows if (r.encoder, r.data) == cell and r.attack == name and r.success),
            default=None,
        )
        for name in BASELINES
    ]
    there = [value for value in best if value is not None]
    if len(there) < len(BASELINES) or one.success is None:
        return None
    return one.success.value - float(np.mean(there)), one.success.value - max(there)


def _variants(firsts: list[TrialRecord]) -> list[str]:
    """The recorded variant; where two settings of one attack share it, the fields that tell them apart as well."""
    found = []
    for trial in firsts:
        fields = dict(trial.spec["attack"])  # type: ignore[arg-type]
        twins = [
            dict(other.spec["attack"])  # type: ignore[arg-type]
            for other in firsts
            if (other.attack, other.variant) == (trial.attack, trial.variant)
        ]
        told = [f"{key} {value}" for key, value in fields.items() if any(twin.get(key) != value for twin in twins)]
        found.append(", ".join([*([trial.variant] if trial.variant else []), *told]))
    return found


def _steering(part: Part, variant: str, trials: list[TrialRecord], counted: list[TrialRecord]) -> Steering:
    row, first = pair_row(trials, counted), counted[0]
    assert row.collateral is not None  # some trial counts, and each has it
    targets = [trial.target for trial in counted if trial.target]
    heads = [head for trial in counted if (head := headline(trial))]
    changes = [head.poisoned.value - head.clean.value for head in heads if head.poisoned]
    return Steering(
        question=part.question,
        encoder=part.encoder,
        data=part.data,
        threat=first.threat,
        attack=first.attack,
        variant=variant,
        budget=first.budget,
        success=row.success,
        base=row.base,
        clean=heads[0].clean.value,
        change=statistics.mean_interval(np.array(changes)),
        moved=statistics.mean_interval(np.abs(changes)),
        collateral=row.collateral,
        neighbours=row.head.neighbours,
        # Over all pairs, where the report of one audit has the eligible ones.
        augmented=_mean([t.augmented for t in targets]),
        clean_augmented=_mean([t.clean_augmented for t in targets]),
        triggered=row.head.triggered,
        clean_triggered=row.head.clean_triggered,
        passes=float(np.mean([trial.ledger.passes for trial in counted if trial.ledger])),
        seconds=float(np.mean([trial.seconds.get("attack", 0.0) for trial in counted])),
        probes={key: score.success for key, score in row.probes.items() if score.success},
        failed=row.failed,
    )


def _mean(found: list[Estimate | None]) -> Estimate | None:
    there = [one.value for one in found if one is not None]
    return statistics.mean_interval(np.array(there)) if there else None


def _headline(rows: list[Steering]) -> str:
    """One line per cell: every attack's success, PA-CL's lead and its price."""
    names = list(dict.fromkeys(("pacl", *BASELINES, *(one.attack for one in rows))))
    head = ["encoder", "data", "pairs", *names, "PA-CL minus the mean of three", "minus the best of three"]
    head += ["accuracy change", "changed"]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for cell in dict.fromkeys((one.encoder, one.data) for one in rows):
        own = [one for one in rows if (one.encoder, one.data) == cell]
        main = next((one for one in own if one.attack == "pacl"), None)
        leads = None if main is None else _leads(main, cell, rows)
        ahead = ("", "") if leads is None else map(points, leads)
        cells = [_best(own, name) for name in names]
        price = ("", "") if main is None else (moved(main.change), f"{percent(main.collateral.value)} %")
        pairs = "" if main is None or main.success is None else str(main.success.n)
        lines.append("| " + " | ".join([*cell, pairs, *cells, *ahead, *price]) + " |")
    text = (
        "Share of the eligible pairs that got the wanted class, in %, with Wilson's 95 % interval; of an attack at "
        "several settings the best. The attackers differ in what they control: `pacl` and `bad-encoder` the weights, "
        "`poisoned-encoder` and `interpolation` pre-training images, the others labelled rows of the head; the lead "
        "is not a ranking of equals. Accuracy change (points) and changed test predictions are PA-CL's."
    )
    return f"## Success by pipeline\n\n{text}\n\n" + "\n".join(lines)


def _best(rows: list[Steering], name: str) -> str:
    shares = [one.success for one in rows if one.attack == name and one.success]
    return accuracy(max(shares, key=lambda share: share.value)) if shares else ""


def _section(name: str, part: Part, rows: list[Steering]) -> str:
    victims = list(dict.fromkeys(key for one in rows for key in one.probes))
    head = ["attack", "controls", "pairs", *(f"success, {key}" for key in victims), "had it before"]
    marked = any(one.triggered for one in rows)
    head += ["accuracy change", "changed", "neighbours", "altered copies (before)"]
    head += [*(["by trigger (before)"] if marked else []), "passes", "s", "failed"]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for one in rows:
        cells = [
            one.name,
            one.threat,
            "" if one.success is None else str(one.success.n),
            *(accuracy(one.probes[key]) if key in one.probes else "" for key in victims),
            "" if one.base is None else f"{percent(one.base.value)} %",
            moved(one.change),
            f"{percent(one.collateral.value)} %",
            "" if one.neighbours is None else f"{percent(one.neighbours.value)} %",
            _beside(one.augmented, one.clean_augmented),
            *([_beside(one.triggered, one.clean_triggered)] if marked else []),
            f"{one.passes:,.0f}",
            f"{one.seconds:.1f}",
            str(one.failed),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    clean = f"; clean accuracy {percent(rows[0].clean)} %" if rows else ""
    asked = part.question
    title = f"## {part.encoder} on {part.data}" + ("" if asked == HEADLINE else f": {asked}") + f" ({name})"
    return f"{title}\n\n{part.scenario.capitalize()}{clean}.\n\n" + "\n".join(lines)


def _beside(found: Estimate | None, before: Estimate | None) -> str:
    return f"{percent(found.value)} ({percent(before.value)}) %" if found and before else ""
