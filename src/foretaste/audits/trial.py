"""One trial: attack the victim, let the referee check it, train again, evaluate every defence, and write the record."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from foretaste.attacks.base import Attack, Progress, quiet
from foretaste.audits.attempt import Attempt, record_of
from foretaste.audits.baseline import Baseline
from foretaste.audits.crafted import Order, craft
from foretaste.audits.evaluators.base import Case, Findings
from foretaste.audits.metrics import accuracy, compare_predictions, target_scores, with_triggered
from foretaste.audits.preflight import attack_warnings, controls, preflight
from foretaste.audits.prepare import PreparedAudit
from foretaste.audits.referee import judge, require
from foretaste.audits.spec import TrialSpec
from foretaste.audits.threats import Attacked, Threat, threat_of
from foretaste.audits.victim import Stage, Victim
from foretaste.record import ProbeScores, TargetScores, TrialRecord, digest_of, pack_labels
from foretaste.runtime import digest_tensors


def run_trial(
    prepared: PreparedAudit, trial: TrialSpec, attack: Attack | None, command: str, progress: Progress = quiet
) -> TrialRecord:
    """One record: of an attack, or of the baseline, the victim that nobody attacked.

    Whatever goes wrong with an attack becomes part of its record.

    Args:
        prepared: what all trials share.
        trial: what distinguishes this one.
        attack: None: the baseline.
        command: that runs this trial alone.
        progress: called with the attack's steps.

    Raises:
        ForetasteError: a defence cannot work with the baseline, or with so few clean images.
    """
    if attack is None:
        return _baseline_trial(prepared, trial, command)
    threat = threat_of(attack)
    attempt = Attempt(prepared, record_of(prepared, trial, threat.name, attack.variant, command))
    stage = attempt.timer.stage

    def body() -> dict[str, Any]:
        def make() -> Attacked:
            return attacked(prepared, threat, attack, order_of(prepared, trial), stage, progress)

        kept = threat.shares or trial.group is not None
        found = prepared.runs.get(run_key(trial), make) if kept else make()
        attempt.ledger, attempt.checks = found.ledger, found.checks
        require(found.checks)
        return _scored(prepared, threat, trial, attempt, found)

    return attempt.finish(body)


def attacked(
    prepared: PreparedAudit, threat: Threat, attack: Attack, order: Order, stage: Stage, progress: Progress = quiet
) -> Attacked:
    """Mount an attack, judge it and, where the referee passes it, apply it.

    Args:
        prepared: has the victim.
        threat: the attack's.
        attack: configured.
        order: what it is to do.
        stage: a clock.
        progress: called with the attack's steps.
    """
    with stage("attack"):
        crafted = craft(attack, prepared.setting, prepared.view, order, progress)
    with stage("referee"):
        checks = judge(prepared.setting, crafted)
    if not all(check.ok for check in checks):
        return Attacked(crafted.ledger, checks)
    return Attacked(crafted.ledger, checks, **threat.apply(prepared, crafted, stage, progress))


def order_of(prepared: PreparedAudit, trial: TrialSpec) -> Order:
    """What the attack of a trial is to do."""
    heads = prepared.defender.certified.defences
    return Order(trial.budget, trial.run_seed, trial.pairs, prepared.spec.references, heads)


def run_key(trial: TrialSpec) -> str:
    """What decides a run that trials share."""
    return digest_of([trial.attack, trial.budget, trial.run_seed, trial.pairs])


def _scored(
    prepared: PreparedAudit, threat: Threat, trial: TrialSpec, attempt: Attempt, found: Attacked
) -> dict[str, Any]:
    """What the record says of an attacked victim and of the trial's own pair, beside the baseline."""
    victim, baseline, stage = found.victim, found.baseline, attempt.timer.stage
    assert victim is not None
    assert baseline is not None
    case = Case(trial.run_seed, trial.target, trial.pairs, stage)
    update: dict[str, Any] = {
        "digests": found.digests,
        "scores": {
            key: compare_predictions(baseline.victim.predictions[key], now, victim.truth)
            for key, now in victim.predictions.items()
        },
        "predictions": {key: pack_labels(now.numpy()) for key, now in victim.predictions.items()},
        **found.shown,
    }
    warnings = attack_warnings(found.ledger)
    for evaluator in prepared.defender.facing(threat.faces):
        outcomes = found.outcomes.get(evaluator.kind, partial(evaluator.run, victim, baseline, case))
        findings = evaluator.findings(victim, outcomes, baseline, case)
        attempt.checks = [*attempt.checks, *findings.checks]
        warnings += findings.warnings
        _add(update, findings)
    if trial.target is not None:
        with stage("target"):
            update["target"] = _target(prepared, trial.target, found, victim, baseline, len(trial.pairs))
    return {**update, "warnings": warnings}


def _add(update: dict[str, Any], findings: Findings) -> None:
    for name, entries in findings.entries.items():
        update[name] = {**update.get(name, {}), **entries}


def _target(
    prepared: PreparedAudit,
    pair: tuple[int, int],
    found: Attacked,
    victim: Victim,
    baseline: Baseline,
    together: int,
) -> TargetScores:
    """What became of the chosen image, with the test rows that bear the attack's trigger, where it has one."""
    others: dict[str, tuple[Tensor, Tensor]] = {}
    for evaluator in prepared.defender.evaluators:
        others |= evaluator.pairs(found.outcomes.get(evaluator.kind, dict), baseline)
    scores = target_scores(victim, baseline.victim, pair, others, together)
    if found.triggered is None:
        return scores
    clean = baseline.triggered(digest_tensors({"pixels": found.triggered}), found.triggered)
    return with_triggered(victim, scores, clean, victim.predict(found.triggered))


def _baseline_trial(prepared: PreparedAudit, trial: TrialSpec, command: str) -> TrialRecord:
    """The clean twin: scores of every probe, yardsticks, and what every defence costs."""
    attempt = Attempt(prepared, record_of(prepared, trial, "clean", "", command))
    stage, victim = attempt.timer.stage, prepared.victim
    with stage("controls"):
        yardsticks = controls(victim)
    update: dict[str, Any] = {
        "digests": prepared.digests(),
        "scores": {key: ProbeScores(clean=accuracy(now, victim.truth)) for key, now in victim.predictions.items()},
        "predictions": {key: pack_labels(now.numpy()) for key, now in victim.predictions.items()},
        "truth": pack_labels(victim.truth.numpy()),
        "controls": yardsticks,
    }
    warnings = preflight(prepared, yardsticks)
    for evaluator in prepared.defender.evaluators:
        outcomes = prepared.baseline.outcomes(evaluator, stage)
        findings = evaluator.findings(victim, outcomes, None, Case(stage=stage))
        warnings += findings.warnings
        _add(update, findings)
    seconds = {**{name: round(value, 4) for name, value in prepared.seconds.items()}, **attempt.timer.seconds}
    return attempt.record.model_copy(update={**update, "status": "ok", "warnings": warnings, "seconds": seconds})
