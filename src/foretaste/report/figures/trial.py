"""Figures and pictures of single trials: projection of the features, objective per step, poison beside its base."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from foretaste.record import DataEntry, Exhibit, Projection, TrialRecord
from foretaste.report.figures.style import (
    COLOURS,
    LEGEND,
    MUTED,
    POISON,
    SYMBOLS,
    Json,
    Plot,
    layout,
    named,
    plain,
    style,
)
from foretaste.report.numbers import budget, class_name
from foretaste.report.summary import PairRow, Row, Summary

POINTS = 1500
"""Clean points drawn at most in one projection; the poison gets a third of that."""
ALL_POINTS = 4500
"""Clean points drawn at most in all projections together."""
STEPS = 200
"""Steps drawn at most in one line of the objective."""
LINES = 5
"""Trials drawn at most in one figure of the objective."""
PICTURES = 12
"""Pairs of images shown at most for one trial."""
PICTURE_BYTES = 400_000
"""Base64 characters of all images together: keeps the page small enough to mail."""
NAMED_CLASSES = 10
"""With more classes than this, markers no longer tell classes apart; the hover text still does."""


@dataclass(frozen=True)
class Gallery:
    """Poison images of one trial beside their bases."""

    title: str
    exhibits: list[Exhibit]
    left_out: int


def projections(summary: Summary) -> list[Plot]:
    """One figure per attack on the training rows: its largest budget, its first trial with a projection."""
    rows = [(f"{row.name}, {budget(row.budget)}", row.trials) for row in _largest(summary.rows)]
    rows += [(_titled(row), row.pairs) for row in summary.steering]
    found = [
        (f"{title}, seed {trial.seed}", trial.projection)
        for title, trials in rows
        for trial in [trial for trial in trials if trial.projection][:1]
        if trial.projection
    ]
    most = min(POINTS, ALL_POINTS // max(len(found), 1))
    return [
        _projection(f"projection-{number}", title, projection, summary.data, most)
        for number, (title, projection) in enumerate(found)
    ]


def objectives(summary: Summary) -> list[Plot]:
    """One figure per attack: the objective per step of a few trials at its largest budget."""
    chosen = [(f"{row.name}, {budget(row.budget)}", row.trials) for row in _largest(summary.rows)]
    chosen += [(_titled(row), row.pairs) for row in summary.steering]
    out: list[Plot] = []
    for title, trials in chosen:
        if moving := [trial for trial in trials if trial.ledger and len(trial.ledger.objective) > 1]:
            out.append(_objective(f"objective-{len(out)}", title, moving[:LINES], len(moving)))
    return out


def galleries(summary: Summary) -> list[Gallery]:
    """Poison images, those with the largest budgets first, until the page's share is used up."""
    out: list[Gallery] = []
    spent = 0
    rows = sorted(summary.rows, key=lambda row: -(row.budget or 0))
    shown: list[tuple[str, TrialRecord]] = [
        (f"{r.name}, {budget(r.budget)}", t) for r in rows for t in _pictured(r.trials)
    ]
    shown += [(_titled(row), trial) for row in summary.steering for trial in _pictured(row.pairs)]
    for title, trial in shown:
        kept = []
        for exhibit in trial.exhibits[:PICTURES]:
            spent += len(exhibit.poison_png) + len(exhibit.base_png)
            if spent <= PICTURE_BYTES:
                kept.append(exhibit)
        out.append(Gallery(f"{title}, seed {trial.seed}", kept, len(trial.exhibits) - len(kept)))
    return [gallery for gallery in out if gallery.exhibits]


def _titled(row: PairRow) -> str:
    return row.name if row.budget is None else f"{row.name}, {budget(row.budget)}"


def _pictured(trials: list[TrialRecord]) -> list[TrialRecord]:
    return [trial for trial in trials if trial.exhibits][:1]


