"""Trials of labelled rows that steer one image: poison, referee, every head fitted anew, the image looked at."""

from __future__ import annotations

from typing import Any

from foretaste.attacks.base import Progress, TargetedAttack, quiet
from foretaste.attacks.budget import poisoned_rows
from foretaste.audit.aftermath import target_scores
from foretaste.audit.attempt import Attempt, record_of
from foretaste.audit.behind import Behind, clean_behind
from foretaste.audit.exhibits import gallery
from foretaste.audit.pipeline import Pipeline
from foretaste.audit.preflight import attack_warnings
from foretaste.audit.referee import judge_poisoning, require
from foretaste.audit.referee_pairs import judge_target
from foretaste.audit.retrain import after, countered, fit_mixed, mix
from foretaste.audit.scores import compare
from foretaste.audit.screening import Screened, screened, screening
from foretaste.audit.spec import TrialSpec
from foretaste.audit.trials import content_of, features_of, notes_of
from foretaste.record import TrialRecord, pack_labels
from foretaste.runtime import digest_tensors


def targeted_trial(
    pipeline: Pipeline, trial: TrialSpec, attack: TargetedAttack, command: str, progress: Progress = quiet
) -> TrialRecord:
    """Add rows so that one test image gets one class, let the referee check them, refit every probe and look."""
    assert trial.budget is not None
    assert trial.target is not None
    assert pipeline.images is not None
    assert pipeline.encoder is not None
    budget, (row, wanted) = trial.budget, trial.target
    own, victim = pipeline.images.test.pixels[row], pipeline.encoder
    attempt = Attempt(pipeline, record_of(pipeline, trial, "targeted", attack.variant, command))
    stage = attempt.timer.stage

    def body() -> dict[str, Any]:
        rows = poisoned_rows(budget, len(pipeline.train))
        known, target = pipeline.knowledge(), own.clone()
        with stage("attack"):
            poisoning = attack.poison_for(known, target, wanted, rows, trial.seed, progress)
        attempt.ledger = poisoning.ledger
        with stage("referee"):
            attempt.checks = judge_poisoning(pipeline, trial.attack, known, poisoning, budget, replaces=attack.replaces)
            attempt.checks += judge_target(target, own, poisoning, wanted)
            require(attempt.checks)
        with stage("embed"):
            z = features_of(pipeline, poisoning)
        with stage("probes"):
            at = poisoning.base if poisoning.replaces else None
            mixed = mix(pipeline, z, poisoning.y, poisoning.pixels, at)
            fitted = fit_mixed(pipeline, mixed, trial.seed)
            found = after(pipeline, fitted)
            others = countered(pipeline, mixed, trial.seed)
        filtered: dict[str, Screened] = {}
        if pipeline.filters:
            with stage("defences"):
                filtered = screened(pipeline, mixed, trial.seed)
        with stage("target"):
            target_found = target_scores(
                pipeline,
                trial.target or (row, wanted),
                clean_behind(pipeline),
                Behind(victim, pipeline.test.z, fitted, found),
                {key: (pipeline.clean_twin(key), one.predictions) for key, one in others.items()},
            )
        found |= {key: one.predictions for key, one in others.items()}
        truth = pipeline.test.y
        return {
            "digests": {"poison": digest_tensors(content_of(poisoning))},
            "scores": {key: compare(pipeline.clean_twin(key), now, truth) for key, now in found.items()},
            "predictions": {key: pack_labels(now.numpy()) for key, now in found.items()},
            "target": target_found,
            "dropped": {key: one.dropped for key, one in others.items() if one.dropped},
            "defences": {key: screening(pipeline, key, one) for key, one in filtered.items()},
            "warnings": [*attack_warnings(poisoning.ledger), *notes_of(others, filtered)],
            "exhibits": gallery(pipeline, poisoning),
        }

    return attempt.finish(body)
