"""What the figures say about defences, in plain words: which one helps, what it costs, and who tried to get past it.

A defence is credited with what survives: its worst case over every attack at a budget, those made against it among
them, less the worst case without it. It helps where the interval of that gain, paired over the same test rows, is above
0. Nothing is taken from anywhere but the record.
"""

from __future__ import annotations

from dataclasses import dataclass

from foretaste.record import Estimate, TrialRecord, unpack_labels
from foretaste.report.aggregate import Bits, lowest, paired, right
from foretaste.report.defended import Column, Defended, Outcome, against, aims_at, everything, plain_form
from foretaste.report.numbers import accuracy, budget, count, label, moved, percent
from foretaste.report.recommend_encoder import encoder_recommendation
from foretaste.report.summary import Row, Summary
from foretaste.report.verdict import RECOMMENDATION, Sentence, strongest

SHOWN = 5
"""Adaptive attacks that have a sentence of their own; all are in the matrix."""


@dataclass(frozen=True)
class Credit:
    """One defence at one budget.

    Attributes:
        column: the defence.
        row: the attack that leaves the lowest accuracy under it.
        accuracy: that accuracy.
        gain: against the lowest accuracy without a defence; None where predictions cannot be paired.
    """

    column: Column
    row: Row
    accuracy: Estimate
    gain: Estimate | None

    @property
    def helps(self) -> bool:
        """By its interval."""
        return self.gain is not None and self.gain.low > 0


def recommendation(summary: Summary) -> list[Sentence]:
    """The recommendation, a sentence per budget first, then defences of the encoder.

    Empty where no attack on the labelled rows gave a result and no defence of the encoder was tried.
    """
    return [*_labelled(summary), *encoder_recommendation(summary)]


def _labelled(summary: Summary) -> list[Sentence]:
    if not summary.budgets:
        return []
    found = everything(summary)
    if not found.columns:
        return [Sentence(RECOMMENDATION, "No defence of the labelled rows was tried, so none can be recommended")]
    lines = [_at(summary, found, share) for share in summary.budgets]
    return [*lines, *_adaptive(summary, found), *_untested(summary, found)]


def credits(summary: Summary, found: Defended, share: float) -> list[Credit]:
    """What each defence is worth at one budget; those that not every attack there was tried under are left out."""
    before = strongest(summary, share)
    rows = [(place, row) for place, row in enumerate(summary.rows) if row.budget == share and row.head]
    credited = []
    for column in found.columns:
        own = [(found.outcomes[place, column], row) for place, row in rows if (place, column) in found.outcomes]
        if before is None or len(own) < len(rows):
            continue
        least = lowest((outcome.cell.poisoned, (outcome, row)) for outcome, row in own)
        if least is None:
            continue
        accuracy_left, (worst, row) = least
        bare = _right(summary, before.trials, next(iter(before.cells)))
        gain = paired(bare, _right(summary, worst.trials, column.key))
        credited.append(Credit(column, row, accuracy_left, gain))
    return credited


def _at(summary: Summary, found: Defended, share: float) -> Sentence:
    row = strongest(summary, share)
    assert row is not None
    assert row.head is not None
    at = f"At {budget(share)}"
    if row.head.change.high >= 0:
        return Sentence(
            RECOMMENDATION, f"{at} no attack lowered accuracy measurably, so there is nothing for a defence to undo"
        )
    known = [one for one in credits(summary, found, share) if one.gain]
    if not known:
        return Sentence(RECOMMENDATION, f"{at} no defence was tried against every attack, so none can be recommended")
    best = max(known, key=lambda one: one.gain.value if one.gain else 0.0)
    assert best.gain is not None
    tried = count(len({one.column.key for one in known}), "defence")
    if not best.helps:
        claim = f"{at} none of the defences tried helps by its interval; the best is {best.column.words}"
        return Sentence(RECOMMENDATION, f"{claim}, {moved(best.gain)} points", f"{tried} tried")
    lost = row.head.clean.value - row.head.poisoned.value
    claim = (
        f"{at} {best.column.words} undoes {percent(best.gain.value / lost, 0)} % of the damage of {row.name}: the "
        f"lowest accuracy that an attack here leaves is {percent(best.accuracy.value)} % with it and "
        f"{percent(row.head.poisoned.value)} % without, {moved(best.gain)} points"
    )
    return Sentence(
        RECOMMENDATION, f"{claim}; {_price(summary, found, best.column)}", f"{_tested(summary, best)}; {tried} tried"
    )


