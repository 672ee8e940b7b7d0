"""What the figures say about defences of the encoder, in plain words: its repairs, scans and guards.

A sentence for each attack and kind, the best defence first. A defence is credited with its worst case over the plain
attack and those that were made against it (`against=NAME` in their variant). Figures are those of the tables: of the
headline probe, and of pairs that count. Nothing is said where nothing was tried.
"""

from __future__ import annotations

import numpy as np

from foretaste import statistics
from foretaste.record import Estimate, Scanned, TrialRecord
from foretaste.report.encoder_defences import keys_of
from foretaste.report.ground import Ground, Judge, cases, grounds
from foretaste.report.numbers import accuracy, budget, count, interval, moved, percent
from foretaste.report.pairs import THREATS
from foretaste.report.steering import PairRow, one_per_run
from foretaste.report.summary import Summary
from foretaste.report.verdict import RECOMMENDATION, Sentence

SHOWN = 5
"""Attacks of a threat that have sentences of their own; all are in the tables."""
EVENTS = {"weights": "edit", "targeted": "attack", "pretraining": "run"}
"""What a scan sees once, by threat."""


def encoder_recommendation(summary: Summary) -> list[Sentence]:
    """By threat and attack, a sentence for its repairs, one for its scans and one for its guards, where it has them."""
    lines = []
    for threat in THREATS:
        for ground in grounds(threat, threat.rows(summary))[:SHOWN]:
            said = (_repairs(ground, summary.clean), _scans(ground), _guards(ground))
            lines += [line for line in said if line]
    return lines


def _repairs(ground: Ground, clean: TrialRecord | None) -> Sentence | None:
    steered = _steered(ground.plain)

    def judge(row: PairRow, key: str) -> tuple[tuple[float, ...], str] | None:
        tried = [one.repaired[key] for one in _steered(row) if key in one.repaired]
        still = [bool(next(iter(one.probes.values())).success) for one in tried if one.probes]
        if not still:
            return None
        of = "" if row is ground.plain and len(still) == len(steered) else f" of {len(still)}"
        failed = f"; {len(tried) - len(still)} failed" if len(still) < len(tried) else ""
        change = _change(clean, key)
        rank = (_mean(still), -change.value if change else 1.0)
        return rank, f"{sum(still)}{of} ({_share(still)}{failed}) after {key}"

    found = cases(ground, keys_of(one.repaired for row in ground.rows for one in row.pairs), judge)
    if not found:
        return None
    start = f"the {count(len(steered), _noun(ground.plain))} that" if ground.plain and steered else "what"
    texts = "; ".join(f"{case.text}, {_price(_change(clean, case.key))}" for case in found)
    claim = f"Of {start} {ground.name} steers, so many are still steered after a repair: {texts}"
    return Sentence(RECOMMENDATION, claim, ground.basis(case.key for case in found))


def _scans(ground: Ground) -> Sentence | None:
    event = EVENTS[ground.threat.key]

    def judge(row: PairRow, key: str) -> tuple[tuple[float, ...], str] | None:
        given = [one for one in row.pairs if key in one.scanned and not one.scanned[key].error]
        runs = [one.scanned[key] for one in one_per_run(given)]
        ranks = [rank for one in given if (rank := one.scanned[key].rank) is not None]
        first = [rank == 1 for rank in ranks]
        above = [bit for one in runs if (bit := _stands_out(one.score, one)) is not None]
        wolf = [one for one in runs if _stands_out(one.clean_score, one)]
        if not first and not above:
            return None
        credit = [False] if wolf else above  # an alarm that the clean encoder raises too says nothing of an attack
        order = (-_mean(first or credit), -_mean(credit or first))
        if not any(first) and not any(above):
            return order, f"{key} sees none of {count(len(runs), event)}"
        told = []
        if first:
            told.append(f"ranks the chosen image first in {sum(first)} of {len(first)} ({_share(first)})")
        if above:
            null = min(len(one.null_scores) for one in runs)
            rate = f", a false-alarm rate of {budget(1 / (null + 1))}" if null else ""
            than = f"all {null} clean encoders" if null else "the clean one"
            also = f", and the clean encoder too in {len(wolf)} of {len(above)}" if wolf else ""
            told.append(f"scores {sum(above)} of {count(len(above), event)} ({_share(above)}) above {than}{rate}{also}")
        return order, f"{key} {' and '.join(told)}"

    return _listed(ground, keys_of(one.scanned for row in ground.rows for one in row.pairs), judge, "Scans")


def _guards(ground: Ground) -> Sentence | None:
    def judge(row: PairRow, key: str) -> tuple[tuple[float, ...], str] | None:
        eligible = [one for one in row.pairs if one.target and one.target.eligible]
        seen = [one.guarded[key] for one in eligible if key in one.guarded]
        shares = [one.share for one in seen if one.share is not None]
        if not shares:
            return None
        auroc = statistics.mean_share(np.array(shares))
        chance = ", which may be chance," if auroc.low <= 0.5 <= auroc.high else ""
        text = f"{key} has an AUROC of {accuracy(auroc)} %{chance}"
        if alarms := [one.alarms[-1] for one in seen if one.alarms]:
            flagged = [bool(alarm.flagged) for alarm in alarms]
            rate = budget(alarms[0].rate)
            text += f" and flags {sum(flagged)} of {len(flagged)} ({_share(flagged)}) at {rate} false alarms"
        return (-auroc.value,), text.rstrip(",")

    return _listed(ground, keys_of(one.guarded for row in ground.rows for one in row.pairs), judge, "Guards")


def _listed(ground: Ground, keys: list[str], judge: Judge, kind: str) -> Sentence | None:
    found = cases(ground, keys, judge)
    if not found:
        return None
    claim = f"{kind} against {ground.name}: {'; '.join(case.text for case in found)}"
    return Sentence(RECOMMENDATION, claim, ground.basis(case.key for case in found))


def _stands_out(score: float | None, one: Scanned) -> bool | None:
    """Above all clean encoders, or the clean one where there are no others; None without scores to compare."""
    beside = one.null_scores or ([] if one.clean_score is None else [one.clean_score])
    return score > max(beside) if score is not None and beside else None


def _change(clean: TrialRecord | None, key: str) -> Estimate | None:
    """What the repair does to the accuracy of the clean encoder; None where that was not measured."""
    twin = clean.repaired.get(key) if clean else None
    return next((probe.change for probe in twin.probes.values()), None) if twin else None


def _price(change: Estimate | None) -> str:
    if change is None:
        return "at a price that was not measured"
    if change.low <= 0 <= change.high:
        return f"which costs a clean encoder nothing measurable, {moved(change)} points"
    if change.value > 0:
        return f"with which a clean encoder gains {moved(change)} points of accuracy"
    lost = [percent(-bound) for bound in (change.value, change.high, change.low)]
    return f"which costs a clean encoder {lost[0]} [{lost[1]}, {lost[2]}] points of accuracy"


def _steered(row: PairRow | None) -> list[TrialRecord]:
    """Trials with an eligible pair that the headline probe says was steered."""
    return [one for one in (row.pairs if row else []) if one.target and one.target.eligible and one.target.success]


def _noun(row: PairRow) -> str:
    images = {trial.target.index for trial in row.pairs if trial.target}
    return "chosen image" if len(images) == len(row.pairs) else "(image, class) pair"


def _mean(bits: list[bool]) -> float:
    return sum(bits) / len(bits)


def _share(bits: list[bool]) -> str:
    """`90 % [70, 97]`."""
    share = statistics.wilson(sum(bits), len(bits))
    return f"{percent(share.value, 0)} % {interval(share, 0)}"
