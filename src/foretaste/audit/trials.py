"""The trials: the clean twin, one labelled-data attack, one attack on the weights. Each returns one record."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch
from torch import Tensor

from foretaste.attacks.base import LabelledAttack, Poisoning, Progress, WeightAttack, poisoned_rows, quiet
from foretaste.audit.exhibits import gallery, project
from foretaste.audit.pipeline import Pipeline
from foretaste.audit.preflight import attack_warnings, controls, preflight
from foretaste.audit.referee import judge_corruption, judge_poisoning
from foretaste.audit.scores import accuracy, clip_to_range, compare
from foretaste.audit.spec import TrialSpec
from foretaste.errors import ForetasteError, RefereeError
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.record import Check, Ledger, ProbeScores, TargetScores, Threat, TrialError, TrialRecord, pack_labels
from foretaste.runtime import digest_tensors, machine, versions
from foretaste.statistics import wilson


class Timer:
    """Seconds per stage of one trial."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to the stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + perf_counter() - start, 4)


def record_of(pipeline: Pipeline, trial: TrialSpec, threat: Threat, variant: str, command: str) -> TrialRecord:
    """What every record of this audit starts from, before anything has run."""
    return TrialRecord(
        trial=trial.identity,
        status="failed",
        threat=threat,
        attack=trial.attack["name"],
        variant=variant,
        budget=trial.budget,
        seed=trial.seed,
        spec=trial.model_dump(mode="json"),
        command=command,
        data=pipeline.data_entry(),
        encoder=pipeline.encoder_entry(),
        versions=versions(),
        machine={**machine(), "device": pipeline.runtime.device, "precision": pipeline.runtime.reason},
    )


def failed(
    record: TrialRecord, error: Exception, checks: list[Check], timer: Timer, ledger: Ledger | None
) -> TrialRecord:
    """The record of a trial that ended in an error: what was found out until then is kept."""
    message = str(error) if isinstance(error, ForetasteError) else f"{error or type(error).__name__}"
    return record.model_copy(
        update={
            "error": TrialError(type=type(error).__name__, message=message),
            "referee": checks,
            "ledger": ledger,
            "seconds": timer.seconds,
        }
    )


def clean_trial(pipeline: Pipeline, trial: TrialSpec, command: str) -> TrialRecord:
    """The clean twin: scores of every probe, yardsticks and preflight warnings."""
    timer = Timer()
    with timer.stage("controls"):
        yardsticks = controls(pipeline)
    truth = pipeline.test.y
    return record_of(pipeline, trial, "clean", "", command).model_copy(
        update={
            "status": "ok",
            "digests": pipeline.inputs(),
            "scores": {key: ProbeScores(clean=accuracy(found, truth)) for key, found in pipeline.predictions.items()},
            "predictions": {key: pack_labels(found.numpy()) for key, found in pipeline.predictions.items()},
            "truth": pack_labels(truth.numpy()),
            "controls": yardsticks,
            "warnings": preflight(pipeline, yardsticks),
            "seconds": {**{name: round(value, 4) for name, value in pipeline.seconds.items()}, **timer.seconds},
        }
    )


def labelled_trial(
    pipeline: Pipeline, trial: TrialSpec, attack: LabelledAttack, command: str, progress: Progress = quiet
) -> TrialRecord:
    """Attack the labelled data once, let the referee check it, retrain every probe and score it on the test rows."""
    assert trial.budget is not None
    timer, checks, ledger = Timer(), list[Check](), None
    record = record_of(pipeline, trial, "labelled", attack.variant, command)
    try:
        rows = poisoned_rows(trial.budget, len(pipeline.train))
        with timer.stage("attack"):
            poisoning = attack.poison(pipeline.knowledge(), rows, trial.seed, progress)
        ledger = poisoning.ledger
        with timer.stage("referee"):
            checks = judge_poisoning(pipeline, poisoning, trial.budget)
            require(checks)
        with timer.stage("embed"):
            z = features_of(pipeline, poisoning)
        with timer.stage("probes"):
            found = _refit(pipeline, z, poisoning.y, trial.seed)
            clipped = clip_to_range(z, pipeline.train)
            if not torch.equal(clipped, z):
                key = pipeline.headline
                found |= {
                    f"{key}, clipped": _refit(pipeline, clipped, poisoning.y, trial.seed, only=key)[key],
                }
    except Exception as error:
        return failed(record, error, checks, timer, ledger)
    truth = pipeline.test.y
    twin = pipeline.predictions[pipeline.headline]
    return record.model_copy(
        update={
            "status": "ok",
            "digests": {"poison": digest_tensors(_content(poisoning))},
            "scores": {key: compare(pipeline.predictions.get(key, twin), now, truth) for key, now in found.items()},
            "predictions": {key: pack_labels(now.numpy()) for key, now in found.items()},
            "ledger": ledger,
            "referee": checks,
            "warnings": attack_warnings(ledger),
            "exhibits": gallery(pipeline, poisoning),
            "projection": project(pipeline, z, poisoning.y),
            "seconds": timer.seconds,
        }
    )


