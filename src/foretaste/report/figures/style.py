"""What all figures share: plain plotly JSON, one quiet look, and text that plotly cannot read as markup.

Every series has its own colour, marker and dash, so that no figure needs colour to be read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foretaste.record import Estimate

Json = dict[str, Any]

# Okabe and Ito (2008), without the yellow, which is too light on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
SYMBOLS = ["circle", "square", "diamond", "triangle-up", "star", "triangle-down", "hexagon", "pentagon"]
DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]
INK, MUTED, RULE = "#1b2127", "#59636e", "#e3e7eb"
POISON = "#D55E00"
# On top, where no axis title can run into it when its names need several lines.
LEGEND = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        name: id in the page.
        title: its heading.
        note: how to read it, and where the same numbers stand as text.
        data, layout: what plotly draws.
        height: in CSS pixels.
        wide: takes the page's whole width.
    """

    name: str
    title: str
    note: str
    data: list[Json]
    layout: Json
    height: int = 420
    wide: bool = True

    @property
    def figure(self) -> Json:
        """The JSON that plotly is given."""
        return {"data": self.data, "layout": {**self.layout, "height": self.height}}


def hundred(share: float) -> float:
    """A share as percent, for an axis."""
    return round(100 * share, 3)


def plain(text: str) -> str:
    """Text that plotly shows as it is: plotly decodes these entities and would read a tag as formatting."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def layout(x: Json, y: Json, **more: Any) -> Json:
    """The look that all figures share: quiet axes, the legend on top."""
    axis = {"gridcolor": RULE, "linecolor": MUTED, "zeroline": False, "ticks": "outside", "tickcolor": RULE}
    return {
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 12, "b": 56},
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "bordercolor": MUTED, "font": {"color": INK}},
        "legend": LEGEND,
        "xaxis": {**axis, "showgrid": False, **x},
        "yaxis": {**axis, "automargin": True, **y},
        **more,
    }


def named(title: str) -> Json:
    """An axis title in the size of its ticks."""
    return {"text": plain(title), "standoff": 10, "font": {"size": 13, "color": MUTED}}


def style(index: int) -> Json:
    """Colour, marker and dash of the series with this number."""
    colour = COLOURS[index % len(COLOURS)]
    symbol = SYMBOLS[index % len(SYMBOLS)]
    return {
        "line": {"color": colour, "width": 2, "dash": DASHES[index % len(DASHES)]},
        "marker": {"color": colour, "size": 9, "symbol": symbol, "line": {"color": "#ffffff", "width": 1}},
    }


def bars(estimates: list[Estimate], colour: str, axis: Callable[[float], float] = lambda v: v) -> Json:
    """Error bars from value, low and high."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [axis(e.high) - axis(e.value) for e in estimates],
        "arrayminus": [axis(e.value) - axis(e.low) for e in estimates],
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }
