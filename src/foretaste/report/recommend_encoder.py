"""What the figures say about defences of the encoder, in plain words: its repairs, scans and guards.

A sentence for each attack and kind, the best defence first. A defence is credited with its worst case over the plain
attack and those that were made against it (`against=NAME` in their variant). Figures are those of the tables: of the
headline probe, and of pairs that count. Nothing is said where nothing was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from foretaste.record import Estimate, Scanned, TrialRecord
from foretaste.report import numbers
from foretaste.report.aggregate import eligible, grouped, keys_of, mean_share, one_per_run, share
from foretaste.report.defended import against, aims_at
from foretaste.report.numbers import accuracy, budget, count, moved, percent
from foretaste.report.summary import PairRow, Summary
from foretaste.report.threats import THREATS, Threat
from foretaste.report.verdict import RECOMMENDATION, Sentence

SHOWN = 5
"""Attacks of a threat that have sentences of their own; all are in the tables."""


@dataclass(frozen=True)
class Ground:
    """One attack at one budget, and the same attack made against a defence.

    Attributes:
        threat: its threat.
        plain: the attack that reckons with no defence; None where every one does.
        aimed: those that do.
    """

    threat: Threat
    plain: PairRow | None
    aimed: list[PairRow]

    @property
    def name(self) -> str:
        """Of the attack, with its budget where there are several."""
        row = self.plain or self.aimed[0]
        return self.threat.named(row) if self.plain else row.attack

    @property
    def rows(self) -> list[PairRow]:
        """All of it."""
        return [*([self.plain] if self.plain else []), *self.aimed]

    def faced(self, key: str) -> list[PairRow]:
        """What a defence is credited with the worst of."""
        return [row for row in self.rows if row is self.plain or aims_at(row, key)]

    def basis(self, keys: Iterable[str]) -> str:
        """Which of the defences somebody tried to get past."""
        keys = list(keys)
        tested = [key for key in keys if any(aims_at(row, key) for row in self.aimed)]
        rest = ", ".join(key for key in keys if key not in tested)
        if not tested:
            return f"without an adaptive attack: none was made against {rest}"
        return f"counting what was made against {', '.join(tested)}" + (f"; nothing was against {rest}" if rest else "")


def grounds(threat: Threat, rows: list[PairRow]) -> list[Ground]:
    """The attacks on which a defence of the encoder was tried, in the order of the record."""
    found = []
    tried = [row for row in rows if any(one.repaired or one.scanned or one.guarded for one in row.pairs)]
    for own in grouped(tried, lambda row: (row.attack, row.budget)).values():
        aimed, plain = [row for row in own if against(row)], [row for row in own if not against(row)]
        found += [Ground(threat, row, aimed) for row in plain] or [Ground(threat, None, aimed)]
    return found


@dataclass(frozen=True)
class Case:
    """A defence in its worst case; the lower the rank, the better.

    Attributes:
        key: the defence.
        row: the attack that is the worst for it.
        rank: what cases are ordered by.
        text: the figures in words.
    """

    key: str
    row: PairRow
    rank: tuple[float, ...]
    text: str


Judge = Callable[[PairRow, str], tuple[tuple[float, ...], str] | None]


def cases(ground: Ground, keys: Iterable[str], judge: Judge) -> list[Case]:
    """Each defence that has figures, by its worst case; the best one first."""
    found = []
    for key in dict.fromkeys(keys):
        judged = [(row, one) for row in ground.faced(key) if (one := judge(row, key))]
        if judged:
            row, (rank, text) = max(judged, key=lambda one: one[1][0])
            aside = "" if row is ground.plain else f" where the attack is made against it ({ground.threat.named(row)})"
            found.append(Case(key, row, rank, text + aside))
    return sorted(found, key=lambda case: case.rank)


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
    start = f"the {count(len(steered), ground.plain.noun)} that" if ground.plain and steered else "what"
    texts = "; ".join(f"{case.text}, {_price(_change(clean, case.key))}" for case in found)
    claim = f"Of {start} {ground.name} steers, so many are still steered after a repair: {texts}"
    return Sentence(RECOMMENDATION, claim, ground.basis(case.key for case in found))


def _scans(ground: Ground) -> Sentence | None:
    event = ground.threat.event

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
        seen = [one.guarded[key] for one in eligible(row.pairs) if key in one.guarded]
        auroc = mean_share([one.share for one in seen if one.share is not None])
        if auroc is None:
            return None
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
    return [one for one in eligible(row.pairs if row else []) if one.target and one.target.success]


def _mean(bits: list[bool]) -> float:
    return sum(bits) / len(bits)


def _share(bits: list[bool]) -> str:
    """`90 % [70, 97]`, of one outcome or more."""
    found = share(bits)
    return numbers.share(found) if found else ""
