"""The trials of the labelled data: the clean twin, and one attack on the accuracy. Each returns one record."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from foretaste.attacks.base import LabelledAttack, Progress, quiet
from foretaste.attacks.budget import poisoned_rows
from foretaste.attacks.results import Poisoning
from foretaste.audit.adaptive import with_surrogate
from foretaste.audit.attempt import Attempt, Timer, record_of
from foretaste.audit.certifying import Vote, certificate_checks, certificate_warnings, certified_scores, voted
from foretaste.audit.defended import defended_twin, defended_warnings
from foretaste.audit.exhibits import gallery, project
from foretaste.audit.pipeline import Pipeline
from foretaste.audit.preflight import attack_warnings, controls, preflight
from foretaste.audit.referee import judge_poisoning, require
from foretaste.audit.retrain import Countered, after, countered, fit_mixed, mix
from foretaste.audit.scores import accuracy, compare
from foretaste.audit.screening import Screened, screened, screening, screening_warnings
from foretaste.audit.spec import TrialSpec
from foretaste.features.embed import embed
from foretaste.record import ProbeScores, TrialRecord, pack_labels
from foretaste.runtime import digest_tensors


def clean_trial(pipeline: Pipeline, trial: TrialSpec, command: str) -> TrialRecord:
    """The clean twin: scores of every probe, yardsticks and preflight warnings."""
    timer = Timer()
    with timer.stage("controls"):
        yardsticks = controls(pipeline)
    truth, twin = pipeline.test.y, pipeline.countered
    defended = defended_twin(pipeline, timer.stage)
    found = {**pipeline.predictions, **{key: one.predictions for key, one in twin.items()}}
    return record_of(pipeline, trial, "clean", "", command).model_copy(
        update={
            "status": "ok",
            "digests": pipeline.digests(),
            "scores": {key: ProbeScores(clean=accuracy(now, truth)) for key, now in found.items()},
            "predictions": {key: pack_labels(now.numpy()) for key, now in found.items()},
            "dropped": {key: one.dropped for key, one in twin.items() if one.dropped},
            "defences": {key: screening(pipeline, key, one) for key, one in pipeline.screened.items()},
            "certified": {key: certified_scores(pipeline, key, one) for key, one in pipeline.voted.items()},
            "truth": pack_labels(truth.numpy()),
            "controls": yardsticks,
            "warnings": [
                *preflight(pipeline, yardsticks),
                *notes_of(twin, pipeline.screened),
                *screening_warnings(pipeline),
                *defended_warnings(pipeline),
            ],
            **defended,
            "seconds": {**{name: round(value, 4) for name, value in pipeline.seconds.items()}, **timer.seconds},
        }
    )


def labelled_trial(
    pipeline: Pipeline, trial: TrialSpec, attack: LabelledAttack, command: str, progress: Progress = quiet
) -> TrialRecord:
    """Attack the labelled data once, let the referee check it, retrain every probe and score it on the test rows."""
    assert trial.budget is not None
    budget = trial.budget
    attempt = Attempt(pipeline, record_of(pipeline, trial, "labelled", attack.variant, command))
    stage = attempt.timer.stage

    def body() -> dict[str, Any]:
        rows = poisoned_rows(budget, len(pipeline.train))
        known = pipeline.knowledge()
        with stage("attack"):
            reckoned = with_surrogate(attack, known, rows, trial.seed, pipeline.certified)
            poisoning = attack.poison(reckoned, rows, trial.seed, progress)
        attempt.ledger = poisoning.ledger
        with stage("referee"):
            attempt.checks = judge_poisoning(pipeline, trial.attack, known, poisoning, budget, replaces=attack.replaces)
            require(attempt.checks)
        with stage("embed"):
            z = features_of(pipeline, poisoning)
        with stage("probes"):
            at = poisoning.base if poisoning.replaces else None
            mixed = mix(pipeline, z, poisoning.y, poisoning.pixels, at)
            found = after(pipeline, fit_mixed(pipeline, mixed, trial.seed))
            others = countered(pipeline, mixed, trial.seed)
            found |= {key: one.predictions for key, one in others.items()}
        filtered: dict[str, Screened] = {}
        if pipeline.filters:
            with stage("defences"):
                filtered = screened(pipeline, mixed, trial.seed)
        votes: dict[str, Vote] = {}
        if pipeline.certified:
            with stage("defences"):
                votes = voted(pipeline, mixed, at)
            attempt.checks = [*attempt.checks, *certificate_checks(pipeline, votes)]
        truth = pipeline.test.y
        return {
            "digests": {"poison": digest_tensors(content_of(poisoning))},
            "scores": {key: compare(pipeline.clean_twin(key), now, truth) for key, now in found.items()},
            "predictions": {key: pack_labels(now.numpy()) for key, now in found.items()},
            "dropped": {key: one.dropped for key, one in others.items() if one.dropped},
            "defences": {key: screening(pipeline, key, one) for key, one in filtered.items()},
            "certified": {key: certified_scores(pipeline, key, one) for key, one in votes.items()},
            "warnings": [
                *attack_warnings(poisoning.ledger),
                *notes_of(others, filtered),
                *certificate_warnings(pipeline, votes),
            ],
            "exhibits": gallery(pipeline, poisoning),
            "projection": project(pipeline, z, poisoning.y),
        }

    return attempt.finish(body)


def notes_of(others: dict[str, Countered], filtered: dict[str, Screened]) -> list[str]:
    """Warnings of countermeasures and filters."""
    return [
        *(note for one in others.values() for note in one.notes),
        *(note for key, one in filtered.items() for note in one.notes(key)),
    ]


def features_of(pipeline: Pipeline, poisoning: Poisoning) -> Tensor:
    """Features of the poison [m, d]: only what is new is embedded."""
    if poisoning.pixels is None:
        assert poisoning.z is not None
        return poisoning.z
    assert pipeline.encoder is not None
    return embed(pipeline.encoder, poisoning.pixels, pipeline.runtime)


def content_of(poisoning: Poisoning) -> dict[str, Tensor]:
    """What the digest of a poisoning is of."""
    rows = poisoning.z if poisoning.pixels is None else poisoning.pixels
    assert rows is not None
    return {"rows": rows, "y": poisoning.y}
