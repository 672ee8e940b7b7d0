"""The study of defences: what each leaves of the damage, what it costs and what gets past it, over several pipelines.

A defence of the labelled rows is judged by the lowest accuracy under it, over the plain attacks and over all, those
made against it among them. Defences of the encoder are judged by the edits that outlive or escape them; edits of all
pipelines are pooled, and an attack that was made against a defence stands beside the plain one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foretaste.record import Estimate, read
from foretaste.report.aggregate import grouped, mean
from foretaste.report.defended import Column, aims_at, everything
from foretaste.report.markdown import table_of
from foretaste.report.numbers import accuracy, budget, count, moved, percent, points
from foretaste.report.recommend import credits
from foretaste.report.summary import Summary, summarise
from foretaste.report.tables import NONE, Line, Table, shown
from foretaste.report.verdict import strongest
from foretaste.studies import defended_encoders
from foretaste.studies.grid import Part

UNTRIED = "untried"
CERTIFICATES = "certificates"
"""An audit of many certified heads, which stands in their table alone."""
PIXELS = "pixels"
"""An audit whose poison is images; what is left of its damage stands apart from that of poison on features."""


@dataclass(frozen=True)
class Held:
    """One defence of the labelled rows on one pipeline at one budget.

    Attributes:
        encoder, data: the pipeline, by its short names.
        budget: poisoned rows / clean training rows.
        defence, rate: as in the record; no rate for a certified head.
        clean: accuracy without poison and without a defence.
        price: accuracy without poison, with the defence less without.
        bare: lowest accuracy without the defence.
        plain: lowest accuracy under it, over attacks that were not made against it.
        worst: over all attacks.
        gain: `worst` less `bare`, paired over test rows and seeds.
        by: the attack that reaches `worst`.
        adaptive: some attack was made against it.
    """

    encoder: str
    data: str
    budget: float
    defence: str
    rate: float | None
    clean: float
    price: float | None
    bare: float
    plain: float | None
    worst: float
    gain: Estimate | None
    by: str
    adaptive: bool


@dataclass(frozen=True)
class Proven:
    """One certified head on one pipeline, without poison.

    Attributes:
        encoder, data: the pipeline.
        rows: that it is fitted on.
        head: as in the record.
        accuracy: of its vote.
        bounds: by share of poisoned rows: certified accuracy.
        found: by share: the lowest accuracy that an attack left of it.
    """

    encoder: str
    data: str
    rows: int
    head: str
    accuracy: Estimate
    bounds: dict[float, Estimate]
    found: dict[float, float]


def page(folder: Path, parts: dict[str, Part]) -> tuple[list[str], dict[str, Any]]:
    """Sections of the page in Markdown, and the same as values."""
    summaries = {name: summarise(read(folder / name)) for name in parts}
    rows = {
        name: found
        for name, part in parts.items()
        if part.question != CERTIFICATES and (found := held(part, summaries[name]))
    }
    images = {name for name, part in parts.items() if part.question == PIXELS}
    # The heads of an audit with images are those of the audit with features.
    proofs = [one for name, part in parts.items() if name not in images for one in proven(part, summaries[name])]
    edits, more = defended_encoders.page(folder, parts, summaries)
    sections = []
    for title, those in (("What is left of the damage", False), ("The same with images as poison", True)):
        every = [one for name, found in rows.items() if (name in images) is those for one in found]
        if every:
            sections += [f"## {title}", *table_of(_damage(every))]
    if proofs:
        sections += ["## Certificates", *table_of(_certificates(proofs))]
    sections += edits
    for name, found in rows.items():
        title = f"## {parts[name].encoder} on {parts[name].data} ({name})"
        sections += [title, *table_of(_pipeline(summaries[name], found)), *table_of(_seen(summaries[name]))]
    values = {
        "rows": [{"audit": name, **asdict(one)} for name, found in rows.items() for one in found],
        "certificates": [asdict(one) for one in proofs],
        **more,
    }
    return sections, values


def held(part: Part, summary: Summary) -> list[Held]:
    """Every defence of the labelled rows at every budget of one audit, where all its attacks were tried under it."""
    table, found = everything(summary), list[Held]()
    for share in summary.budgets:
        bare = strongest(summary, share)
        if bare is None or bare.head is None:
            continue
        for credit in credits(summary, table, share):
            column = credit.column
            own = [
                (row, table.outcomes[place, column].cell.poisoned.value)
                for place, row in enumerate(summary.rows)
                if row.budget == share and row.head
            ]
            made = [row for row, _ in own if aims_at(row, column.key)]
            without = table.accuracy(column)
            found.append(
                Held(
                    encoder=part.encoder,
                    data=part.data,
                    budget=share,
                    defence=column.key,
                    rate=column.rate,
                    clean=bare.head.clean.value,
                    price=without.value - bare.head.clean.value if without else None,
                    bare=bare.head.poisoned.value,
                    plain=min((value for row, value in own if row not in made), default=None),
                    worst=credit.accuracy.value,
                    gain=credit.gain,
                    by=credit.row.name,
                    adaptive=bool(made),
                )
            )
    return found


def proven(part: Part, summary: Summary) -> list[Proven]:
    """Every certified head of one audit whose certificate holds at some number of changes."""
    twin, table = summary.clean, everything(summary)
    if twin is None:
        return []
    found = []
    for key, one in twin.certified.items():
        lowest: dict[float, float] = {}
        for place, row in enumerate(summary.rows):
            outcome = table.of(place).get(Column(key))
            if outcome and row.budget is not None:
                lowest[row.budget] = min(lowest.get(row.budget, 1.0), outcome.cell.poisoned.value)
        found.append(
            Proven(
                encoder=part.encoder,
                data=part.data,
                rows=summary.data.rows["train"],
                head=key,
                accuracy=one.scores.clean,
                bounds={bound.share: bound.accuracy for bound in one.bounds},
                found=lowest,
            )
        )
    return found


def _damage(found: list[Held]) -> Table:
    """A line per defence: mean over pipelines of what attacks still take, in points."""
    shares = sorted({one.budget for one in found})
    pipelines = len({(one.encoder, one.data) for one in found})
    lines = []
    for (key, rate), own in grouped(found, lambda one: (one.defence, one.rate)).items():
        price = mean([one.price for one in own if one.price is not None])
        cells = [Column(key, rate).words, NONE if price is None else points(price)]
        for share in shares:
            here = [one for one in own if one.budget == share]
            plain = [one.clean - one.plain for one in here if one.plain is not None]
            made = any(one.adaptive for one in here)
            cells += [
                _taken(plain),
                _taken([one.clean - one.worst for one in here]) if made or not here else UNTRIED,
            ]
        lines.append(Line(cells))
    bare = [
        cell
        for share in shares
        for cell in (_taken([one.clean - one.bare for one in found if one.budget == share]), NONE)
    ]
    caption = (
        f"Accuracy that the strongest attack takes from the clean head without a defence, in points, mean "
        f"over {count(pipelines, 'pipeline')}: with the attacks that were not made against the defence, and with all. "
        f"The price of a defence is in both, and stands alone in the first column. {UNTRIED}: nobody attacked it "
        "here, so the figure beside it is no credit. An attack made against a defence need not be on every pipeline."
    )
    columns = [column for share in shares for column in (f"{budget(share)}, not made against it", "all")]
    return Table("damage", caption, ["defence", "price", *columns], [Line(["none", NONE, *bare]), *lines])


def _pipeline(summary: Summary, found: list[Held]) -> Table:
    """A line per defence and budget of one pipeline."""
    lines = [
        Line(
            [
                Column(one.defence, one.rate).words,
                budget(one.budget),
                percent(one.bare),
                percent(one.plain) if one.plain is not None else NONE,
                percent(one.worst),
                one.by,
                moved(one.gain) if one.gain else NONE,
            ]
        )
        for one in sorted(found, key=lambda one: one.budget)
    ]
    rows = ", ".join(f"{number:,} {kind}" for kind, number in summary.data.rows.items())
    seeds = max((len(row.trials) for row in summary.rows), default=0)
    caption = (
        f"Rows: {rows}; clean accuracy {percent(found[0].clean)} %; {seeds} seeds. Lowest accuracy in %: without the "
        "defence, under it by attacks that were not made against it, and by all, with the attack that does it; gain: "
        "the last less the first, in points, paired over test rows and seeds."
    )
    columns = ["defence", "budget", "no defence", "not made against it", "all attacks", "by", "gain"]
    return Table("pipeline", caption, columns, lines)


def _seen(summary: Summary) -> Table:
    """What each filter sees of the strongest attack and of those made against it, at the middle budget."""
    share = summary.budgets[len(summary.budgets) // 2]
    bare, table, lines = strongest(summary, share), everything(summary), []
    rates = list(dict.fromkeys(column.rate for column in table.columns if column.rate is not None))
    for key in dict.fromkeys(column.key for column in table.columns if column.rate is not None):
        for place, row in enumerate(summary.rows):
            if row.budget != share or not row.head or (row is not bare and not aims_at(row, key)):
                continue
            outcomes = [table.outcomes.get((place, Column(key, rate))) for rate in rates]
            first = next((one for one in outcomes if one), None)
            cells = [key, row.name, shown(first.auroc if first else None)]
            for one in outcomes:
                cells += [
                    shown(one.caught if one else None),
                    percent(one.flagged.value) if one and one.flagged else NONE,
                ]
            lines.append(Line(cells))
    caption = (
        f"What filters see at {budget(share)}, of the strongest attack and of those made against them: AUROC in "
        "% (poison against clean training rows), and the poison and the clean rows that are dropped, in %."
    )
    at = [column for rate in rates for column in (f"dropped at {budget(rate)}", "clean rows")]
    return Table("seen", caption, ["filter", "attack", "AUROC", *at], lines, 2)


def _certificates(found: list[Proven]) -> Table:
    """A line per pipeline and head."""
    shares = sorted({share for one in found for share in one.bounds})
    lines = []
    for one in found:
        cells = [f"{one.encoder} on {one.data}", one.head, f"{one.rows:,}", accuracy(one.accuracy)]
        for share in shares:
            low = f" ({percent(one.found[share])})" if share in one.found else ""
            cells.append(percent(one.bounds[share].value) + low if share in one.bounds else NONE)
        lines.append(Line(cells))
    caption = (
        "Accuracy of the vote on the clean rows, and certified accuracy at so many poisoned rows among the training "
        "rows, in %; in brackets the lowest accuracy that an attack of the audit left of the vote. The certificate of "
        "bagging holds with confidence 1 - alpha over its draws. No certificate says anything about an edited encoder."
    )
    return Table(
        "certificates", caption, ["pipeline", "certified head", "rows", "accuracy", *map(budget, shares)], lines, 2
    )


def _taken(losses: list[float]) -> str:
    """Mean loss of accuracy, in points; below 0 where the defence gains more than attacks take."""
    loss = mean(losses)
    return NONE if loss is None else percent(loss).replace("-", "−")