def _price(summary: Summary, found: Defended, column: Column) -> str:
    """What the defence costs where there is no poison."""
    if summary.clean is None or column not in found.clean:
        return "its price without poison was not measured"
    headline = next(iter(summary.clean.scores), "")
    after = _right(summary, [found.clean[column]], column.key)
    change = paired(_right(summary, [summary.clean], headline), after)
    if change is None:
        return "its price without poison was not measured"
    if change.low <= 0 <= change.high:
        return f"without poison it costs nothing measurable, {moved(change)} points"
    return f"without poison it {'costs' if change.value < 0 else 'gains'} accuracy, {moved(change)} points"


def _tested(summary: Summary, credit: Credit) -> str:
    """Whether somebody tried to get past it."""
    column, share = credit.column, credit.row.budget
    if any(row.budget == share and row.head and aims_at(row, column.key) for row in summary.rows):
        return f"that counts an attack made against {column.key}"
    if column.rate is None:
        return "the attacks were made for the plain head, not against this one"
    return f"without an adaptive attack: none was made against {column.key}, and one may get past it"


def _adaptive(summary: Summary, found: Defended) -> list[Sentence]:
    """What filters see of the attacks that were made against one, at the largest budget of those."""
    votes = [column.key for column in found.columns if column.rate is None]
    rows = [
        (place, row)
        for place, row in enumerate(summary.rows)
        if against(row) and row.head and found.of(place) and not any(aims_at(row, key) for key in votes)
    ]
    top = max((row.budget or 0.0 for _, row in rows), default=0.0)
    rows = [(place, row) for place, row in rows if row.budget == top]
    lines, unseen = [], []
    for place, row in rows:
        seen = [column for column, one in found.of(place).items() if _sees(one)]
        aimed = [(c, one) for c, one in found.of(place).items() if aims_at(row, c.key) and one.caught]
        if not seen:
            unseen.append(row.name)
        if aimed:
            column, one = aimed[-1]
            lines.append(Sentence(RECOMMENDATION, _caught(summary, found, row, column, one)))
    if rows and len(unseen) == len(rows):
        which = "the adaptive attack" if len(rows) == 1 else "the adaptive attacks"
        claim = f"No filter here sees {which} at {budget(top)}: none drops more of its poison than of the clean rows"
        return [Sentence(RECOMMENDATION, claim, "; ".join(unseen)), *lines[:SHOWN]]
    return lines[:SHOWN]


def _sees(outcome: Outcome) -> bool:
    """Whether the filter drops more of the poison than of the clean rows, by the interval of the former."""
    return bool(outcome.caught and outcome.flagged and outcome.caught.low > outcome.flagged.value)


def _caught(summary: Summary, found: Defended, row: Row, column: Column, outcome: Outcome) -> str:
    assert outcome.caught is not None
    claim = f"{column.words} drops {accuracy(outcome.caught)} % of the poison of {row.name} at {budget(row.budget)}"
    bare = plain_form(row)
    for place, other in enumerate(summary.rows):
        same = (other.attack, other.variant, other.budget) == (row.attack, bare, row.budget)
        if same and (one := found.of(place).get(column)) and one.caught:
            return f"{claim}, and {accuracy(one.caught)} % of that of {label(row.attack, bare)}"
    return claim


def _untested(summary: Summary, found: Defended) -> list[Sentence]:
    """Filters that no attack reckons with."""
    filters = dict.fromkeys(column.key for column in found.columns if column.rate is not None)
    left = [key for key in filters if not any(row.head and aims_at(row, key) for row in summary.rows)]
    if not left:
        return []
    named = ", ".join(left)
    return [
        Sentence(RECOMMENDATION, f"The figures of {named} are without an adaptive attack: none was made against them")
    ]


def _right(summary: Summary, trials: list[TrialRecord], key: str) -> list[Bits]:
    """Test rows that each trial's score gets right, bool [n] each; fewer than the trials where a record cannot say."""
    if summary.clean is None or not summary.clean.truth:
        return []
    truth = unpack_labels(summary.clean.truth)
    return [bits for trial in trials if (bits := right(trial, key, truth)) is not None]
