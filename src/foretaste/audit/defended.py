"""What the defender's repairs, guards and scans make of one run of an attack on the encoder, and of the clean twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foretaste.audit.behind import Behind, Stage, clean_behind
from foretaste.audit.guarding import Watched, guard_warnings, guarded, watched, watched_twin
from foretaste.audit.mending import Mended, mended, mended_twin, repaired
from foretaste.audit.scanning import Sighting, scan_warnings, scanned, sighted, sighted_twin

if TYPE_CHECKING:
    from foretaste.audit.pipeline import Pipeline
    from foretaste.audit.spec import TrialSpec


@dataclass(frozen=True, eq=False)
class Defended:
    """By the key of each defence: what it made of one encoder."""

    mended: Mapping[str, Mended] = field(default_factory=dict)
    watched: Mapping[str, Watched] = field(default_factory=dict)
    sighted: Mapping[str, Sighting] = field(default_factory=dict)


def defend(pipeline: Pipeline, poisoned: Behind, twin: Behind, trial: TrialSpec, stage: Stage) -> Defended:
    """Repair, guard and scan the encoder of a run, once for all pairs that share it.

    Args:
        pipeline: the victim's.
        poisoned: behind the encoder of the run.
        twin: behind the encoder without the attack.
        trial: one of the run's.
        stage: a clock.
    """
    chosen = tuple(row for row, _ in trial.pairs)
    return Defended(
        mended(pipeline, poisoned, trial.run_seed, stage),
        watched(pipeline, poisoned, stage),
        sighted(pipeline, poisoned, twin, chosen, stage),
    )


def defended_scores(
    pipeline: Pipeline, trial: TrialSpec, found: Defended, poisoned: Behind, twin: Behind, stage: Stage
) -> dict[str, Any]:
    """What the record says of the trial's own pair."""
    assert trial.target is not None
    row, chosen = trial.target[0], [row for row, _ in trial.pairs]
    repairs, guards = mended_twin(pipeline, twin, stage), watched_twin(pipeline, twin, stage)
    return {
        "repaired": {
            key: repaired(pipeline, key, one, poisoned, repairs[key], trial.target) for key, one in found.mended.items()
        },
        "guarded": {key: guarded(pipeline, key, one, guards[key], row, chosen) for key, one in found.watched.items()},
        "scanned": {key: scanned(pipeline, key, one, trial.target) for key, one in found.sighted.items()},
    }


def defended_twin(pipeline: Pipeline, stage: Stage) -> dict[str, Any]:
    """The same for the clean twin: what repairs cost, false alarms of guards, scores of scans.

    Raises:
        ForetasteError: a defence cannot work with the clean encoder, or with so few clean images.
    """
    if not pipeline.encoder_defences.all:
        return {}
    own = clean_behind(pipeline)
    return {
        "repaired": {key: repaired(pipeline, key, one, own) for key, one in mended_twin(pipeline, own, stage).items()},
        "guarded": {key: guarded(pipeline, key, one) for key, one in watched_twin(pipeline, own, stage).items()},
        "scanned": {key: scanned(pipeline, key, one) for key, one in sighted_twin(pipeline, own, stage).items()},
    }


def defended_warnings(pipeline: Pipeline) -> list[str]:
    """What the figures of these defences cannot say."""
    return [*guard_warnings(pipeline), *scan_warnings(pipeline)]
