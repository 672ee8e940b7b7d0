"""The defender's repairs in an audit: each mends the poisoned encoder with clean images, and all probes are refitted.

A repair is given the encoder, the defender's clean images and a seed. Beside what it makes of the poisoned encoder
stands what it makes of the clean one: its cost where there is no attack, and whether the clean encoder, repaired,
already gives the chosen image the wanted class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from foretaste.audit.behind import Behind, Stage, behind
from foretaste.audit.scores import accuracy
from foretaste.errors import ForetasteError
from foretaste.record import Repaired, RepairedProbe, pack_labels
from foretaste.statistics import paired_change

if TYPE_CHECKING:
    from foretaste.audit.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class Mended:
    """One repaired encoder.

    Attributes:
        predictions: test predictions int64 [k] of the probes behind it, by key; none where the repair failed.
        error: why it failed.
    """

    predictions: dict[str, Tensor]
    error: str = ""


def mended(pipeline: Pipeline, poisoned: Behind, seed: int, stage: Stage) -> dict[str, Mended]:
    """What every repair of the audit makes of an encoder, by its key; a repair that fails is said so and no more."""
    found = {}
    for key in pipeline.encoder_defences.repairs:
        try:
            found[key] = _mend(pipeline, key, poisoned, seed, stage)
        except ForetasteError as error:
            found[key] = Mended({}, " ".join(str(error).split()))
    return found


def mended_twin(pipeline: Pipeline, twin: Behind, stage: Stage) -> dict[str, Mended]:
    """The same of the encoder without the attack, by seed 0; once for all trials that stand beside it.

    Raises:
        ForetasteError: a repair cannot work on it.
    """
    digest, shared = twin.encoder.sha256(), pipeline.encoder_defences.shared
    return {
        key: shared.get((key, digest), lambda key=key: _mend(pipeline, key, twin, 0, stage))  # type: ignore[misc]
        for key in pipeline.encoder_defences.repairs
    }


def repaired(
    pipeline: Pipeline,
    key: str,
    found: Mended,
    before: Behind,
    twin: Mended | None = None,
    pair: tuple[int, int] | None = None,
) -> Repaired:
    """The record's entry of one repair.

    Args:
        pipeline: the victim's.
        key: of the repair.
        found: what it made.
        before: the encoder that it was given, and the probes behind that.
        twin: what it made of the encoder without the attack; None where that is `before` itself.
        pair: (test row, wanted class) of the trial; None in the clean twin.
    """
    assert pipeline.images is not None
    truth, probes = pipeline.test.y, {}
    for name, now in found.predictions.items():
        steered = {}
        if pair is not None and twin is not None:
            row, wanted = pair
            steered = {
                "prediction": int(now[row]),
                "success": int(now[row]) == wanted,
                "clean_success": int(twin.predictions[name][row]) == wanted,
            }
        right, was = now == truth, before.predictions[name] == truth
        probes[name] = RepairedProbe(
            accuracy=accuracy(now, truth),
            change=paired_change(was.numpy(), right.numpy()),
            predictions=pack_labels(now.numpy()),
            **steered,
        )
    return Repaired(
        repair=pipeline.encoder_defences.repairs[key].entry(),
        clean_images=len(pipeline.images.clean),
        probes=probes,
        error=found.error,
    )


def _mend(pipeline: Pipeline, key: str, suspect: Behind, seed: int, stage: Stage) -> Mended:
    assert pipeline.images is not None
    with stage("repair"):
        repair = pipeline.encoder_defences.repairs[key]
        encoder = repair.mend(suspect.encoder, pipeline.images.clean, seed, pipeline.runtime)
    return Mended(behind(pipeline, encoder.to(pipeline.runtime.device), seed, stage).predictions)
