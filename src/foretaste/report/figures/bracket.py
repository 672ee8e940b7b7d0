"""The bracket of each certified head as a figure: what attacks found above, what the certificate proves below."""

from __future__ import annotations

from foretaste.record import Estimate
from foretaste.report.figures.style import Plot, bars, hundred, layout, named, plain, style
from foretaste.report.numbers import accuracy, budget
from foretaste.report.summary import Summary
from foretaste.report.tables.certified import Step, caveat, heads, steps


def figures(summary: Summary) -> list[Plot]:
    """One figure per certified head."""
    return [
        _figure(key, steps(summary, key), caveat(summary, [key]), number) for number, key in enumerate(heads(summary))
    ]


def _figure(key: str, found: list[Step], told: str, number: int) -> Plot:
    series: list[tuple[str, list[Estimate | None]]] = [
        ("plain head, lowest found", [step.plain.accuracy if step.plain else None for step in found]),
        (f"{key}, lowest found", [step.voted.accuracy if step.voted else None for step in found]),
        (f"{key}, certified", [step.bound for step in found]),
    ]
    data = []
    for place, (name, estimates) in enumerate(series):
        known = [(at, estimate) for at, estimate in enumerate(estimates) if estimate]
        look = style(place)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(name),
                "x": [at + 0.04 * (place - 1) for at, _ in known],
                "y": [hundred(estimate.value) for _, estimate in known],
                "error_y": bars([estimate for _, estimate in known], look["line"]["color"], hundred),
                "hoverinfo": "text",
                "hovertext": [plain(f"{name} at {budget(found[at].share)}: {accuracy(e)} %") for at, e in known],
                **look,
            }
        )
    return Plot(
        name=f"bracket-{number}",
        title=f"The bracket of {key}",
        note=f"The worst case of {key} lies between its two lines. Bars: 95 % interval over the test rows. {told}",
        data=data,
        layout=layout(
            {
                "title": named("poisoned rows / clean training rows"),
                "tickvals": list(range(len(found))),
                "ticktext": [budget(step.share) if step.share else "0 % (clean)" for step in found],
                "range": [-0.15, len(found) - 0.65],
            },
            {"title": named("test accuracy, %"), "range": [0, 102]},
        ),
    )
