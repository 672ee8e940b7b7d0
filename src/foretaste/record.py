"""The record: one JSON line per trial, enough to reproduce it, score it again and report it. No torch here.

All shares and changes are fractions (0.03 is 3 %); labels are indices into `data.classes`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from foretaste.errors import RecordError

FORMAT: Literal["foretaste.trial/1"] = "foretaste.trial/1"
FILE_NAME = "record.jsonl"
Threat = Literal["clean", "labelled", "targeted", "pretraining", "weights"]


class Part(BaseModel):
    """Base of the record's parts: frozen, unknown keys are errors, NaN is not a number that a record may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Part):
    """A number with its sample size and interval."""

    value: float
    low: float
    high: float
    n: int = Field(description="rows or trials behind the number")
    method: str = Field(description="how the interval was made, and its coverage")


class DataEntry(Part):
    """What the trial was run on."""

    name: str
    digest: str = Field(description="sha256 over pixels (or features) and labels")
    classes: list[str]
    rows: dict[str, int] = Field(description="rows of each part of the split: train, validation, clean, test")
    chance: float = Field(description="share of the most frequent test class")


class EncoderEntry(Part):
    """The encoder's card, as far as the report needs it."""

    name: str
    architecture: str
    d: int
    sha256: str
    input_size: int | None = None
    source: str = ""
    licence: str = ""
    dropped_keys: list[str] = Field(default=[], description="keys of the checkpoint that the encoder does not use")


class ProbeScores(Part):
    """Accuracy of one probe on the test rows: the clean twin, the poisoned one and the paired change."""

    clean: Estimate
    poisoned: Estimate | None = None
    change: Estimate | None = Field(default=None, description="poisoned minus clean, paired over the test rows")


class Dropped(Part):
    """Shares of the training rows that a filter dropped before the head was fitted."""

    reference: str = Field(
        description="rows that its thresholds are from: the defender's clean ones, or the mixed ones"
    )
    clean: Estimate = Field(description="of the clean training rows: its false positives")
    poison: Estimate | None = Field(default=None, description="of the poison: its true positives; None without poison")


class Alarm(Part):
    """A filter at one false-alarm rate: the rows that score above the threshold are dropped, and the head fitted."""

    rate: float = Field(description="share of clean rows that the threshold is set to flag, at most")
    threshold: float = Field(description="rows that score above it are flagged, in the filter's own units")
    poison: Estimate | None = Field(default=None, description="flagged share of the poison; None without poison")
    clean: Estimate = Field(description="flagged share of the clean training rows")
    scores: ProbeScores = Field(description="headline probe on the rows left; `clean`: the twin under the same filter")
    predictions: str = Field(description="its test predictions, see pack_labels")


class Screening(Part):
    """One filter of the defender's on the training rows of a trial."""

    filter: dict[str, JsonValue] = Field(description="its name and every field")
    calibration: str = Field(description="rows whose scores set the thresholds")
    calibration_rows: int
    auroc: Estimate | None = Field(
        default=None, description="chance that a poisoned row outscores a clean training row; None without poison"
    )
    alarms: list[Alarm] = Field(description="by false-alarm rate, ascending")


class CertifiedAccuracy(Part):
    """The share of test rows that a certified head gets right whatever is done to so many training rows."""

    share: float = Field(description="changes / clean training rows, or the budget that they stand for")
    changes: int = Field(description="changes of the training rows, as the head counts them")
    accuracy: Estimate = Field(description="test rows that are right with a radius of at least `changes`")


class CertifiedScores(Part):
    """One certified head on the training rows of a trial; no certificate covers an edited encoder."""

    defence: dict[str, JsonValue] = Field(description="its name and every field, with nothing left open")
    certain: bool = Field(description="the certificate holds for sure, or with a confidence over the head's own draws")
    scores: ProbeScores = Field(description="accuracy of its vote; `clean`: on the clean rows")
    predictions: str = Field(description="its test predictions, see pack_labels")
    radii: str | None = Field(default=None, description="radius + 1 per test row, see pack_labels; clean twin only")
    bounds: list[CertifiedAccuracy] = Field(
        description="of the head on the clean rows: by share for the clean twin, at the attack's changes for a trial"
    )


class Steered(Part):
    """What one probe makes of the chosen image, without the attack and with it."""

    clean_prediction: int
    poisoned_prediction: int
    eligible: bool = Field(description="the clean pipeline gets the image right, and the target class is another one")
    success: bool = Field(description="the poisoned pipeline gives the image the target class")
    clean_success: bool = Field(description="the clean pipeline already did (base rate)")
    collateral: Estimate = Field(description="share of the other test predictions that changed")
    neighbours: Estimate | None = Field(
        default=None,
        description="of the test rows nearest to the image in clean features, those changed to the target class",
    )
    augmented: Estimate | None = Field(
        default=None, description="share of crops, flips and noisy copies of the image that get the target class"
    )
    clean_augmented: Estimate | None = Field(
        default=None, description="the same copies in the clean pipeline (base rate)"
    )
    triggered: Estimate | None = Field(
        default=None,
        description="share of the test rows of other classes that get the target class with the attack's trigger on "
        "them; None without a trigger",
    )
    clean_triggered: Estimate | None = Field(
        default=None, description="the same rows with the trigger in the clean pipeline (base rate)"
    )


