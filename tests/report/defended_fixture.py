"""Planted outcomes of defences: filters on attacks on the labelled rows, and repairs, scans and guards on edits."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from foretaste.record import (
    Alarm,
    CertifiedAccuracy,
    CertifiedScores,
    Estimate,
    Guarded,
    InputAlarm,
    ProbeScores,
    Repaired,
    RepairedProbe,
    Scanned,
    Screening,
    TargetScores,
    TrialRecord,
    digest_of,
    pack_labels,
)
from foretaste.statistics import wilson
from tests import records_fixture as planted
from tests.records_fixture import CLEAN, CLEAN_RIGHT, TRUTH, N

SEEDS = (0, 1)


def estimate(value: float, wide: float = 0.01) -> Estimate:
    return Estimate(value=value, low=max(0.0, value - wide), high=min(1.0, value + wide), n=150, method="planted 0.95")


def guesses(right: int, seed: int) -> np.ndarray:
    """Right on `right` rows; those that the clean head gets right come first, so that rows are paired as in audits."""
    if right == CLEAN_RIGHT:
        return CLEAN
    return planted.predictions(right, seed) if right < CLEAN_RIGHT else np.where(np.arange(N) < right, TRUTH, TRUTH - 1)


def screening(right: int, caught: float | None, seed: int = 0) -> Screening:
    """The same at both rates."""
    now = guesses(right, seed)
    found = wilson(int((now == TRUTH).sum()), N)
    scores = ProbeScores(clean=found) if caught is None else planted.scores(right)
    poison = None if caught is None else estimate(caught)
    alarms = [
        Alarm(
            rate=rate,
            threshold=1.0,
            poison=poison,
            clean=estimate(rate, 0.005),
            scores=scores,
            predictions=pack_labels(now % 10),
        )
        for rate in (0.01, 0.05)
    ]
    rank = None if caught is None else estimate(0.5 + caught / 2)
    return Screening(filter={"name": "f"}, calibration="own", calibration_rows=200, auroc=rank, alarms=alarms)


def twin(**filters: int) -> TrialRecord:
    return planted.clean_twin().model_copy(
        update={"defences": {key.replace("_", "-"): screening(right, None) for key, right in filters.items()}}
    )


def attacked(
    right: int, filters: dict[str, tuple[int, float]], against: str = "", budget: float = 0.03, attack: str = "exact"
) -> list[TrialRecord]:
    """Two seeds of an attack: right test rows without a defence, and by filter (right rows, share of poison caught)."""
    variant = "features, box" + (f", against {against}" if against else "")
    trials = []
    for seed in SEEDS:
        one = planted.trial(
            threat="labelled",
            attack=attack,
            variant=variant,
            budget=budget,
            seed=seed,
            command="foretaste audit",
            scores={"exact": planted.scores(right)},
            predictions={"exact": pack_labels(guesses(right, seed))},
            defences={key: screening(*figures, seed) for key, figures in filters.items()},
        )
        entry = {"name": attack, **({"against": against} if against else {})}
        trials.append(one.model_copy(update={"spec": {**one.spec, "attack": entry}}))
    return trials


PAIRS = 30


def change(value: float, wide: float = 0.009) -> Estimate:
    return Estimate(value=value, low=value - wide, high=value + wide, n=planted.N, method="planted")


def repaired(cost: float, success: bool | None = None) -> Repaired:
    """The second probe says the opposite: it must not be in any figure."""
    shared: dict[str, Any] = {"accuracy": wilson(1600, planted.N), "predictions": ""}
    head = RepairedProbe(change=change(cost), success=success, **shared)
    other = RepairedProbe(change=change(0.5), success=None if success is None else not success, **shared)
    return Repaired(repair={"name": "r"}, clean_images=500, probes={"exact": head, "knn": other})


FAILED = Repaired(repair={"name": "r"}, clean_images=500, error="diverged")


def scanned(score: float, rank: int | None = None, null: tuple[float, ...] = (1.0, 2.0, 3.0)) -> Scanned:
    return Scanned(
        scan={"name": "s"}, images=501, score=score, clean_score=2.5, null_scores=list(null), rank=rank, inputs=501
    )


def guarded(share: float, flagged: bool) -> Guarded:
    alarms = [
        InputAlarm(rate=rate, threshold=1.0, flagged=flagged and rate == 0.05, false_alarms=wilson(1, 100))
        for rate in (0.01, 0.05)
    ]
    return Guarded(guard={"name": "g"}, clean_images=250, calibration_images=250, share=share, alarms=alarms)


def edits(variant: str = "", *, threat: str = "weights", budget: float | None = None, **kinds: Any) -> list[Any]:
    """Pairs 0 to 29: the first is not eligible, the last not steered. `kinds`: by key, the entry of pair k."""
    out = []
    for k in range(PAIRS):
        success = k < PAIRS - 1
        target = TargetScores(
            index=k,
            true_class=0,
            target_class=1,
            clean_prediction=int(k == 0),
            poisoned_prediction=int(success),
            eligible=k > 0,
            success=success,
            clean_success=k == 0,
            collateral=wilson(1, 100),
        )
        found = {kind: {key: entry(k) for key, entry in entries.items()} for kind, entries in kinds.items()}
        one = planted.trial(
            threat=threat,
            attack="pacl",
            variant=variant,
            budget=budget,
            seed=0,
            trial_of=k,
            command="foretaste audit",
            scores={"exact": ProbeScores(clean=wilson(1662, 2000), poisoned=wilson(1650, 2000))},
            target=target,
            digests={"poisoned encoder": digest_of([variant, k])},
            **found,
        )
        said = re.search(r"against=([^,]+)", variant)
        entry = {"name": "pacl", **({"against": said[1]} if said else {})}
        out.append(one.model_copy(update={"spec": {**one.spec, "attack": entry}}))
    return out


def mended_twin(**costs: float) -> TrialRecord:
    return planted.clean_twin().model_copy(update={"repaired": {key: repaired(cost) for key, cost in costs.items()}})


def first(count: int) -> Any:
    """The repair of the audit's first attack leaves `count` of the eligible, steered pairs 1 to 28 steered."""
    return lambda k: repaired(0.0, success=k <= count)


def voted(share: float, changes: int) -> list[TrialRecord]:
    """A clean twin and two seeds of an attack under the certified head dpa: 1602 rows right without it, 1562 with."""

    def certified(right: int, seed: int, poisoned: bool) -> CertifiedScores:
        return CertifiedScores(
            defence={"name": "dpa"},
            certain=True,
            scores=planted.scores(right) if poisoned else ProbeScores(clean=wilson(right, N)),
            predictions=pack_labels(guesses(right, seed)),
            bounds=[CertifiedAccuracy(share=share, changes=changes, accuracy=wilson(1000, N))],
        )

    records = [planted.clean_twin().model_copy(update={"certified": {"dpa": certified(1602, 0, False)}})]
    records += [t.model_copy(update={"certified": {"dpa": certified(1562, t.seed, True)}}) for t in attacked(1462, {})]
    return records
