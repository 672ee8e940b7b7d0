"""The tables of the defender's methods: filters of the labelled rows, and repairs, guards and scans of the encoder.

Those of the encoder stand once under each threat.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from foretaste import statistics
from foretaste.record import Guarded, Repaired, RepairedProbe, Scanned, Steered, TargetScores, TrialRecord
from foretaste.report import numbers
from foretaste.report.aggregate import (
    eligible,
    grouped,
    keys_of,
    mean,
    mean_over_trials,
    mean_share,
    one_per_run,
    share,
)
from foretaste.report.defended import AIMED, aims_at, everything
from foretaste.report.numbers import accuracy, budget, moved, percent, points
from foretaste.report.summary import PairRow, Summary
from foretaste.report.tables import NONE, Line, Table, shown
from foretaste.report.threats import Threat

ELIGIBLE = "Over eligible pairs, with Wilson's 95 % interval and their number."


def filters(summary: Summary) -> Table | None:
    """A line per attack, budget and filter, over its seeds, the clean twin first; None without filters."""
    found = everything(summary)
    named = grouped((column for column in found.columns if column.rate is not None), lambda column: column.key)
    if not named:
        return None
    rates = [column.rate for column in next(iter(named.values()))]
    lines = []
    for key, columns in named.items():
        if any(column in found.clean for column in columns):
            cells = [percent(summary.head.clean.value) if summary.head else NONE, NONE]
            for column in columns:
                cells += [shown(found.accuracy(column)), NONE, shown(found.flagged[column])]
            lines.append(Line(["none (clean twin)", budget(0.0), key, *cells]))
    for place, row in enumerate(summary.rows):
        own = found.of(place)
        for key, columns in named.items():
            there = [own[column] for column in columns if column in own]
            if not there:
                continue
            cells = [percent(row.head.poisoned.value) if row.head else NONE, shown(there[0].auroc)]
            for one in there:
                cells += [
                    f"{accuracy(one.cell.poisoned)} ({points(one.cell.change.value)})",
                    shown(one.caught),
                    shown(one.flagged),
                ]
            lines.append(Line([row.name, budget(row.budget), key, *cells]))
    columns_of = [
        column
        for rate in rates
        for column in (f"accuracy at {budget(rate)}", f"poison dropped at {budget(rate)}", "clean dropped")
    ]
    sources = {f"{s.calibration} ({s.calibration_rows:,})" for trial in summary.tried for s in trial.defences.values()}
    shares = " and ".join(budget(rate) for rate in rates)
    return Table(
        "defences",
        f"Filters of the training rows, blind to the attack: accuracy of the head on the rows left, in % [95 % "
        f"interval] (change in points against the clean rows under the same filter), the shares dropped, in %, and the "
        f"AUROC of the scores, poison against clean, in %. Thresholds at false-alarm rates of {shares}, set by: "
        f"{'; '.join(sorted(sources))}.",
        ["attack", "budget", "filter", "without", "AUROC", *columns_of],
        lines,
        3,
    )


def of_encoder(threat: Threat, rows: list[PairRow], clean: TrialRecord | None) -> list[Table]:
    """Those kinds that the trials of the threat have; `clean` is the clean twin."""
    found = (repairs(threat, rows, clean), guards(threat, rows, clean), scans(threat, rows))
    return [table for table in found if table]


def repairs(threat: Threat, rows: list[PairRow], clean: TrialRecord | None) -> Table | None:
    """A line per attack, repair and probe: success before and after, accuracy, and what the repair costs."""
    lines = []
    for row in rows:
        for key in keys_of(trial.repaired for trial in row.pairs):
            given = [trial for trial in row.pairs if key in trial.repaired]
            probes = keys_of(trial.repaired[key].probes for trial in given)
            lines += [
                Line([*_start(threat, row), _named(row, key), name, *_repair(given, key, name, clean)])
                for name in probes or [NONE]
            ]
    if not lines:
        return None
    counts = {f"{one.clean_images:,}" for row in rows for trial in row.pairs for one in trial.repaired.values()}
    caption = (
        f"Repairs of the encoder with {' or '.join(sorted(counts))} clean images of the defender's own, blind to the "
        f"attack; heads are fitted anew. {ELIGIBLE} Already so: the clean encoder, repaired, gives the wanted class. "
        "Right after: the repaired pipeline gets the image right. Accuracy after minus before the repair, in points: "
        "of the encoder of the attack (mean over runs, bootstrap over them) and of the clean one (bootstrap over test "
        "rows). Failed: pairs without a repaired encoder; they are in no figure."
        + _aimed(rows, keys_of(trial.repaired for row in rows for trial in row.pairs))
    )
    head = ["repair", "probe", "steered before", "steered after", "already so", "right after"]
    columns = [*_head(threat), *head, "accuracy change", "on the clean encoder", "failed"]
    return Table(f"{threat.key}-repairs", caption, columns, lines, len(_head(threat)) + 2)


def _repair(trials: list[TrialRecord], key: str, name: str, clean: TrialRecord | None) -> list[str]:
    made = [trial for trial in trials if name in trial.repaired[key].probes]
    pairs = [
        (target, steered, trial.repaired[key].probes[name])
        for trial in made
        if (target := trial.target) and (steered := _steered(target, name)).eligible
    ]
    change = mean_over_trials(trial.repaired[key].probes[name].change for trial in one_per_run(made))
    twin: Repaired | None = clean.repaired.get(key) if clean else None
    cost = twin.probes.get(name) if twin else None
    return [
        _count([steered.success for _, steered, _ in pairs]),
        _count([bool(after.success) for _, _, after in pairs]),
        _of([bool(after.clean_success) for _, _, after in pairs]),
        _of([_right(target, after) for target, _, after in pairs]),
        moved(change) if change else NONE,
        moved(cost.change) if cost else NONE,
        f"{len(trials) - len(made)}",
    ]


def guards(threat: Threat, rows: list[PairRow], clean: TrialRecord | None) -> Table | None:
    """A line per attack and guard: AUROC, and at each false-alarm rate what is flagged; the clean twin's come first."""
    lines: list[Line] = []
    keys = keys_of(trial.guarded for row in rows for trial in row.pairs)
    every = [trial.guarded[key] for row in rows for trial in row.pairs for key in keys if key in trial.guarded]
    rates = [alarm.rate for alarm in next((one.alarms for one in every if one.alarms), [])]
    if not every:
        return None
    blank = [NONE] * (len(_head(threat)) - 1)
    for key in keys:
        if clean and (twin := clean.guarded.get(key)):
            quiet = [cell for alarm in twin.alarms for cell in (NONE, percent(alarm.false_alarms.value))]
            lines.append(Line(["none (clean twin)", *blank, key, NONE, NONE, *quiet, NONE]))
    for row in rows:
        for key in keys_of(trial.guarded for trial in row.pairs):
            given = [trial for trial in row.pairs if key in trial.guarded]
            seen = [trial.guarded[key] for trial in eligible(given)]
            failed = sum(bool(trial.guarded[key].error) for trial in given)
            lines.append(Line([*_start(threat, row), _named(row, key), *_guard(seen, len(rates)), f"{failed}"]))
    sizes = {f"{one.clean_images:,} clean images, thresholds from {one.calibration_images:,} more" for one in every}
    caption = (
        f"Guards at use time, blind to the attack; what is normal is learnt from {' or '.join(sorted(sizes))}. "
        f"{ELIGIBLE} AUROC: chance that the chosen image scores above a test image that the attack was not after, and "
        "the same in front of the clean encoder. Flagged at a false-alarm rate: chosen images, and other test images "
        "(mean), in %. Failed: pairs without a score." + _aimed(rows, keys)
    )
    at = [column for rate in rates for column in (f"flagged at {budget(rate)}", "false alarms")]
    columns = [*_head(threat), "guard", "AUROC", "without the attack", *at, "failed"]
    return Table(f"{threat.key}-guards", caption, columns, lines, len(_head(threat)) + 1)


