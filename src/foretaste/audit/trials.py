"""The trials: the clean twin, one labelled-data attack, one attack on the weights. Each returns one record."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from foretaste.attacks.base import LabelledAttack, Poisoning, Progress, WeightAttack, poisoned_rows, quiet
from foretaste.audit.certifying import Vote, certificate_checks, certificate_warnings, certified_scores, voted
from foretaste.audit.exhibits import gallery, project
from foretaste.audit.pipeline import Pipeline
from foretaste.audit.preflight import attack_warnings, controls, preflight
from foretaste.audit.referee import judge_corruption, judge_poisoning, require
from foretaste.audit.retrain import Countered, countered, mix, refit
from foretaste.audit.scores import accuracy, compare
from foretaste.audit.screening import Screened, screened, screening, screening_warnings
from foretaste.audit.spec import TrialSpec
from foretaste.errors import AttackError, ForetasteError
from foretaste.features.embed import embed
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


class Attempt:
    """One trial under way: what it found out so far outlives an error."""

    def __init__(self, pipeline: Pipeline, record: TrialRecord) -> None:
        self.pipeline = pipeline
        self.record = record
        self.timer = Timer()
        self.checks: list[Check] = []
        self.ledger: Ledger | None = None

    def finish(self, body: Callable[[], dict[str, Any]]) -> TrialRecord:
        """The record with what the body returns; whatever it raises becomes part of the record instead."""
        update: dict[str, Any]
        try:
            update = {"status": "ok", **body()}
        except Exception as error:
            self.pipeline.recall()
            update = {"error": TrialError(type=type(error).__name__, message=_reason(error))}
            if isinstance(error, AttackError) and error.curve:
                self.ledger = Ledger(changed=[], objective=error.curve)
        evidence = {"referee": self.checks, "ledger": self.ledger, "seconds": self.timer.seconds}
        return self.record.model_copy(update=evidence | update)


def _reason(error: Exception) -> str:
    """What went wrong, on one line; for an error that nobody foresaw also where."""
    text = " ".join(str(error).split())
    if isinstance(error, ForetasteError):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text or 'no message'} ({Path(place.filename).name}, line {place.lineno})"


def clean_trial(pipeline: Pipeline, trial: TrialSpec, command: str) -> TrialRecord:
    """The clean twin: scores of every probe, yardsticks and preflight warnings."""
    timer = Timer()
    with timer.stage("controls"):
        yardsticks = controls(pipeline)
    truth, twin = pipeline.test.y, pipeline.countered
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
                *_notes(twin, pipeline.screened),
                *screening_warnings(pipeline),
            ],
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
            poisoning = attack.poison(known, rows, trial.seed, progress)
        attempt.ledger = poisoning.ledger
        with stage("referee"):
            attempt.checks = judge_poisoning(pipeline, trial.attack, known, poisoning, budget, replaces=attack.replaces)
            require(attempt.checks)
        with stage("embed"):
            z = features_of(pipeline, poisoning)
        with stage("probes"):
            at = poisoning.base if poisoning.replaces else None
            mixed = mix(pipeline, z, poisoning.y, poisoning.pixels, at)
            found = refit(pipeline, mixed.z, mixed.y, trial.seed)
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
            "digests": {"poison": digest_tensors(_content(poisoning))},
            "scores": {key: compare(pipeline.clean_twin(key), now, truth) for key, now in found.items()},
            "predictions": {key: pack_labels(now.numpy()) for key, now in found.items()},
            "dropped": {key: one.dropped for key, one in others.items() if one.dropped},
            "defences": {key: screening(pipeline, key, one) for key, one in filtered.items()},
            "certified": {key: certified_scores(pipeline, key, one) for key, one in votes.items()},
            "warnings": [
                *attack_warnings(poisoning.ledger),
                *_notes(others, filtered),
                *certificate_warnings(pipeline, votes),
            ],
            "exhibits": gallery(pipeline, poisoning),
            "projection": project(pipeline, z, poisoning.y),
        }

    return attempt.finish(body)


def _notes(others: dict[str, Countered], filtered: dict[str, Screened]) -> list[str]:
    return [note for one in others.values() for note in one.notes] + [n for one in filtered.values() for n in one.notes]


def weight_trial(
    pipeline: Pipeline, trial: TrialSpec, attack: WeightAttack, command: str, progress: Progress = quiet
) -> TrialRecord:
    """Attack the encoder once for one chosen test image, refit the probes behind it and score them."""
    assert trial.target is not None
    assert pipeline.images is not None
    assert pipeline.encoder is not None
    images, clean = pipeline.images, pipeline.encoder
    row, wanted = trial.target
    attempt = Attempt(pipeline, record_of(pipeline, trial, "weights", attack.variant, command))
    stage = attempt.timer.stage

    def body() -> dict[str, Any]:
        encoder, own = pipeline.loan.encoder, pipeline.loan.validation
        references = own.take((own.labels == wanted).nonzero()[:, 0])
        target = images.test.pixels[row].clone()
        with stage("attack"):
            corruption = attack.corrupt(encoder, target, references, own, trial.seed, pipeline.runtime, progress)
        attempt.ledger = corruption.ledger
        with stage("referee"):
            attempt.checks = judge_corruption(pipeline, references, corruption)
            require(attempt.checks)
        poisoned = copy.deepcopy(clean)
        poisoned.body.load_state_dict(corruption.state)
        with stage("embed"):
            train, test = (embed(poisoned, part.pixels, pipeline.runtime) for part in (images.train, images.test))
        with stage("probes"):
            found = {
                key: probe.fit(train, pipeline.train.y, pipeline.classes, trial.seed, pipeline.runtime).predict(test)
                for key, probe in pipeline.probes.items()
            }
        truth = pipeline.test.y
        return {
            "digests": {"poisoned encoder": digest_tensors(corruption.state)},
            "scores": {key: compare(pipeline.predictions[key], now, truth) for key, now in found.items()},
            "predictions": {key: pack_labels(now.numpy()) for key, now in found.items()},
            "target": _target_scores(pipeline, found[pipeline.headline], row, wanted),
            "warnings": attack_warnings(corruption.ledger),
        }

    return attempt.finish(body)


def features_of(pipeline: Pipeline, poisoning: Poisoning) -> Tensor:
    """Features of the poison [m, d]: only what is new is embedded."""
    if poisoning.pixels is None:
        assert poisoning.z is not None
        return poisoning.z
    assert pipeline.encoder is not None
    return embed(pipeline.encoder, poisoning.pixels, pipeline.runtime)


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