def weight_trial(
    pipeline: Pipeline, trial: TrialSpec, attack: WeightAttack, command: str, progress: Progress = quiet
) -> TrialRecord:
    """Attack the encoder once for one chosen test image, refit the probes behind it and score them."""
    assert trial.target is not None
    assert pipeline.images is not None
    assert pipeline.encoder is not None
    timer, checks, ledger = Timer(), list[Check](), None
    record = record_of(pipeline, trial, "weights", attack.variant, command)
    row, wanted = trial.target
    own = pipeline.images.validation
    try:
        references = own.take((own.labels == wanted).nonzero()[:, 0])
        with timer.stage("attack"):
            corruption = attack.corrupt(
                pipeline.encoder,
                pipeline.images.test.pixels[row].clone(),
                references,
                own,
                trial.seed,
                pipeline.runtime,
                progress,
            )
        ledger = corruption.ledger
        with timer.stage("referee"):
            checks = judge_corruption(pipeline, corruption)
            require(checks)
        poisoned = copy.deepcopy(pipeline.encoder)
        poisoned.body.load_state_dict(corruption.state)
        with timer.stage("embed"):
            train, test = (_embed(pipeline, poisoned, part) for part in (pipeline.images.train, pipeline.images.test))
        with timer.stage("probes"):
            found = {
                key: probe.fit(train, pipeline.train.y, pipeline.classes, trial.seed, pipeline.runtime).predict(test)
                for key, probe in pipeline.probes.items()
            }
    except Exception as error:
        return failed(record, error, checks, timer, ledger)
    truth = pipeline.test.y
    return record.model_copy(
        update={
            "status": "ok",
            "digests": {"poisoned encoder": digest_tensors(corruption.state)},
            "scores": {key: compare(pipeline.predictions[key], now, truth) for key, now in found.items()},
            "predictions": {key: pack_labels(now.numpy()) for key, now in found.items()},
            "target": _target_scores(pipeline, found[pipeline.headline], row, wanted),
            "ledger": ledger,
            "referee": checks,
            "warnings": attack_warnings(ledger),
            "seconds": timer.seconds,
        }
    )


def require(checks: list[Check]) -> None:
    """Raise RefereeError if any check failed."""
    broken = [check for check in checks if not check.ok]
    if broken:
        raise RefereeError(
            f"referee: {', '.join(check.name for check in broken)} as promised",
            got="; ".join(check.found for check in broken),
            do="mend the attack: its result was not scored",
        )


def features_of(pipeline: Pipeline, poisoning: Poisoning) -> Tensor:
    """Features of the poison [m, d]: only what is new is embedded."""
    if poisoning.pixels is None:
        assert poisoning.z is not None
        return poisoning.z
    assert pipeline.encoder is not None
    return embed(pipeline.encoder, poisoning.pixels, pipeline.runtime)


def _refit(pipeline: Pipeline, z: Tensor, y: Tensor, seed: int, only: str | None = None) -> dict[str, Tensor]:
    rows, labels = torch.cat([pipeline.train.z, z]), torch.cat([pipeline.train.y, y])
    return {
        key: probe.fit(rows, labels, pipeline.classes, seed, pipeline.runtime).predict(pipeline.test.z)
        for key, probe in pipeline.probes.items()
        if only in (None, key)
    }


def _embed(pipeline: Pipeline, encoder: torch.nn.Module, part: Images) -> Tensor:
    return embed(encoder, part.pixels, pipeline.runtime)  # type: ignore[arg-type]


def _content(poisoning: Poisoning) -> dict[str, Tensor]:
    rows = poisoning.z if poisoning.pixels is None else poisoning.pixels
    assert rows is not None
    return {"rows": rows, "y": poisoning.y}


def _target_scores(pipeline: Pipeline, now: Tensor, row: int, wanted: int) -> TargetScores:
    before, truth = pipeline.predictions[pipeline.headline], int(pipeline.test.y[row])
    others = torch.arange(len(now)) != row
    moved = (before != now)[others]
    return TargetScores(
        index=row,
        true_class=truth,
        target_class=wanted,
        clean_prediction=int(before[row]),
        poisoned_prediction=int(now[row]),
        eligible=int(before[row]) == truth and wanted != truth,
        success=int(now[row]) == wanted,
        clean_success=int(before[row]) == wanted,
        collateral=wilson(int(moved.sum()), len(moved)),
    )
