"""Options that other commands share with `audit`: the same flag, and the same help text from the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from foretaste.cli.flags import option

Data = Annotated[str | None, option("--data")]
DataDir = Annotated[Path | None, option("--data-dir")]
Download = Annotated[bool, option("--download")]
EncoderName = Annotated[str | None, option("--encoder")]
Weights = Annotated[Path | None, option("--weights")]
Width = Annotated[int | None, option("--width")]
Mean = Annotated[str | None, option("--mean")]
Std = Annotated[str | None, option("--std")]
InputSize = Annotated[int | None, option("--input-size")]
Features = Annotated[Path | None, option("--features")]
Validation = Annotated[Path | None, option("--validation")]
SplitShares = Annotated[str | None, option("--split", default=True)]
SplitSeed = Annotated[int | None, option("--split-seed", default=True)]
Limit = Annotated[int | None, option("--limit")]
Other = Annotated[str | None, option("--other")]
OtherWeights = Annotated[Path | None, option("--other-weights")]
Null = Annotated[Path | None, option("--null")]
Device = Annotated[str | None, option("--device", default=True)]
