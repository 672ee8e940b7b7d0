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
from pydantic import Field, JsonValue, ValidationError

from foretaste.entries import (
    Alarm,
    CertifiedAccuracy,
    CertifiedScores,
    DataEntry,
    Dropped,
    EncoderEntry,
    Estimate,
    Guarded,
    InputAlarm,
    Part,
    ProbeScores,
    Repaired,
    RepairedProbe,
    Scanned,
    Screening,
    Steered,
    TargetScores,
)
from foretaste.errors import RecordError

FORMAT: Literal["foretaste.trial/1"] = "foretaste.trial/1"
__all__ = [
    "FILE_NAME",
    "FORMAT",
    "Alarm",
    "CertifiedAccuracy",
    "CertifiedScores",
    "Check",
    "DataEntry",
    "Dropped",
    "EncoderEntry",
    "Estimate",
    "Exhibit",
    "Guarded",
    "InputAlarm",
    "Ledger",
    "Part",
    "ProbeScores",
    "Projection",
    "Repaired",
    "RepairedProbe",
    "Scanned",
    "Screening",
    "Steered",
    "TargetScores",
    "Threat",
    "TrialError",
    "TrialRecord",
    "append",
    "digest_of",
    "json_schema",
    "pack_labels",
    "read",
    "unpack_labels",
]

FILE_NAME = "record.jsonl"
Threat = Literal["clean", "labelled", "targeted", "pretraining", "weights"]


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
    """One line of record.jsonl: a trial, or a failed one with its `error`. Absent is None; see `json_schema`."""

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
    referee: list[Check] = Field(default=[])
    warnings: list[str] = Field(default=[])
    exhibits: list[Exhibit] = Field(default=[])
    projection: Projection | None = None
    error: TrialError | None = None
    seconds: dict[str, float] = Field(default={}, description="per stage")
    versions: dict[str, str] = Field(default={})
    machine: dict[str, str] = Field(default={})


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


def read(path: Path | str, *, repair: bool = False) -> list[TrialRecord]:
    """All trials of a record, in file order; of two lines with one identity the later counts.

    Args:
        path: record.jsonl, or the folder that holds it.
        repair: cut off an unfinished last line (what a killed process leaves) instead of ignoring it.

    Raises:
        RecordError: no such file, or a line in the middle is damaged or of another format.
    """
    path = Path(path)
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