class TargetScores(Steered):
    """What happened to the one chosen image, by the headline probe (threats `weights`, `targeted`, `pretraining`)."""

    index: int = Field(description="row of the test split")
    true_class: int
    target_class: int
    together: int = Field(default=1, description="pairs of an image and a class that share the attack's run with this")
    probes: dict[str, Steered] = Field(default={}, description="by score key, the headline's too")


class RepairedProbe(Part):
    """One probe, fitted anew behind an encoder after a repair."""

    accuracy: Estimate = Field(description="on the test rows")
    change: Estimate = Field(
        description="accuracy after minus before the repair of the same encoder, paired over the test rows"
    )
    prediction: int | None = Field(default=None, description="for the chosen image; None in the clean twin")
    success: bool | None = Field(default=None, description="it is the target class")
    clean_success: bool | None = Field(
        default=None, description="it already is behind the clean encoder after the same repair (base rate)"
    )
    predictions: str = Field(description="test predictions, see pack_labels")


class Repaired(Part):
    """One repair of the defender's on the encoder of a trial; in the clean twin on the clean one: what it costs."""

    repair: dict[str, JsonValue] = Field(description="its name and every field")
    clean_images: int = Field(description="images of the defender's own that it was given")
    probes: dict[str, RepairedProbe] = Field(default={}, description="by probe, the headline first")
    error: str = Field(default="", description="why there is no repaired encoder")


class InputAlarm(Part):
    """A guard at one false-alarm rate."""

    rate: float = Field(description="share of clean images that the threshold is set to flag, at most")
    threshold: float = Field(description="inputs that score above it are flagged, in the guard's own units")
    flagged: bool | None = Field(default=None, description="the chosen image is; None in the clean twin")
    false_alarms: Estimate = Field(description="flagged share of the test images that the attack was not after")


class Guarded(Part):
    """One guard of the defender's in front of the encoder of a trial."""

    guard: dict[str, JsonValue] = Field(description="its name and every field")
    clean_images: int = Field(description="images of the defender's own that it learnt from")
    calibration_images: int = Field(description="further ones, whose scores set the thresholds")
    score: float | None = Field(default=None, description="of the chosen image, higher is more suspicious")
    share: float | None = Field(
        default=None,
        description="of the test images that the attack was not after, those that score below the chosen one, ties "
        "for half: its part in the AUROC",
    )
    clean_share: float | None = Field(default=None, description="the same in front of the clean encoder (base rate)")
    alarms: list[InputAlarm] = Field(default=[], description="by false-alarm rate, ascending")
    error: str = Field(default="", description="why there is no score")


class Scanned(Part):
    """One scan of the encoder of a trial, by a defender who holds the chosen image among clean ones."""

    scan: dict[str, JsonValue] = Field(description="its name and every field")
    images: int = Field(description="images that the defender held, the chosen ones among them")
    score: float | None = Field(default=None, description="of the trial's encoder, higher is more suspicious")
    clean_score: float | None = Field(default=None, description="of the clean encoder, on the same images")
    null_scores: list[float] = Field(default=[], description="of the clean encoders of the null, on the same images")
    false_alarm_rate: float | None = Field(
        default=None,
        description="(1 + clean encoders of the null that score at least as high) / (encoders of the null + 1); None "
        "without a null",
    )
    rank: int | None = Field(
        default=None,
        description="place of the chosen image among itself and the clean images, 1 is the most suspicious; with ties "
        "the last of them; None where the scan scores no images",
    )
    inputs: int | None = Field(default=None, description="images that the rank is among")
    towards: int | None = Field(default=None, description="class that the scan says the chosen image went to")
    towards_target: bool | None = Field(default=None, description="it is the target class")
    evidence: dict[str, JsonValue] = Field(
        default={}, description="what the scan saw; rows are the clean images and then the chosen ones"
    )
    error: str = Field(default="", description="why there is no score")


class Ledger(Part):
    """What the attack says it did; the referee checks it."""

    changed: list[int] | list[str] = Field(description="rows of the training set the poison is based on, or tensors")
    added: int = Field(default=0, description="rows added to the training set")
    replaced: int = Field(default=0, description="rows of the training set that the poison stands in the place of")
    objective: list[float] = Field(default=[], description="the attack's objective, one value per step")
    objective_name: str = ""
    better: Literal["higher", "lower"] = "higher"
    residuals: dict[str, float] = Field(default={}, description="relative residuals of the inner solves, worst step")
    figures: dict[str, float] = Field(default={}, description="other numbers the attack reports")
    per_row: dict[str, list[float]] = Field(
        default={}, description="numbers of each added row, in the order of the rows, to 4 significant digits"
    )
    passes: int = Field(default=0, description="images sent through the encoder, forward, or forward and backward")


