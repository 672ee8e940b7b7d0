"""The study of defences, of encoders: what repairs undo, what scans see and what guards flag, over all pipelines.

Every line is a defence beside one attack: the plain one, and those that were made against that defence. Repairs
and guards count pairs that the clean pipeline got right, scans all; intervals are Wilson's over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foretaste.record import Estimate, Guarded, Repaired, Scanned, TrialRecord
from foretaste.report.aggregate import eligible, grouped, keys_of, mean, mean_share, share
from foretaste.report.defended import AIMED, against, aims_at
from foretaste.report.markdown import table_of
from foretaste.report.numbers import accuracy, percent, points
from foretaste.report.summary import Summary
from foretaste.report.tables import NONE, Line, Table, defences
from foretaste.report.threats import THREATS
from foretaste.studies import false_alarms
from foretaste.studies.grid import Part

Figures = dict[str, Estimate | float | None]
RATE = 0.05
"""False-alarm rate at which scans and guards are counted."""


@dataclass(frozen=True)
class Met:
    """One defence and one attack on one pipeline.

    Attributes:
        encoder, data: the pipeline, by its short names.
        defence: its key in the record.
        attack: with its variant.
        aimed: the attack was made against the defence.
        pairs: trials, each with the defence's outcome; eligible or not.
        clean: of the clean twin; None without one.
    """

    encoder: str
    data: str
    defence: str
    attack: str
    aimed: bool
    pairs: list[TrialRecord]
    clean: TrialRecord | None


@dataclass(frozen=True)
class Pooled:
    """One defence and one attack over all pipelines.

    Attributes:
        kind: repair, scan or guard.
        defence, attack, aimed: as of `Met`.
        pipelines: how many.
        pairs: that count.
        figures: by name: shares with their intervals, or means.
    """

    kind: str
    defence: str
    attack: str
    aimed: bool
    pipelines: int
    pairs: int
    figures: Figures


def page(folder: Path, parts: dict[str, Part], summaries: dict[str, Summary]) -> tuple[list[str], dict[str, Any]]:
    """Sections of the page in Markdown, and the same as values."""
    found = {
        "repair": _pooled("repair", parts, summaries, _repair),
        "scan": _pooled("scan", parts, summaries, _scan),
        "guard": _pooled("guard", parts, summaries, _guard),
    }
    sections = []
    for kind, title in (("repair", "Repairs"), ("scan", "Scans"), ("guard", "Guards")):
        if found[kind]:
            sections += [f"## {title}", *table_of(_table(kind, found[kind]))]
        if kind == "scan" and (wolf := false_alarms.table(folder)):
            sections += table_of(wolf)
    for name, part in parts.items():
        summary = summaries[name]
        for threat in THREATS:
            own = defences.of_encoder(threat, threat.rows(summary), summary.clean)
            if own:
                sections.append(f"## Edits of {part.encoder} on {part.data} ({name})")
            sections += [block for table in own for block in table_of(table)]
    return sections, {"encoder": [asdict(one) for kind in found.values() for one in kind]}


def met(part: Part, summary: Summary, kind: str) -> Iterator[Met]:
    """Every defence of that kind beside every attack on one audit's encoder that is plain or was made against it."""
    for row in summary.steering:
        for key in keys_of(_of(trial, kind) for trial in row.pairs):
            aimed = aims_at(row, key)
            if aimed or not against(row):
                pairs = [trial for trial in row.pairs if key in _of(trial, kind)]
                yield Met(part.encoder, part.data, key, row.name, aimed, pairs, summary.clean)


def _of(trial: TrialRecord, kind: str) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {"repair": trial.repaired, "scan": trial.scanned, "guard": trial.guarded}
    return found[kind]


def _pooled(
    kind: str,
    parts: dict[str, Part],
    summaries: dict[str, Summary],
    figures: Callable[[list[Met]], tuple[int, Figures]],
) -> list[Pooled]:
    every = [one for name, part in parts.items() for one in met(part, summaries[name], kind)]
    groups = grouped(every, lambda one: (_place(one.defence), one.aimed, one.attack))
    found = []
    for (defence, aimed, attack), own in groups.items():
        pairs, values = figures(own)
        found.append(Pooled(kind, defence, attack, aimed, len({(o.encoder, o.data) for o in own}), pairs, values))
    order = list(dict.fromkeys(one.defence for one in found))
    return sorted(found, key=lambda one: (order.index(one.defence), one.aimed))


def _place(key: str) -> str:
    """The defence without paths: another checkpoint lies elsewhere for each encoder."""
    return ":".join(part for part in key.split(":") if "/" not in part)


def _repair(found: list[Met]) -> tuple[int, Figures]:
    """Success before and after, and what the repair costs the clean encoder; by the headline probe."""
    before, after, costs = list[bool](), list[bool](), list[float]()
    for one in found:
        probe = ""
        for trial in one.pairs:
            mended: Repaired = trial.repaired[one.defence]
            probe = next(iter(mended.probes), probe)
            if trial.target and trial.target.eligible and probe in mended.probes:
                before.append(trial.target.success)
                after.append(bool(mended.probes[probe].success))
        twin = one.clean.repaired.get(one.defence) if one.clean else None
        if twin and probe in twin.probes:
            costs.append(twin.probes[probe].change.value)
    return len(after), {"before": share(before), "after": share(after), "cost": mean(costs)}


