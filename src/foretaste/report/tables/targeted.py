"""The tables of attacks on one chosen image; each threat has its own, since they never share a ranking."""

from __future__ import annotations

from foretaste.record import Estimate, TrialRecord
from foretaste.report.aggregate import headline, keys_of
from foretaste.report.numbers import accuracy, budget, class_name, moved, outcomes, percent, share
from foretaste.report.summary import PairRow, Score
from foretaste.report.tables import NONE, Line, Table
from foretaste.report.threats import Threat

MARKED = ["by trigger", "by trigger before"]
PAIRS = 200
"""Pairs listed at most; the others count in the figures and are in the record."""


def table(threat: Threat, rows: list[PairRow]) -> Table:
    """The headline probe of each attack over its pairs."""
    keys = keys_of(row.changes for row in rows)
    wide = any(row.head.neighbours or row.head.augmented for row in rows)
    budgeted, learns = bool(threat.share), threat.key == "pretraining"
    marked = any(row.head.triggered for row in rows)
    lines = []
    for row in rows:
        shares = [*_shares(row.head), f"{row.passes:,.0f}", f"{row.runs}"] if wide else []
        lines.append(
            Line(
                [
                    row.name,
                    *([budget(row.budget)] if budgeted else []),
                    f"{len(row.pairs):,}",
                    *_counts(row.head),
                    *([_percent(row.clean)] if learns else []),
                    *(moved(row.changes[key]) if key in row.changes else NONE for key in keys),
                    _percent(row.collateral),
                    *shares,
                    *(_marked(row.head) if marked else []),
                    f"{row.failed}",
                ]
            )
        )
    extra = ["neighbours", "copies steered", "copies before", "images through the encoder", "runs"] if wide else []
    extra += MARKED if marked else []
    changes = ["accuracy without poison"] if learns else []
    changes += [f"accuracy change ({key})" for key in keys]
    head = ["attack", *(["budget"] if budgeted else []), "pairs", "eligible", "steered", "share", "had it before"]
    return Table(
        threat.key,
        _caption(threat, wide, marked=marked),
        [*head, *changes, "collateral", *extra, "failed"],
        lines,
        1 + budgeted,
    )


def _caption(threat: Threat, wide: bool, *, marked: bool) -> str:
    budgets = f" Budget: share of the {threat.share}." if threat.share else ""
    more = (
        " Neighbours: of the 20 test images nearest to the chosen one, those that went to the wanted class. Copies: "
        "crops, flips and noisy copies of the chosen image with the wanted class, for eligible pairs, with the attack "
        "and before. Images through the encoder: mean per run; pairs that share a run share its accuracy and cost, and "
        "are not independent."
    )
    by_trigger = (
        " By trigger: of the test images of other classes, those with the wanted class when they bear the attack's "
        "trigger, with the attack and before; mean over pairs."
    )
    return (
        f"{threat.how}. Eligible: {threat.clean} gets the image right and the wanted class is another. Share: of the "
        f"eligible pairs, with Wilson's 95 % interval. Had it before: pairs to which {threat.clean} already gave the "
        "wanted class. Accuracy change (points) and collateral (share of the other test predictions that changed): "
        f"mean over pairs, bootstrap over pairs.{budgets}{more if wide else ''}"
        f"{by_trigger if marked else ''}"
    )


def by_probe(threat: Threat, rows: list[PairRow]) -> Table | None:
    """Further heads and countermeasures beside the headline; None where there are none."""
    if not any(len(row.probes) > 1 for row in rows):
        return None
    marked = any(score.triggered for row in rows for score in row.probes.values())
    lines = []
    for row in rows:
        start = [row.name, budget(row.budget) if threat.share else NONE]
        lines += [
            Line(
                [
                    *start,
                    key,
                    *_counts(score),
                    _percent(score.collateral),
                    *_shares(score),
                    *(_marked(score) if marked else []),
                ]
            )
            for key, score in row.probes.items()
        ]
    head = ["attack", "budget", "score", "eligible", "steered", "share", "had it before", "collateral"]
    return Table(
        f"{threat.key}-probes",
        "The same pairs judged by each head and countermeasure",
        [*head, "neighbours", "copies steered", "copies before", *(MARKED if marked else [])],
        lines,
        3,
    )


def pairs(threat: Threat, rows: list[PairRow]) -> Table:
    """One line per (image, class) pair."""
    trials = [(row.name, trial) for row in rows for trial in row.pairs]
    left = f" {len(trials) - PAIRS:,} more pairs are in record.jsonl." if len(trials) > PAIRS else ""
    shares, event = (["budget"], "attack") if threat.share else ([], "edit")
    columns = ["attack", *shares, "test image", "true class", "wanted class", "before", "after", "eligible", "steered"]
    return Table(
        "pairs" if threat.key == "weights" else f"{threat.key}-pairs",
        f"Each (image, class) pair: predictions before and after the {event}; accuracy and collateral in %.{left}",
        [*columns, "accuracy", "collateral"],
        [_pair(threat, name, trial) for name, trial in trials[:PAIRS]],
        text=len(columns),
    )


def _pair(threat: Threat, name: str, trial: TrialRecord) -> Line:
    target, score = trial.target, headline(trial)
    if target is None:
        return Line([name], [trial.command])
    classes = (target.true_class, target.target_class, target.clean_prediction, target.poisoned_prediction)
    change = f"{percent(score.clean.value)} → {percent(score.poisoned.value)}" if score and score.poisoned else NONE
    return Line(
        [
            name,
            *([budget(trial.budget)] if threat.share else []),
            f"{target.index}",
            *(class_name(trial.data, index) for index in classes),
            "yes" if target.eligible else "no",
            "yes" if target.success else "no",
            change,
            percent(target.collateral.value),
        ],
        [trial.command],
    )


def _counts(score: Score) -> list[str]:
    """Eligible, steered, share with its interval, and base rate."""
    success = share(score.success) if score.success else NONE
    base = outcomes(score.base) if score.base else NONE
    return [f"{score.eligible:,}", f"{score.successes:,}", success, base]


def _shares(score: Score) -> list[str]:
    return [_percent(score.neighbours), _percent(score.augmented), _percent(score.clean_augmented)]


def _marked(score: Score) -> list[str]:
    return [_percent(score.triggered), _percent(score.clean_triggered)]


def _percent(found: Estimate | None) -> str:
    return f"{accuracy(found)} %" if found else NONE