def _guard(seen: list[Guarded], rates: int) -> list[str]:
    shares = [one.share for one in seen if one.share is not None]
    before = mean([one.clean_share for one in seen if one.clean_share is not None])
    auroc = mean_share(shares)
    cells = [
        f"{accuracy(auroc)} %, n = {len(shares)}" if auroc else NONE,
        NONE if before is None else f"{percent(before)} %",
    ]
    for place in range(rates):
        alarms = [one.alarms[place] for one in seen if one.alarms]
        quiet = mean([alarm.false_alarms.value for alarm in alarms])
        cells += [
            _count([bool(alarm.flagged) for alarm in alarms]),
            NONE if quiet is None else percent(quiet),
        ]
    return cells


def scans(threat: Threat, rows: list[PairRow]) -> Table | None:
    """A line per attack and scan: scores of the encoder beside the clean one, and where the target stands."""
    lines, null = [], set[int]()
    for row in rows:
        for key in keys_of(trial.scanned for trial in row.pairs):
            given = [trial for trial in row.pairs if key in trial.scanned]
            null |= {len(trial.scanned[key].null_scores) for trial in given}
            lines.append(Line([*_start(threat, row), _named(row, key), *_scan(given, key)]))
    if not lines:
        return None
    beside = f"{max(null):,} clean encoders" if max(null) else "no clean encoders, so there is none"
    caption = (
        "Scans of the encoder, blind to the attack: scores in each scan's own units, higher is more suspicious; median "
        "over runs, with the least and the greatest. The defender holds its clean images and, at their end, the chosen "
        f"ones. False-alarm rate: beside {beside}; where that of the clean encoder is as low, the null is of other "
        "encoders, and an alarm says nothing of an attack. Rank of the chosen image among itself and the clean images, "
        "1 is the most suspicious; class: the scan names the wanted one. Over all pairs, eligible or not."
        + _aimed(rows, keys_of(trial.scanned for row in rows for trial in row.pairs))
    )
    scores = ["score", "false-alarm rate", "clean encoder", "its rate"]
    head = ["scan", "runs", *scores, "first", "rank", "among", "class", "failed"]
    return Table(f"{threat.key}-scans", caption, [*_head(threat), *head], lines, len(_head(threat)) + 1)


