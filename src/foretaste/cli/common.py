"""Options and small parsers that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretaste.errors import SpecError

if TYPE_CHECKING:
    from foretaste.data import SplitSpec

Data = Annotated[str | None, typer.Option("--data", help="Name of a data set (foretaste list), FILE.npz or a folder.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the files of a standard data set are.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a standard data set that is not there.")]
EncoderName = Annotated[str | None, typer.Option("--encoder", help="An encoder, see foretaste list.")]
Weights = Annotated[Path | None, typer.Option(help="Checkpoint for the encoder; nothing in it is executed.")]
Width = Annotated[int | None, typer.Option(help="Width of resnet18-small; default: as in the weights, else 64.")]
Mean = Annotated[str | None, typer.Option(help="Three numbers r,g,b: mean of pixels in [0, 1].")]
Std = Annotated[str | None, typer.Option(help="Three numbers r,g,b: their standard deviation.")]
InputSize = Annotated[int | None, typer.Option(help="Side that images are resized to inside the encoder.")]
Features = Annotated[Path | None, typer.Option(help="npz with z [n, d] and y [n] instead of data and encoder.")]
Validation = Annotated[Path | None, typer.Option(help="npz with the attacker's own rows, in the form of the input.")]
SplitShares = Annotated[str | None, typer.Option("--split", help="Shares train,validation,clean; default 0.5,0.4,0.1.")]
SplitSeed = Annotated[int | None, typer.Option(help="Seed of the split.")]
Limit = Annotated[int | None, typer.Option(help="Use at most so many rows of each part of the data.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads to compute with; default: 1, for the same bytes on every machine.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]


def numbers(text: str | None, flag: str, count: int | None = None) -> list[float] | None:
    """Comma-separated numbers.

    Raises:
        SpecError: not numbers, or not so many.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or (count is not None and len(values) != count):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise SpecError(f"{flag}: {wanted} separated by commas", got=repr(text))
    return values


def encoder_values(
    reference: str | None, weights: Path | None, width: int | None, mean: str | None, std: str | None, size: int | None
) -> dict[str, Any]:
    """What was said about the encoder, for `EncoderSpec`.

    Raises:
        SpecError: details of an encoder without `--encoder`.
    """
    values: dict[str, Any] = {
        "weights": weights,
        "width": width,
        "mean": numbers(mean, "--mean", 3),
        "std": numbers(std, "--std", 3),
        "input_size": size,
    }
    said = {key: value for key, value in values.items() if value is not None}
    if reference is None and said:
        flag = next(iter(said)).replace("_", "-")
        raise SpecError(
            "--encoder: the encoder that the other flags are about", got=f"--{flag} without it", do="pass it"
        )
    return said if reference is None else {"reference": reference, **said}


def attacker_values(rows: str | None, share: float | None, encoder: str | None, weights: Path | None) -> dict[str, Any]:
    """What was said about the attacker's knowledge, for `AttackerSpec`.

    Raises:
        SpecError: weights of an encoder without `--attacker-encoder`.
    """
    if encoder is None and weights is not None:
        raise SpecError(
            "--attacker-encoder: the encoder that the weights are of", got="--attacker-weights without it", do="pass it"
        )
    own = None if encoder is None else {"reference": encoder, **({"weights": weights} if weights is not None else {})}
    values = {"rows": rows, "share": share, "encoder": own}
    return {key: value for key, value in values.items() if value is not None}


def other_values(encoder: str | None, weights: Path | None) -> dict[str, Any] | None:
    """What was said about the defender's second encoder, for `EncoderSpec`; None for nothing.

    Raises:
        SpecError: weights of an encoder without `--other`.
    """
    if encoder is None:
        if weights is not None:
            raise SpecError(
                "--other: the encoder that the weights are of", got="--other-weights without it", do="pass it"
            )
        return None
    return {"reference": encoder, **({} if weights is None else {"weights": weights})}


def split_values(shares: str | None, seed: int | None, limit: int | None) -> dict[str, Any]:
    """What was said about the split, for `SplitSpec`."""
    values: dict[str, Any] = {"seed": seed, "limit": limit}
    found = numbers(shares, "--split", 3)
    if found is not None:
        values |= dict(zip(("train", "validation", "clean"), found, strict=True))
    return {key: value for key, value in values.items() if value is not None}


def split_spec(values: dict[str, Any]) -> SplitSpec:
    """The split of a command that has no audit.

    Raises:
        SpecError: a value out of its range.
    """
    from pydantic import ValidationError

    from foretaste.data import SplitSpec
    from foretaste.method import describe

    try:
        return SplitSpec(**values)
    except ValidationError as error:
        expected = "--split, --split-seed and --limit: shares, a seed and a number of rows"
        raise SpecError(expected, got=describe(error)) from None


def extra_fields(words: list[str], command: str) -> dict[str, str]:
    """`--field value` pairs that a command does not know itself: hyperparameters of the method.

    Raises:
        SpecError: a word that is no field, or a field without a value.
    """
    fields: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or (not equals and not rest):
            raise SpecError(
                f"{command}: flags of the form --field value", got=repr(word), do="see `foretaste list NAME`"
            )
        fields[key.replace("-", "_")] = value if equals else rest.pop(0)
    return fields


def duration(seconds: float) -> str:
    """A time as people say it: 12 s, 3 min, 1.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
