"""The heat map says what the matrix says."""

from __future__ import annotations

import json

import pytest

from foretaste import report
from foretaste.report.figures import heatmap
from foretaste.report.summary import summarise
from foretaste.report.tables import accuracy
from tests import records_fixture as planted
from tests.records_fixture import CLEAN_RIGHT, N
from tests.report.defended_fixture import attacked, twin

PLAIN = attacked(1462, {"sphere": (1662, 0.9), "trimmed": (1562, 0.5)})


AIMED = attacked(1502, {"sphere": (1480, 0.03), "trimmed": (1600, 0.6)}, "sphere")


def test_the_heat_map_is_the_table() -> None:
    summary = summarise([twin(sphere=1660, trimmed=1652), *PLAIN, *AIMED])
    (plot,) = heatmap.figures(summary)
    (trace,) = plot.data
    assert trace["type"] == "heatmap" and len(trace["z"]) == len(trace["y"]) == 4 and len(trace["x"]) == 5
    assert trace["text"][2] == ["75.1", "74.0 ◆", "74.0 ◆", "80.0", "80.0"]
    top = CLEAN_RIGHT / N
    assert trace["z"][2] == pytest.approx(
        [100 * (top - right / N) for right in (1502, 1480, 1480, 1600, 1600)], abs=1e-3
    )
    hover = trace["hovertext"][2][2]
    assert hover.startswith("exact (features, box, against sphere), sphere at 5 %<br>74.0 [")
    for told in (
        "poison dropped: 3.0 [2.0, 4.0] %",
        "clean rows dropped: 5.0 [4.5, 5.5] %",
        "AUROC: 51.5 [50.5, 52.5] %",
    ):
        assert told in hover
    assert hover.endswith("made against this defence")
    assert "clean rows dropped: 5.0 [4.5, 5.5] %" in trace["hovertext"][0][2]
    json.dumps(plot.figure, allow_nan=False)
    page = report.render([twin(sphere=1660, trimmed=1652), *PLAIN, *AIMED])
    assert 'id="matrix-0"' in page.html and page.html.index('id="recommendation"') < page.html.index('id="verdict"')
    assert page.markdown.index("## Recommendation") < page.markdown.index("## Verdict")
    assert accuracy.matrix(summarise(planted.audit())) is None and heatmap.figures(summarise(planted.audit())) == []