def _scan(trials: list[TrialRecord], key: str) -> list[str]:
    found: list[Scanned] = [trial.scanned[key] for trial in trials if not trial.scanned[key].error]
    runs = [trial.scanned[key] for trial in one_per_run(trials) if not trial.scanned[key].error]
    ranks = [one.rank for one in found if one.rank is not None]
    towards = [one.towards_target for one in found if one.towards_target is not None]
    return [
        f"{len(runs)}",
        _spread([one.score for one in runs]),
        _spread([one.false_alarm_rate for one in runs]),
        _spread([one.clean_score for one in runs]),
        _spread([clean_rate(one) for one in runs]),
        _of([rank == 1 for rank in ranks]),
        _spread(ranks),
        _spread([one.inputs for one in found]),
        _of(towards),
        f"{len(trials) - len(found)}",
    ]


def clean_rate(one: Scanned) -> float | None:
    """The false-alarm rate of the clean encoder under the scan of an edited one; None without a null."""
    return None if one.clean_score is None else statistics.false_alarm_rate(one.clean_score, one.null_scores)


def _head(threat: Threat) -> list[str]:
    return ["attack", "budget"] if threat.share else ["attack"]


def _start(threat: Threat, row: PairRow) -> list[str]:
    return [row.name, budget(row.budget)] if threat.share else [row.name]


def _named(row: PairRow, key: str) -> str:
    """The defence, marked where the row's attack was made against it."""
    return f"{key} {AIMED}" if aims_at(row, key) else key


def _aimed(rows: list[PairRow], keys: Iterable[str]) -> str:
    """What the mark means, for a caption; nothing where no line bears it."""
    there = any(aims_at(row, key) for key in keys for row in rows)
    return f" {AIMED}: the attack was made against that defence." if there else ""


def _steered(target: TargetScores, probe: str) -> Steered:
    """The probe's own scores; records without them have the headline alone."""
    return target.probes.get(probe, target)


def _right(target: TargetScores, after: RepairedProbe) -> bool:
    return after.prediction == target.true_class


def _count(bits: list[bool]) -> str:
    """`90 % [70, 97], n = 20`."""
    found = share(bits)
    return f"{numbers.share(found)}, n = {found.n}" if found else NONE


def _of(bits: list[bool]) -> str:
    return f"{sum(bits)} of {len(bits)}" if bits else NONE


def _spread(values: Iterable[float | None]) -> str:
    """`3.1 (2.8 to 4)`, or a single number where all are the same; `3e+02` has no place in a table."""
    known = [value for value in values if value is not None]
    if not known:
        return NONE
    low, middle, high = (_plain(value) for value in (min(known), median(known), max(known)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
