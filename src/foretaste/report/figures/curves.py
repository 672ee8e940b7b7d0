"""The main figures: budget curves, and the share of images steered. The tables hold the same numbers."""

from __future__ import annotations

from foretaste.record import Estimate
from foretaste.report.figures.style import COLOURS, INK, MUTED, Json, Plot, bars, hundred, layout, named, plain, style
from foretaste.report.numbers import accuracy, budget, label, moved, percent, share
from foretaste.report.summary import PairRow, Row, Summary
from foretaste.report.threats import Threat

LABEL_GAP = 0.05
"""Levels closer than this share one label, which would otherwise cover each other."""


def curves(summary: Summary) -> list[Plot]:
    """Accuracy against budget, one figure per score key, the headline's first and widest."""
    keys = [key for key in summary.keys if any(key in row.cells and row.budget is not None for row in summary.rows)]
    return [_curve(summary, key, number) for number, key in enumerate(keys)]


_CURVE_NOTE = (
    "Bars: 95 % interval of the paired change, placed at the clean accuracy. Budgets are evenly spaced, and attacks "
    "are set a little apart, so that bars do not cover each other."
)


def _curve(summary: Summary, key: str, number: int) -> Plot:
    shares = summary.budgets
    names = list(dict.fromkeys((row.attack, row.variant) for row in summary.rows))
    rows = [row for row in summary.rows if key in row.cells and row.budget is not None]
    shown = [name for name in names if any((row.attack, row.variant) == name for row in rows)]
    data, top = [], 0.0
    for place, name in enumerate(shown):
        own = [row for row in rows if (row.attack, row.variant) == name]
        look = style(names.index(name))  # the same attack looks the same in every figure
        dodge = 0.05 * (place - (len(shown) - 1) / 2)
        cells = [row.cells[key] for row in own]
        top = max(top, *(100 * max(cell.clean.high, cell.poisoned.high) for cell in cells))
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(label(*name)),
                "x": [0, *(shares.index(row.budget) + 1 + dodge for row in own if row.budget is not None)],
                "y": [round(100 * value, 3) for value in (cells[0].clean.value, *(c.poisoned.value for c in cells))],
                "error_y": bars([_point(cells[0].clean), *(c.poisoned for c in cells)], look["line"]["color"], hundred),
                "hoverinfo": "text",
                "hovertext": [
                    plain(f"clean: {accuracy(cells[0].clean)} %"),
                    *(_hover(row, key).replace("\n", "<br>") for row in own),
                ],
                **look,
            }
        )
    shapes, notes = _lines(summary, key, rows)
    main = number == 0
    return Plot(
        name=f"curve-{number}",
        title=key,
        note=_CURVE_NOTE if main else "Bars as above.",
        data=data,
        layout=layout(
            {
                "title": named("poisoned rows / clean training rows"),
                "tickvals": list(range(len(shares) + 1)),
                "ticktext": ["0 % (clean)", *map(budget, shares)],
                "range": [-0.15, len(shares) + 0.35],
            },
            {
                "title": named("test accuracy, %"),
                "range": [0, min(102, top + 6)],
            },
            shapes=shapes,
            annotations=notes,
        ),
        height=460 if main else 380,
        wide=main,
    )


def _point(estimate: Estimate) -> Estimate:
    """The clean accuracy starts every curve; its own interval is in the table, since the changes are paired."""
    return estimate.model_copy(update={"low": estimate.value, "high": estimate.value})


def _hover(row: Row, key: str) -> str:
    cell = row.cells[key]
    lines = [
        row.name,
        f"{budget(row.budget)} poisoned: {accuracy(cell.poisoned)} %",
        f"change {moved(cell.change)} points",
    ]
    return "\n".join(map(plain, lines))


def _lines(summary: Summary, key: str, rows: list[Row]) -> tuple[list[Json], list[Json]]:
    """Horizontal lines: clean accuracy, chance, and the other yardsticks of the clean twin."""
    levels = [("clean", rows[0].cells[key].clean.value, "dash")]
    controls = {name: estimate.value for name, estimate in (summary.clean.controls if summary.clean else {}).items()}
    controls.setdefault("chance", summary.data.chance)
    levels += [(name, value, "dot") for name, value in controls.items()]
    levels.sort(key=lambda level: level[1])
    shapes: list[Json] = []
    labels: list[tuple[str, float]] = []
    for name, value, dash in levels:
        line = {"color": MUTED, "width": 1.2, "dash": dash}
        ends = {"xref": "paper", "x0": 0, "x1": 1, "y0": hundred(value), "y1": hundred(value)}
        shapes.append({"type": "line", "line": line, "layer": "below", **ends})
        words = f"{name} {percent(value)} %"
        if labels and value - labels[-1][1] < LABEL_GAP:
            words = f"{labels.pop()[0]}, {words}"
        labels.append((words, value))
    at = {"xref": "paper", "x": 1, "xanchor": "right", "yanchor": "bottom", "showarrow": False}
    font = {"size": 12, "color": MUTED}
    return shapes, [{"text": plain(words), "y": hundred(value), "font": font, **at} for words, value in labels]


def steered(threat: Threat, attacked: list[PairRow]) -> Plot | None:
    """Share of eligible pairs steered, beside the share that had the wanted class before; Wilson's intervals."""
    rows = [(plain(threat.named(row, ", ")), row.success, row.base) for row in attacked if row.success and row.base]
    if not rows:
        return None
    series = [
        ("steered, of the eligible pairs", "", COLOURS[0], [success for _, success, _ in rows]),
        ("wanted class before, of all pairs", "/", MUTED, [base for _, _, base in rows]),
    ]
    data = []
    for name, pattern, colour, found in series:
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": [attack for attack, _, _ in rows],
                "x": [hundred(e.value) for e in found],
                "error_x": bars(found, INK, hundred),
                "marker": {"color": colour, "pattern": {"shape": pattern, "fgcolor": colour, "bgcolor": "#ffffff"}},
                "hoverinfo": "text",
                "hovertext": [plain(f"{name}: {share(e)}, n = {e.n}") for e in found],
                "textposition": "none",
            }
        )
    return Plot(
        name="steered" if threat.key == "weights" else f"steered-{threat.key}",
        title=threat.how,
        note="Bars: share of (image, class) pairs, with Wilson's 95 % interval.",
        data=data,
        layout=layout(
            {"title": named("share of pairs, %"), "range": [0, 103], "showgrid": True},
            {"autorange": "reversed"},
            barmode="group",
            bargap=0.35,
        ),
        height=170 + 80 * len(rows),
    )
