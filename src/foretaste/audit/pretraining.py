"""Trials of the pre-training images: the encoder goes on learning from clean images and poison, probes are fitted anew.

The clean twin is the encoder that went on learning from the same images without poison, by the same seed: what more
pre-training does by itself (to the accuracy, and to the one image) is no success of the attack.
"""

from __future__ import annotations

from typing import Any

from foretaste.attacks.base import PretrainingAttack, Progress, part, quiet
from foretaste.audit.attempt import Attempt, record_of
from foretaste.audit.behind import Behind, Stage, behind
from foretaste.audit.pipeline import Pipeline
from foretaste.audit.pool import budgeted
from foretaste.audit.referee_pairs import judge_pretraining
from foretaste.audit.spec import TrialSpec
from foretaste.audit.weights import Run, after_run, run_key, scene_of
from foretaste.encoders.base import Encoder
from foretaste.images import Images
from foretaste.pretrain.continued import continued
from foretaste.record import TrialRecord
from foretaste.runtime import digest_tensors


def pretraining_trial(
    pipeline: Pipeline, trial: TrialSpec, attack: PretrainingAttack, command: str, progress: Progress = quiet
) -> TrialRecord:
    """Poison the pre-training images for the trial's group, continue the encoder on them, refit the probes and look."""
    attempt = Attempt(pipeline, record_of(pipeline, trial, "pretraining", attack.variant, command))
    stage = attempt.timer.stage

    def body() -> dict[str, Any]:
        run = pipeline.runs.get(
            run_key(trial), lambda: _poisoned(pipeline, trial, attack, stage, part(progress, 0, 0.5))
        )
        if run.behind is None:  # refused: no twin is needed to say so
            return after_run(pipeline, trial, attempt, run, run.behind)
        twin = pipeline.twins.get(
            trial.run_seed, lambda: _twin(pipeline, trial.run_seed, stage, part(progress, 0.5, 1))
        )
        found = after_run(pipeline, trial, attempt, run, twin)
        return {**found, "digests": {**found["digests"], "continued encoder": twin.encoder.sha256()}}

    return attempt.finish(body)


def _poisoned(pipeline: Pipeline, trial: TrialSpec, attack: PretrainingAttack, stage: Stage, progress: Progress) -> Run:
    assert pipeline.pool is not None
    assert pipeline.images is not None
    assert pipeline.loan.pool is not None
    assert trial.budget is not None
    rows = budgeted(trial.budget, len(pipeline.pool.images), len(trial.pairs))
    targets, references = scene_of(pipeline, trial)
    with stage("attack"):
        poison = attack.poison(targets, references, pipeline.loan.pool, rows, trial.run_seed)
    own = [pipeline.images.test.pixels[row] for row, _ in trial.pairs]
    with stage("referee"):
        checks = judge_pretraining(pipeline, targets, own, references, poison, rows)
    if not all(check.ok for check in checks):
        return Run(poison.ledger, checks, {}, None)
    encoder = _continued(pipeline, pipeline.pool.poisoned(poison.pixels), trial.run_seed, stage, progress)
    digests = {"poison": digest_tensors({"pixels": poison.pixels}), "poisoned encoder": encoder.sha256()}
    return Run(poison.ledger, checks, digests, behind(pipeline, encoder, trial.run_seed, stage))


def _twin(pipeline: Pipeline, seed: int, stage: Stage, progress: Progress) -> Behind:
    assert pipeline.pool is not None
    encoder = _continued(pipeline, pipeline.pool.images, seed, stage, progress)
    return behind(pipeline, encoder, seed, stage)


def _continued(pipeline: Pipeline, images: Images, seed: int, stage: Stage, progress: Progress) -> Encoder:
    """The victim's encoder after more pre-training on the images."""
    assert pipeline.pool is not None
    assert pipeline.encoder is not None

    def told(done: int, total: int, loss: float = 0.0) -> None:
        progress(done, total)

    with stage("pre-training"):
        return continued(pipeline.encoder, images, pipeline.pool.method, seed, pipeline.runtime, told)
