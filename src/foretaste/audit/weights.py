"""Trials of the encoder's weights: an edited encoder, its probes fitted anew, and one chosen image looked at."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from foretaste.attacks.base import Progress, WeightAttack, quiet
from foretaste.attacks.knowledge import EditProblem
from foretaste.audit.adaptive import encoder_surrogate
from foretaste.audit.aftermath import target_scores, with_triggered
from foretaste.audit.attempt import Attempt, record_of
from foretaste.audit.behind import Behind, Stage, behind, clean_behind, predicted
from foretaste.audit.defended import Defended, defend, defended_scores
from foretaste.audit.pipeline import Pipeline
from foretaste.audit.preflight import attack_warnings
from foretaste.audit.referee import judge_corruption, require
from foretaste.audit.scores import compare
from foretaste.audit.shared import Shared
from foretaste.audit.spec import TrialSpec
from foretaste.images import Images
from foretaste.record import Check, Ledger, TargetScores, TrialRecord, digest_of, pack_labels
from foretaste.runtime import digest_tensors


@dataclass(frozen=True, eq=False)
class Run:
    """One attack on the encoder, which several trials may share.

    Attributes:
        ledger: what the attack says.
        checks: what the referee found.
        digests: of the encoder (and of the poison) that it gave.
        behind: the probes behind that encoder; None where the referee refused it.
        defended: what the defender's repairs, guards and scans made of that encoder; filled by the first trial.
    """

    ledger: Ledger
    checks: list[Check]
    digests: dict[str, str]
    behind: Behind | None
    defended: Shared[Defended] = field(default_factory=lambda: Shared(1))


def weight_trial(
    pipeline: Pipeline, trial: TrialSpec, attack: WeightAttack, command: str, progress: Progress = quiet
) -> TrialRecord:
    """Attack the encoder for one chosen test image (or for its group), refit the probes behind it and score them."""
    attempt = Attempt(pipeline, record_of(pipeline, trial, "weights", attack.variant, command))

    def body() -> dict[str, Any]:
        def make() -> Run:
            return _edited(pipeline, trial, attack, attempt.timer.stage, progress)

        run = make() if trial.group is None else pipeline.runs.get(run_key(trial), make)
        found = after_run(pipeline, trial, attempt, run, clean_behind(pipeline))
        with attempt.timer.stage("target"):
            return {**found, "target": _triggered(pipeline, attack, run, found["target"])}

    return attempt.finish(body)


def run_key(trial: TrialSpec) -> str:
    """What decides a run that trials share."""
    return digest_of([trial.attack, trial.budget, trial.run_seed, trial.pairs])


def after_run(pipeline: Pipeline, trial: TrialSpec, attempt: Attempt, run: Run, twin: Behind | None) -> dict[str, Any]:
    """What the record says of a run on the encoder and of the trial's own pair, beside the twin without the attack.

    Raises:
        RefereeError: the referee refused the run.
    """
    assert trial.target is not None
    attempt.ledger, attempt.checks = run.ledger, run.checks
    require(run.checks)
    assert run.behind is not None
    assert twin is not None
    truth, found, stage, edited = pipeline.test.y, run.behind.predictions, attempt.timer.stage, run.behind
    defended = {}
    if pipeline.encoder_defences.all:
        made = run.defended.get("", lambda: defend(pipeline, edited, twin, trial, stage))
        defended = defended_scores(pipeline, trial, made, edited, twin, stage)
    with stage("target"):
        target = target_scores(pipeline, trial.target, twin, run.behind, together=len(trial.pairs))
    return {
        "digests": run.digests,
        "scores": {key: compare(twin.predictions[key], now, truth) for key, now in found.items()},
        "predictions": {key: pack_labels(now.numpy()) for key, now in found.items()},
        "target": target,
        "warnings": attack_warnings(run.ledger),
        **defended,
    }


def scene_of(pipeline: Pipeline, trial: TrialSpec) -> tuple[list[Tensor], list[Images]]:
    """Copies of the target images of a trial's run, uint8 [3, H, W] each, and for each the attacker's references."""
    assert pipeline.images is not None
    held = pipeline.loan.train if pipeline.spec.references == "training" else pipeline.loan.validation
    targets = [pipeline.images.test.pixels[row].clone() for row, _ in trial.pairs]
    return targets, [held.take((held.labels == wanted).nonzero()[:, 0]) for _, wanted in trial.pairs]


def _triggered(pipeline: Pipeline, attack: WeightAttack, run: Run, target: TargetScores) -> TargetScores:
    """The scores with those of the test rows that bear the attack's trigger, where it has one."""
    assert pipeline.images is not None
    assert run.behind is not None
    pixels = attack.stamped(pipeline.images.test.pixels.clone())
    if pixels is None:
        return target
    clean = pipeline.marked.get(
        digest_tensors({"pixels": pixels}), lambda: predicted(pipeline, clean_behind(pipeline), pixels)
    )
    return with_triggered(pipeline, target, clean, predicted(pipeline, run.behind, pixels))


def _edited(pipeline: Pipeline, trial: TrialSpec, attack: WeightAttack, stage: Stage, progress: Progress) -> Run:
    assert pipeline.encoder is not None
    loan = pipeline.loan
    encoder, shadow = loan.encoder, loan.kept
    targets, references = scene_of(pipeline, trial)
    seed = trial.run_seed
    problem = EditProblem(encoder, tuple(targets), tuple(references), shadow, seed, pipeline.runtime)
    with stage("attack"):
        reckoned = encoder_surrogate(attack, encoder, shadow, pipeline.runtime)
        corruption = attack.corrupt(problem, reckoned, progress).with_ledger(pipeline.encoder.body.state_dict())
    with stage("referee"):
        checks = judge_corruption(pipeline, references, corruption)
    if not all(check.ok for check in checks):
        return Run(corruption.ledger, checks, {}, None)
    edited = copy.deepcopy(pipeline.encoder)
    edited.body.load_state_dict(corruption.state)
    digests = {"poisoned encoder": digest_tensors(corruption.state)}
    return Run(corruption.ledger, checks, digests, behind(pipeline, edited, seed, stage))