def _scan(found: list[Met]) -> tuple[int, Figures]:
    """Edits flagged at the rate, chosen images that come first, wanted classes that are named; over all pairs, and what
    gets through over eligible ones.
    """
    pairs = [(trial, trial.scanned[one.defence]) for one in found for trial in one.pairs]
    pairs = [(trial, one) for trial, one in pairs if not one.error]
    seen: list[Scanned] = [one for _, one in pairs]
    alarms = [(trial, one.false_alarm_rate <= RATE) for trial, one in pairs if one.false_alarm_rate is not None]
    return len(seen), {
        "steered": _steered([trial for trial, _ in pairs]),
        "flagged": share([alarm for _, alarm in alarms]),
        "wolf": share([rate <= RATE for one in seen if (rate := defences.clean_rate(one)) is not None]),
        "through": _through(alarms),
        "first": share([one.rank == 1 for one in seen if one.rank is not None]),
        "named": share([one.towards_target for one in seen if one.towards_target is not None]),
        "null": mean([float(len(one.null_scores)) for one in seen]),
    }


def _guard(found: list[Met]) -> tuple[int, Figures]:
    """AUROC with the attack and without, and what is flagged at the rate; over eligible pairs."""
    pairs = [(t, t.guarded[one.defence]) for one in found for t in eligible(one.pairs)]
    pairs = [(trial, one) for trial, one in pairs if not one.error]
    seen: list[Guarded] = [one for _, one in pairs]
    raised = [(trial, alarm) for trial, one in pairs for alarm in one.alarms if alarm.rate == RATE]
    flagged = [(trial, bool(alarm.flagged)) for trial, alarm in raised]
    shares = [one.share for one in seen if one.share is not None]
    return len(seen), {
        "steered": _steered([trial for trial, _ in pairs]),
        "auroc": mean_share(shares),
        "before": mean([one.clean_share for one in seen if one.clean_share is not None]),
        "flagged": share([alarm for _, alarm in flagged]),
        "false": mean([alarm.false_alarms.value for _, alarm in raised]),
        "through": _through(flagged),
    }


def _steered(trials: list[TrialRecord]) -> Estimate | None:
    return share([t.target.success for t in eligible(trials) if t.target])


def _through(alarms: list[tuple[TrialRecord, bool]]) -> Estimate | None:
    """Eligible pairs that are steered without an alarm: what the defence lets through."""
    return share([t.target.success and not alarm for t, alarm in alarms if t.target and t.target.eligible])


def _table(kind: str, found: list[Pooled]) -> Table:
    words, columns, intro = TABLES[kind]
    lines = [
        Line(
            [
                one.defence,
                one.attack + (f" {AIMED}" if one.aimed else ""),
                f"{one.pipelines}",
                f"{one.pairs}",
                *(_cell(name, one.figures[name]) for name in words),
            ]
        )
        for one in found
    ]
    caption = f"{intro} {AIMED}: the attack was made against the defence."
    return Table(f"pooled-{kind}", caption, [kind, "attack", "pipelines", "pairs", *columns], lines, 2)


TABLES: dict[str, tuple[list[str], list[str], str]] = {
    "repair": (
        ["before", "after", "cost"],
        ["steered before, %", "steered after, %", "cost on the clean encoder, points"],
        "Chosen images that get the wanted class before and after a repair, all pipelines together, and the mean "
        "change of accuracy that the repair brings to the clean encoder. The heads are fitted anew.",
    ),
    "scan": (
        ["steered", "flagged", "wolf", "through", "first", "named", "null"],
        [
            "steered, %",
            "flagged, %",
            "clean encoder flagged, %",
            "steered unflagged, %",
            "chosen image first, %",
            "class named, %",
            "null",
        ],
        f"Edited encoders that a scan flags at a false-alarm rate of {100 * RATE:g} % (none, or almost none, of the "
        "clean encoders scores as high; null: how many there are), and how often it flags the encoder without the edit "
        "on the same images: where it does, the null does not fit the encoder, and the alarm is no credit. Chosen "
        "images that it ranks first among itself and the clean ones, and wanted classes that it names. Steered "
        "unflagged: what the scan lets through, over pairs that the clean pipeline got right.",
    ),
    "guard": (
        ["steered", "auroc", "before", "flagged", "through", "false"],
        ["steered, %", "AUROC, %", "without the attack, %", "flagged, %", "steered unflagged, %", "false alarms, %"],
        f"Guards at use time: AUROC of the chosen image among test images, and at a false-alarm rate of {100 * RATE:g} "
        "% the chosen images and the other test images that are flagged.",
    ),
}


def _cell(name: str, value: Estimate | float | None) -> str:
    if value is None:
        return NONE
    if isinstance(value, Estimate):
        return accuracy(value)
    return points(value) if name == "cost" else f"{value:.0f}" if name == "null" else percent(value)