def _largest(rows: list[Row]) -> list[Row]:
    """The row with the largest budget of each attack, among those with a trial that counts."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.trials:
            best[row.attack, row.variant] = row  # budgets ascend within an attack
    return list(best.values())


def _thin(count: int, most: int) -> list[int]:
    """At most `most` of the indices 0..count-1, evenly spaced, both ends included."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _projection(name: str, title: str, projection: Projection, data: DataEntry, most: int) -> Plot:
    clean = _thin(len(projection.clean), most)
    poison = _thin(len(projection.poison), most // 3)
    traces = _clean_traces(projection, clean, data)
    texts = [f"poison, labelled {class_name(data, projection.poison_labels[i])}" for i in poison]
    cross = {"color": POISON, "size": 8, "symbol": "x-thin", "line": {"color": POISON, "width": 1.6}}
    traces.append(_points("poison", [projection.poison[i] for i in poison], texts, cross))
    thinned = len(clean) < len(projection.clean) or len(poison) < len(projection.poison)
    columns = (
        3 if max(len(trace["name"]) for trace in traces) <= 12 else 1
    )  # as many names as the legend fits in a line
    return Plot(
        name=name,
        title=title,
        note="First two principal components of the clean features; crosses are poisoned rows."
        + (f" Shown: {len(clean)} clean and {len(poison)} poisoned rows, evenly picked." if thinned else ""),
        data=traces,
        layout=layout(
            {"title": named("first component"), "showgrid": True},
            {"title": named("second component")},
            hovermode="closest",
            legend={**LEGEND, "itemsizing": "constant"},
        ),
        height=380 + 20 * math.ceil(len(traces) / columns),
        wide=False,
    )


def _clean_traces(projection: Projection, shown: list[int], data: DataEntry) -> list[Json]:
    """One series per class, or a single grey one when there are more classes than markers can tell apart."""
    labels = projection.clean_labels
    members: dict[int | None, list[int]] = {}
    many = len({labels[i] for i in shown}) > NAMED_CLASSES
    for i in sorted(shown, key=lambda i: labels[i]):
        members.setdefault(None if many else labels[i], []).append(i)
    colours = [colour for colour in COLOURS if colour != POISON]
    traces = []
    for place, (group, rows) in enumerate(members.items()):
        symbol = SYMBOLS[place % len(SYMBOLS)] + ("-open" if place >= len(SYMBOLS) else "")
        marker = {"color": colours[place % len(colours)], "size": 5, "opacity": 0.6, "symbol": symbol}
        if group is None:
            marker["color"] = MUTED
        name = "clean rows" if group is None else class_name(data, group)
        texts = [f"clean: {class_name(data, labels[i])}" for i in (rows if many else rows[:1])]
        traces.append(_points(name, [projection.clean[i] for i in rows], texts, marker))
    return traces


def _points(name: str, points: list[tuple[float, float]], texts: list[str], marker: Json) -> Json:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(name),
        "x": [float(f"{x:.4g}") for x, _ in points],
        "y": [float(f"{y:.4g}") for _, y in points],
        "hoverinfo": "text",
        "hovertext": plain(texts[0]) if len(texts) == 1 else [plain(text) for text in texts],
        "marker": marker,
    }


def _objective(name: str, title: str, trials: list[TrialRecord], available: int) -> Plot:
    traces = []
    first = trials[0].ledger
    for place, trial in enumerate(trials):
        values = trial.ledger.objective if trial.ledger else []
        steps = _thin(len(values), STEPS)
        look = style(place)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plain(_line_name(trial)),
                "x": steps,
                "y": [float(f"{values[i]:.5g}") for i in steps],
                "hoverinfo": "x+y+name",
                "line": look["line"],
            }
        )
    more = f" {len(trials)} of {available} trials." if available > len(trials) else ""
    return Plot(
        name=name,
        title=title,
        note=f"The attack's own objective per step; {first.better if first else 'higher'} is better for it.{more}",
        data=traces,
        layout=layout(
            {"title": named("step")},
            {"title": named((first.objective_name if first else "") or "objective")},
            showlegend=True,
        ),
        height=340,
        wide=False,
    )


def _line_name(trial: TrialRecord) -> str:
    return f"image {trial.target.index}" if trial.target else f"seed {trial.seed}"
