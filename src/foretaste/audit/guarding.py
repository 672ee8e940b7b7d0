"""The defender's guards in an audit: does the chosen image stand out among the inputs of the poisoned encoder?

A guard learns from one half of the defender's clean images, in front of the encoder that is in use, poisoned or not.
The other half sets its thresholds, by the rule of `screening.threshold`. The referee then scores its test images: of
those the attack was after, each is held against all the others. The share of these that score below it, averaged over
trials, is the AUROC of the guard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretaste.audit.behind import Behind, Stage
from foretaste.audit.screening import RATES, threshold
from foretaste.defences.guards.base import GuardRows
from foretaste.errors import ForetasteError
from foretaste.record import Guarded, InputAlarm
from foretaste.statistics import wilson

if TYPE_CHECKING:
    from foretaste.audit.pipeline import Pipeline
    from foretaste.images import Images


@dataclass(frozen=True, eq=False)
class Watched:
    """One guard in front of one encoder.

    Attributes:
        scores: of the test images, float64 [k]; empty where the guard failed.
        calibration: scores that thresholds are from.
        error: why it failed.
    """

    scores: Tensor
    calibration: Tensor
    error: str = ""


def watched(pipeline: Pipeline, poisoned: Behind, stage: Stage) -> dict[str, Watched]:
    """What every guard of the audit says in front of an encoder, by its key; one that fails is said so and no more."""
    if not pipeline.encoder_defences.guards:
        return {}
    rows, found = _rows(pipeline, poisoned), {}
    for key in pipeline.encoder_defences.guards:
        try:
            found[key] = _watch(pipeline, key, rows, stage)
        except ForetasteError as error:
            found[key] = Watched(torch.zeros(0), torch.zeros(0), " ".join(str(error).split()))
    return found


def watched_twin(pipeline: Pipeline, twin: Behind, stage: Stage) -> dict[str, Watched]:
    """The same in front of the encoder without the attack; once for all trials that stand beside it.

    Raises:
        ForetasteError: a guard cannot work with it, or with so few clean images.
    """
    if not pipeline.encoder_defences.guards:
        return {}
    digest, shared, rows = twin.encoder.sha256(), pipeline.encoder_defences.shared, _rows(pipeline, twin)
    return {
        key: shared.get((key, digest), lambda key=key: _watch(pipeline, key, rows, stage))  # type: ignore[misc]
        for key in pipeline.encoder_defences.guards
    }


def guarded(
    pipeline: Pipeline,
    key: str,
    found: Watched,
    twin: Watched | None = None,
    row: int | None = None,
    chosen: list[int] | None = None,
) -> Guarded:
    """The record's entry of one guard.

    Args:
        pipeline: the victim's.
        key: of the guard.
        found: what it says.
        twin: what it says in front of the encoder without the attack.
        row: the trial's test row; None in the clean twin.
        chosen: test rows of all pairs that share the attack's run: none of them is a false alarm.
    """
    assert pipeline.images is not None
    reference, held = halved(pipeline.images.clean)
    start = Guarded(
        guard=pipeline.encoder_defences.guards[key].entry(),
        clean_images=len(reference),
        calibration_images=len(held),
        error=found.error,
    )
    if found.error:
        return start
    others = torch.ones(len(found.scores), dtype=torch.bool)
    others[chosen or []] = False
    alarms = []
    for rate in RATES:
        limit = threshold(found.calibration, rate)
        flagged = found.scores > limit
        alarms.append(
            InputAlarm(
                rate=rate,
                threshold=limit,
                flagged=None if row is None else bool(flagged[row]),
                false_alarms=wilson(int(flagged[others].sum()), int(others.sum())),
            )
        )
    update: dict[str, object] = {"alarms": alarms}
    if row is not None and twin is not None:
        update |= {
            "score": float(found.scores[row]),
            "share": share_below(found.scores, row, others),
            "clean_share": share_below(twin.scores, row, others),
        }
    return start.model_copy(update=update)


def guard_warnings(pipeline: Pipeline) -> list[str]:
    """False-alarm rates that so few clean images cannot set."""
    if not pipeline.encoder_defences.guards or pipeline.images is None:
        return []
    held = len(halved(pipeline.images.clean)[1])
    return [
        f"guards: {held} calibration images cannot set a false-alarm rate of {rate:.0%}; the threshold is their "
        f"highest score, which flags about {1 / (held + 1):.1%} of clean images"
        for rate in RATES
        if (held + 1) * rate < 1
    ]


def share_below(scores: Tensor, row: int, others: Tensor) -> float:
    """Share of the scores [k] chosen by `others`, bool [k], that lie below that of `row`, ties for half."""
    rest = scores[others]
    return float((rest < scores[row]).double().mean() + (rest == scores[row]).double().mean() / 2)


def halved(clean: Images) -> tuple[Images, Images]:
    """The defender's images as (those to learn from, those to calibrate on): every other one of each class."""
    order = clean.labels.argsort(stable=True)
    reference, held = (clean.take(order[start::2].sort().values) for start in (0, 1))
    return reference, held


def _rows(pipeline: Pipeline, used: Behind) -> GuardRows:
    assert pipeline.images is not None
    reference, _ = halved(pipeline.images.clean)
    defences, ridge = pipeline.encoder_defences, pipeline.spec.ridge
    return GuardRows(
        used.encoder, reference, pipeline.runtime, defences.other, used.head, ridge, seen=defences.other_features
    )


def _watch(pipeline: Pipeline, key: str, rows: GuardRows, stage: Stage) -> Watched:
    assert pipeline.images is not None
    _, held = halved(pipeline.images.clean)
    with stage("guards"):
        guard = pipeline.encoder_defences.guards[key].fit(rows)
        return Watched(guard.score(pipeline.images.test.pixels), guard.score(held.pixels))
