"""The HTML page: templates with autoescape on, plots as JSON that cannot end their block, a policy against the rest.

The page loads nothing. Its Content-Security-Policy forbids every request and every script except the two in the page,
which it names by hash: text that slipped through the escaping could still not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from foretaste.report.figures import bracket, curves, heatmap, trial
from foretaste.report.figures.style import Plot
from foretaste.report.numbers import class_name
from foretaste.report.summary import Summary
from foretaste.report.tables import Table, accuracy, certified, checks, defences, targeted
from foretaste.report.threats import THREATS, Threat
from foretaste.report.verdict import Sentence


def page(summary: Summary, verdict: list[Sentence], advice: list[Sentence], heading: str) -> str:
    """The whole page as one string."""
    draw, own = _plotly(), _source("report.js")
    lines = curves.curves(summary)
    steering = _steering(summary)
    objectives = trial.objectives(summary)
    projections = trial.projections(summary)
    brackets = bracket.figures(summary)
    matrices = heatmap.figures(summary)
    shown = [*lines, *matrices, *brackets, *(one.plot for one in steering if one.plot), *projections, *objectives]
    topics: dict[str, list[Sentence]] = {}
    for sentence in verdict:
        topics.setdefault(sentence.topic, []).append(sentence)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            heading=heading,
            summary=summary,
            topics=topics,
            advice=advice,
            policy=_policy([draw, own]),
            style=Markup(_source("report.css")),
            plotly=Markup(draw),
            script=Markup(own),
            curves=lines,
            steering=steering,
            objectives=objectives,
            projections=projections,
            galleries=trial.galleries(summary),
            figures=[(plot.name, embed(plot.figure)) for plot in shown],
            labelled=accuracy.labelled(summary),
            judged=accuracy.judged(summary),
            matrices=matrices,
            matrix=accuracy.matrix(summary),
            defences=defences.filters(summary),
            brackets=brackets,
            bracket=certified.table(summary),
            failures=checks.failures(summary),
            clean=accuracy.clean(summary),
            cost=checks.cost(summary),
            referee=checks.referee(summary),
            ledgers=checks.ledgers(summary),
            dropped=checks.dropped(summary),
            cards=checks.cards(summary),
            class_name=lambda index: class_name(summary.data, index),
        )
    )


@dataclass(frozen=True)
class Section:
    """The part of the page about one threat on one chosen image."""

    threat: Threat
    plot: Plot | None
    table: Table
    by_probe: Table | None
    defences: list[Table]
    pairs: Table


def _steering(summary: Summary) -> list[Section]:
    """Encoder weights always, if only to say that they were no part of the audit; other threats where they were."""
    found = [(threat, threat.rows(summary)) for threat in THREATS]
    return [
        Section(
            threat,
            curves.steered(threat, rows),
            targeted.table(threat, rows),
            targeted.by_probe(threat, rows),
            defences.of_encoder(threat, rows, summary.clean),
            targeted.pairs(threat, rows),
        )
        for threat, rows in found
        if rows or threat.key == "weights"
    ]


def embed(value: Any) -> Markup:
    """JSON for a script block: ASCII only, and without a character that could end the block or start a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # The three characters occur only inside strings, where an escape means the same; U+2028 is one already.
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    # Plotly styles its elements one by one, hence 'unsafe-inline' for styles.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("foretaste.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _plotly() -> str:
    """Plotly's own script, from the installed package: its file alone, without importing its Python side."""
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def _source(name: str) -> str:
    return resources.files("foretaste.report").joinpath("templates", name).read_text(encoding="utf-8")