class Check(Part):
    """One thing that the referee recomputed."""

    name: str
    ok: bool
    found: str


class Exhibit(Part):
    """One poison image beside its base, as PNG data in base64."""

    poison_png: str
    base_png: str
    poison_label: int
    base_label: int
    caption: str = ""


class Projection(Part):
    """First two principal components of the clean features, with the poison in the same axes."""

    clean: list[tuple[float, float]]
    clean_labels: list[int]
    poison: list[tuple[float, float]]
    poison_labels: list[int]


class TrialError(Part):
    """Why a trial failed."""

    type: str
    message: str


class TrialRecord(Part):
    """One line of record.jsonl."""

    format: Literal["foretaste.trial/1"] = FORMAT
    trial: str = Field(description="digest of the trial's spec: its identity")
    status: Literal["ok", "failed"]
    threat: Threat
    attack: str = Field(description="name of the attack; `none` for the clean twin")
    variant: str = Field(default="", description="what distinguishes this use of the attack, e.g. `features, box`")
    budget: float | None = Field(default=None, description="added or replaced rows / clean training rows")
    seed: int
    spec: dict[str, JsonValue] = Field(description="the resolved spec of this trial")
    command: str = Field(description="the command that runs this trial alone")
    data: DataEntry
    encoder: EncoderEntry | None = Field(default=None, description="None when features come from a file")
    digests: dict[str, str] = Field(default={}, description="sha256 of clean features, poison, poisoned encoder")
    scores: dict[str, ProbeScores] = Field(default={}, description="by probe; the first is the headline")
    dropped: dict[str, Dropped] = Field(default={}, description="by score, of those under a filter")
    defences: dict[str, Screening] = Field(default={}, description="by filter, with the fields that were set")
    certified: dict[str, CertifiedScores] = Field(default={}, description="by certified head, as in `defences`")
    target: TargetScores | None = None
    repaired: dict[str, Repaired] = Field(default={}, description="by repair, as in `defences`")
    guarded: dict[str, Guarded] = Field(default={}, description="by guard, as in `defences`")
    scanned: dict[str, Scanned] = Field(default={}, description="by scan, as in `defences`")
    predictions: dict[str, str] = Field(default={}, description="test predictions by probe, see pack_labels")
    truth: str = Field(default="", description="test labels, see pack_labels")
    controls: dict[str, Estimate] = Field(default={}, description="yardsticks of the clean twin, e.g. random features")
    ledger: Ledger | None = None
    referee: list[Check] = []
    warnings: list[str] = []
    exhibits: list[Exhibit] = []
    projection: Projection | None = None
    error: TrialError | None = None
    seconds: dict[str, float] = Field(default={}, description="per stage")
    versions: dict[str, str] = {}
    machine: dict[str, str] = {}


def digest_of(value: Any) -> str:
    """sha256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def pack_labels(labels: NDArray[Any] | Iterable[int]) -> str:
    """Labels [n] as base64 of deflated little-endian uint16; `unpack_labels` reads them back."""
    array = np.asarray(labels)
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 2**16:
        raise ValueError(f"pack_labels expects labels in [0, 65535], got {array.min()} to {array.max()}")
    return base64.b64encode(zlib.compress(array.astype("<u2").tobytes(), 9)).decode()


def unpack_labels(text: str) -> NDArray[np.int64]:
    """Labels [n] from `pack_labels`.

    Raises:
        RecordError: the text is not such a list.
    """
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype="<u2").astype(np.int64)
    except (ValueError, zlib.error) as error:
        raise RecordError("record: packed labels", got=str(error), do="run the trial again") from None


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of one line of a record."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **TrialRecord.model_json_schema()}


def append(folder: Path, record: TrialRecord) -> None:
    """Add one line to the folder's record: one write, then fsync, so a killed process leaves whole lines behind it.

    Raises:
        RecordError: the line could not be written whole; what was written of it is taken back.
    """
    path = folder / FILE_NAME
    line = (record.model_dump_json(exclude_defaults=False) + "\n").encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, before)
                raise OSError("no space for the whole line")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RecordError(
            f"{path}: a file that can be written", got=error.strerror or str(error), do="make room and run again"
        ) from None


def read(path: Path, *, repair: bool = False) -> list[TrialRecord]:
    """All trials of a record, in file order; of two lines with one identity the later counts.

    Args:
        path: record.jsonl, or the folder that holds it.
        repair: cut off an unfinished last line (what a killed process leaves) instead of ignoring it.

    Raises:
        RecordError: no such file, or a line in the middle is damaged or of another format.
    """
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise RecordError(f"{path}: a record file", got="nothing there", do="pass the folder that an audit wrote")
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    trials: dict[str, TrialRecord] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            trial = TrialRecord.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise RecordError(
                f"{path}, line {number}: a trial of format {FORMAT}",
                got=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
                do="restore the file or delete that line",
            ) from None
        trials[trial.trial] = trial
    if repair and len(whole) < len(content):
        os.truncate(path, len(whole))
    return list(trials.values())
