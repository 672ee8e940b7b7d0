"""Figures of single trials: what is thinned out, and what many classes share."""

from __future__ import annotations

from itertools import pairwise

from foretaste.record import TrialRecord
from foretaste.report.figures import trial as trial_figures
from foretaste.report.summary import summarise


def only(records: list[TrialRecord], *threats: str) -> list[TrialRecord]:
    return [trial for trial in records if trial.threat in threats]


def test_projection_and_objective_thin_out_evenly(audit: list[TrialRecord]) -> None:
    assert trial_figures._thin(5, 10) == [0, 1, 2, 3, 4]
    picked = trial_figures._thin(10_000, 100)
    assert (len(picked), picked[0], picked[-1]) == (100, 0, 9999)
    assert max(b - a for a, b in pairwise(picked)) <= 102


def test_many_classes_share_one_marker_and_keep_their_names_on_hover(audit: list[TrialRecord]) -> None:
    exact = next(trial for trial in audit if trial.projection)
    assert exact.projection is not None
    classes = [f"sign {number}" for number in range(43)]
    many = exact.projection.model_copy(update={"clean_labels": [row % 43 for row in range(600)]})
    data = exact.data.model_copy(update={"classes": classes})
    (plot,) = trial_figures.projections(summarise([exact.model_copy(update={"projection": many, "data": data})]))
    assert [trace["name"] for trace in plot.data] == ["clean rows", "poison"]
    assert set(plot.data[0]["hovertext"]) == {f"clean: {name}" for name in classes}
    assert len(plot.data[0]["x"]) == len(plot.data[0]["hovertext"]) == 600
