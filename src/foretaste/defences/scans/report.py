"""What `foretaste scan` writes: a value that is JSON, with all that the table shows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT: Literal["foretaste.scan/1"] = "foretaste.scan/1"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ScannedEncoder(_Value):
    """An encoder that took part: name of its card, architecture, sha256 of its tensors."""

    name: str
    architecture: str
    sha256: str


class ScannedData(_Value):
    """The images: name, part of the data set, number of rows, digest of the content."""

    name: str
    part: str
    rows: int
    digest: str


class ScanResult(_Value):
    """One scan of the suspect, beside the same scan of every clean encoder."""

    scan: str = Field(description="name of the scan")
    fields: dict[str, Any] = Field(description="its hyperparameters")
    score: float = Field(description="higher is more suspicious; comparable within this report only")
    null_scores: list[float] = Field(description="of the clean encoders, in the order of `null`")
    false_alarm_rate: float | None = Field(
        description="(1 + clean encoders that score at least as high) / (clean encoders + 1); null: there are none"
    )
    original_rate: float | None = Field(
        description="false-alarm rate of the original beside the same clean encoders; null: one of them is missing"
    )
    verdict: str = Field(description="the same in words")
    inputs: list[float] | None = Field(description="score of each image, higher is more suspicious; null: has none")
    evidence: dict[str, Any] = Field(description="what the scan saw; keys by scan, see docs/defences.md")


class ScanReport(_Value):
    """Everything that `foretaste scan` found."""

    format: Literal["foretaste.scan/1"] = FORMAT
    suspect: ScannedEncoder
    reference: ScannedEncoder | None
    other: ScannedEncoder | None
    null: list[ScannedEncoder]
    data: ScannedData | None
    seed: int
    scans: list[ScanResult]
    notes: list[str]
    versions: dict[str, str]
