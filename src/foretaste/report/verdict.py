"""The verdict in plain words. Every number in it is one of the summary's; nothing is rated or rounded up."""

from __future__ import annotations

from dataclasses import dataclass

from foretaste.report.aggregate import Cell, lowest
from foretaste.report.numbers import (
    accuracy,
    budget,
    change_interval,
    count,
    interval,
    outcomes,
    percent,
    points,
    share,
)
from foretaste.report.summary import PairRow, Row, Summary
from foretaste.report.threats import THREATS, Threat


@dataclass(frozen=True)
class Sentence:
    """One sentence of the verdict.

    Attributes:
        topic: the part of the audit that it is about.
        claim: what was found.
        basis: what the claim rests on: attack, n, seeds; may be empty.
    """

    topic: str
    claim: str
    basis: str = ""

    @property
    def text(self) -> str:
        """The whole sentence, with its full stop."""
        return f"{self.claim} ({self.basis})." if self.basis else f"{self.claim}."


RECOMMENDATION = "Recommendation"
LABELLED = "Labelled rows"
WEIGHTS = "Encoder weights"
YARDSTICKS = "Yardsticks"
LIMITS = "Limits"


def sentences(summary: Summary) -> list[Sentence]:
    """The verdict, most important first: labelled rows, chosen images, yardsticks, limits."""
    return [*_labelled(summary), *_steering(summary), _yardsticks(summary), *_limits(summary)]


def strongest(summary: Summary, at: float) -> Row | None:
    """The row with the largest drop of the headline accuracy at one budget."""
    least = lowest((row.head.change, row) for row in summary.rows if row.budget == at and row.head)
    return least[1] if least else None


def _labelled(summary: Summary) -> list[Sentence]:
    if not any(trial.threat == "labelled" for trial in summary.records):
        return [Sentence(LABELLED, "No attack on the labelled rows was part of this audit")]
    worst = [row for at in summary.budgets if (row := strongest(summary, at))]
    if not worst:
        failed = count(sum(row.failed for row in summary.rows), "trial")
        return [
            Sentence(LABELLED, f"No attack on the labelled rows gave a result, so nothing follows: {failed} failed")
        ]
    lines = [_cost(row, row.head) for row in worst if row.head]
    row = worst[-1]
    beside = sorted(
        (
            (other.head.change.value, other.name, other.head)
            for other in summary.rows
            if other.head and other is not row and other.budget == row.budget
        ),
        key=lambda item: item[:2],
    )
    if beside:
        others = "; ".join(f"{name} {accuracy(cell.poisoned)} %" for _, name, cell in beside)
        lines.append(Sentence(LABELLED, f"The other attacks at {budget(row.budget)} leave an accuracy of: {others}"))
    if known := _knowledge(summary):
        lines.append(Sentence(LABELLED, known))
    if elsewhere := "; ".join(f"{key} {accuracy(row.cells[key].poisoned)} %" for key in list(row.cells)[1:]):
        lines.append(
            Sentence(LABELLED, f"The poison of {row.name} at {budget(row.budget)}, judged otherwise: {elsewhere}")
        )
    return lines


def _knowledge(summary: Summary) -> str:
    """What the attacker knew, where it was less than everything; records of older audits do not say, and mean that."""
    base = next((trial.spec.get("base") for trial in summary.records if trial.threat == "labelled"), None)
    attacker = base.get("attacker") if isinstance(base, dict) else None
    if not isinstance(attacker, dict):
        return ""
    known, encoder = attacker.get("share"), attacker.get("encoder")
    claim = {
        "full": "The attacker knows all of the training rows",
        "subset": f"The attacker knows {budget(known if isinstance(known, float) else None)} of the training rows",
        "surrogate": "The attacker knows none of the training rows and works on others of the same kind",
    }.get(str(attacker.get("rows")), "")
    if isinstance(encoder, dict):
        weights = f" with {encoder['weights']}" if encoder.get("weights") else ""
        claim += f", and not the encoder: it works on {encoder.get('reference')}{weights}"
    return claim


