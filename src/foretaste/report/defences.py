"""The table of the defender's filters: what each one finds of the poison, and what the head is worth after it."""

from __future__ import annotations

import numpy as np

from foretaste.record import Estimate, TrialRecord
from foretaste.report.numbers import accuracy, budget, percent, points
from foretaste.report.pairing import Twins, pair
from foretaste.report.summary import Row, Summary
from foretaste.report.tables import NONE, Line, Table


def table(summary: Summary) -> Table | None:
    """A line per attack, budget and filter, over its seeds, the clean twin first; None without filters."""
    trials = [*([summary.clean] if summary.clean else []), *(trial for row in summary.rows for trial in row.trials)]
    keys = list(dict.fromkeys(key for trial in trials for key in trial.defences))
    if not keys:
        return None
    rates = [alarm.rate for alarm in next(trial.defences[key] for trial in trials for key in trial.defences).alarms]
    lines = (
        [] if summary.clean is None else [_clean(summary.clean, key) for key in keys if key in summary.clean.defences]
    )
    lines += [_line(summary, row, key) for row in summary.rows for key in keys if _defended(row, key)]
    columns = [
        column
        for rate in rates
        for column in (f"accuracy at {budget(rate)}", f"poison dropped at {budget(rate)}", "clean dropped")
    ]
    sources = {f"{s.calibration} ({s.calibration_rows:,})" for trial in trials for s in trial.defences.values()}
    shares = " and ".join(budget(rate) for rate in rates)
    return Table(
        "defences",
        f"Filters of the training rows, blind to the attack: accuracy of the head on the rows left, in % [95 % "
        f"interval] (change in points against the clean rows under the same filter), the shares dropped, in %, and the "
        f"AUROC of the scores, poison against clean, in %. Thresholds at false-alarm rates of {shares}, set by: "
        f"{'; '.join(sorted(sources))}.",
        ["attack", "budget", "filter", "without", "AUROC", *columns],
        lines,
        3,
    )


def _defended(row: Row, key: str) -> list[TrialRecord]:
    return [trial for trial in row.trials if key in trial.defences]


def _clean(twin: TrialRecord, key: str) -> Line:
    headline = next(iter(twin.scores.values()), None)
    cells = [percent(headline.clean.value) if headline else NONE, NONE]
    for alarm in twin.defences[key].alarms:
        cells += [accuracy(alarm.scores.clean), NONE, percent(alarm.clean.value)]
    return Line(["none (clean twin)", budget(0.0), key, *cells])


def _line(summary: Summary, row: Row, key: str) -> Line:
    trials = _defended(row, key)
    found = [trial.defences[key] for trial in trials]
    ranks = [one.auroc for one in found if one.auroc]
    cells = [percent(row.head.poisoned.value) if row.head else NONE, accuracy(_mean(ranks)) if ranks else NONE]
    for place, _ in enumerate(found[0].alarms):
        twins = Twins([_view(summary.clean, key, place)] if summary.clean and key in summary.clean.defences else [])
        cell, _ = pair([_view(trial, key, place) for trial in trials], key, twins)
        alarms = [one.alarms[place] for one in found]
        poison = [alarm.poison.value for alarm in alarms if alarm.poison]
        cells += [
            f"{accuracy(cell.poisoned)} ({points(cell.change.value)})",
            percent(float(np.mean(poison))) if poison else NONE,
            percent(float(np.mean([alarm.clean.value for alarm in alarms]))),
        ]
    return Line([row.name, budget(row.budget), key, *cells])


def _view(trial: TrialRecord, key: str, place: int) -> TrialRecord:
    """The trial as if the head after the filter were its only score, so that it is paired as every score is."""
    alarm = trial.defences[key].alarms[place]
    return trial.model_copy(update={"scores": {key: alarm.scores}, "predictions": {key: alarm.predictions}})


def _mean(found: list[Estimate]) -> Estimate:
    """Mean over seeds with the mean of their own intervals: as wide as if all seeds erred alike, since two or three
    numbers have no spread to speak of.
    """
    value, low, high = (float(np.mean([getattr(one, end) for one in found])) for end in ("value", "low", "high"))
    return Estimate(value=value, low=low, high=high, n=found[0].n, method=f"{found[0].method}, mean of the trials")
