"""The matrix of attacks and defences as heat maps, one per budget."""

from __future__ import annotations

from foretaste.report.defended import AIMED, Defended, everything
from foretaste.report.figures.style import Json, Plot, layout, plain
from foretaste.report.numbers import budget, percent
from foretaste.report.summary import Summary
from foretaste.report.tables import NONE
from foretaste.report.tables.accuracy import PLAIN, matrix_of

SCALE = [[0, "#ffffff"], [0.5, "#f3b48b"], [1, "#b04a00"]]
"""Points of accuracy lost: white for none; single-hued, so that no colour needs to be told from another."""


def figures(summary: Summary) -> list[Plot]:
    """One heat map per budget at which an attack counts; none without defences."""
    found = everything(summary)
    shares = summary.budgets if found.columns else []
    return [_figure(summary, found, share, number) for number, share in enumerate(shares)]


def _figure(summary: Summary, found: Defended, share: float, number: int) -> Plot:
    lines = matrix_of(summary, found, share)
    top = max((e.value for e, _, _ in lines[0][1] if e), default=1.0)
    names = [plain(name) for name, _ in lines]
    columns = [plain(name) for name in [PLAIN, *(column.name for column in found.columns)]]
    text = [
        [(percent(e.value) if e else NONE) + (f" {AIMED}" if AIMED in told else "") for e, told, _ in cells]
        for _, cells in lines
    ]
    trace: Json = {
        "type": "heatmap",
        "x": columns,
        "y": names,
        "z": [[round(100 * max(top - e.value, 0.0), 3) if e else None for e, _, _ in cells] for _, cells in lines],
        "zmin": 0,
        "zmax": max(10.0, *(100 * (top - e.value) for _, cells in lines for e, _, _ in cells if e)),
        "text": text,
        "texttemplate": "%{text}",
        "hovertext": [[plain(hover).replace("\n", "<br>") for *_, hover in cells] for _, cells in lines],
        "hoverinfo": "text",
        "colorscale": SCALE,
        "colorbar": {"title": {"text": "points lost", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        "xgap": 2,
        "ygap": 2,
    }
    look = layout(
        {"side": "top", "tickangle": -30, "automargin": True, "showgrid": False},
        {"autorange": "reversed", "showgrid": False},
    )
    return Plot(
        name=f"matrix-{number}",
        title=f"Attacks and defences at {budget(share)}",
        note=f"Test accuracy after the defence, in %; hover for intervals and what was dropped. {AIMED}: the attack "
        "was made against that defence. The last line is what the defence is worth against the attacks tried.",
        data=[trace],
        layout={**look, "margin": {**look["margin"], "t": 90}},
        height=190 + 44 * len(lines),
    )