def _cost(row: Row, cell: Cell) -> Sentence:
    source = f"{row.attack}{', ' if row.variant else ''}{row.variant}"
    basis = f"{source}; n = {count(cell.rows, 'test row')}, {count(cell.seeds, 'seed')}"
    before, after = percent(cell.clean.value), f"{percent(cell.poisoned.value)} % {interval(cell.poisoned)}"
    poison = f"{budget(row.budget)} of poisoned rows"
    if cell.change.high < 0:
        return Sentence(LABELLED, f"{poison} can take accuracy from {before} to {after}", basis)
    claim = f"{poison} did not lower accuracy measurably: {before} % before, {after} after the strongest attack"
    return Sentence(LABELLED, claim, basis)


def _steering(summary: Summary) -> list[Sentence]:
    lines = [] if summary.weights else [Sentence(WEIGHTS, "No attack on the encoder's weights was part of this audit")]
    lines += [_steered(threat, row) for threat in THREATS for row in threat.rows(summary)]
    if summary.steering and (known := _references(summary)):
        lines.append(Sentence(LIMITS, known))
    return lines


def _references(summary: Summary) -> str:
    """Whether the attacker's images of the wanted class are ones that the head is trained on."""
    bases = [trial.spec.get("base") for trial in summary.records if trial.threat in ("weights", "pretraining")]
    if any(isinstance(base, dict) and base.get("references") == "training" for base in bases):
        return "The images of the wanted class that the attacker holds are training rows of the head"
    return ""


def _steered(threat: Threat, row: PairRow) -> Sentence:
    if not row.pairs:
        failed = count(row.failed, "trial")
        return Sentence(
            threat.title, f"{threat.named(row)} {threat.where} gave no result, so nothing follows: {failed} failed"
        )
    if row.success is None:
        return Sentence(
            threat.title,
            f"None of the {count(len(row.pairs), row.noun)} of {threat.named(row)} is eligible, so no success "
            "rate can be given: the clean pipeline has to get the image right, and the wanted class has to be another",
        )
    amount = f"{budget(row.budget)} of " if threat.share else ""
    steered = f"{row.successes} of {count(row.success.n, row.noun)} ({share(row.success)})"
    claim = f"{steered} could be steered by {amount}{threat.means}"
    basis = row.name
    if change := next(iter(row.changes.values()), None):
        if change.value <= 0:
            cost = [percent(-value + 0.0).replace("-", "−") for value in (change.value, change.high, change.low)]
            claim += f", at {cost[0]} points of accuracy [{cost[1]}, {cost[2]}]"
        else:
            claim += f", with accuracy moving by {points(change.value)} points {change_interval(change)}"
        basis += f"; accuracy over {count(row.runs, threat.unit)}"
        basis += f", n = {change.n} test rows" if row.runs == 1 else ""
    if row.base:
        basis += f"; {threat.twin} already gave the wanted class for {outcomes(row.base)}"
    return Sentence(threat.title, claim, basis)


def _yardsticks(summary: Summary) -> Sentence:
    if summary.clean is None:
        return Sentence(YARDSTICKS, "The record has no clean twin: clean figures are those that each trial carries")
    parts = [f"{key} {accuracy(score.clean)} %" for key, score in summary.clean.scores.items()]
    controls = [f"{key} {percent(control.value)} %" for key, control in summary.clean.controls.items()]
    if "chance" not in summary.clean.controls:
        controls.append(f"chance {percent(summary.data.chance)} %")
    return Sentence(YARDSTICKS, f"Clean accuracy: {'; '.join(parts)}. To compare with: {'; '.join(controls)}")


def _limits(summary: Summary) -> list[Sentence]:
    lines = []
    if summary.failures:
        failed, refused = len(summary.failures) - summary.refused, summary.refused
        was = [f"{failed} failed"] if failed else []
        was += [f"{refused} {'was' if refused == 1 else 'were'} refused by the referee"] if refused else []
        of = count(len(summary.records), "trial")
        lines.append(Sentence(LIMITS, f"Of {of}, {' and '.join(was)}: listed below, and in no figure"))
    if summary.warnings:
        number = len(summary.warnings)
        claim = f"{count(number, 'warning')} {'limits' if number == 1 else 'limit'} what these figures mean"
        first = summary.warnings[0].text.rstrip(".")
        lines.append(Sentence(LIMITS, f"{claim}{':' if number == 1 else '; the first:'} {first}"))
    return lines
