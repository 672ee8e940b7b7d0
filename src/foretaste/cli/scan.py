"""`foretaste scan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from foretaste.cli import common
from foretaste.errors import SpecError

if TYPE_CHECKING:
    from foretaste.defences.scans.base import Scan
    from foretaste.defences.scans.run import Request
    from foretaste.encoders.spec import EncoderSpec


def scan(
    suspect: Annotated[Path, typer.Argument(help="Encoder to scan: FILE.safetensors, or a checkpoint.")],
    reference: Annotated[Path | None, typer.Option(help="Weights of the original, of the same architecture.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Architecture of the suspect; default: as its own card says, see list."),
    ] = None,
    width: common.Width = None,
    mean: common.Mean = None,
    std: common.Std = None,
    input_size: common.InputSize = None,
    data: common.Data = None,
    data_dir: common.DataDir = None,
    download: common.Download = False,
    part: Annotated[str, typer.Option(help="test or train: which rows of the data are looked at.")] = "test",
    other: Annotated[str | None, typer.Option(help="An independent encoder, see foretaste list.")] = None,
    other_weights: Annotated[Path | None, typer.Option(help="Checkpoint for --other.")] = None,
    null: Annotated[Path | None, typer.Option(help="Folder of clean encoders, see scripts/clean_encoders.py.")] = None,
    scans: Annotated[
        str | None, typer.Option(help="Names with fields, as drift,decree:steps=400; default: all that can be run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for all scores and evidence.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the tables that are printed.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the scans that draw.")] = 0,
    split_seed: common.SplitSeed = None,
    limit: common.Limit = None,
    device: common.Device = None,
    threads: common.Threads = None,
) -> None:
    """Look for poison in an encoder.

    With --reference: what changed and which images moved. Without: triggers, neighbourhoods, weights. A score becomes
    a false-alarm rate beside the clean encoders in --null, which go through the same scans.
    """
    from rich.console import Console

    from foretaste.cli.progress import Following
    from foretaste.cli.scan_table import show
    from foretaste.defences.scans.run import Request, run
    from foretaste.runtime import make_runtime

    if part not in ("test", "train"):
        raise SpecError("--part: test or train", got=repr(part))
    if out is not None and (out.suffix != ".json" or not out.parent.is_dir()):
        found = repr(out.name) if out.suffix != ".json" else f"no folder {out.parent}"
        raise SpecError(f"--out {out}: a .json file in a folder that exists", got=found, do="pass another --out")
    if other is None and other_weights is not None:
        raise SpecError("--other: the encoder that the weights are of", got="--other-weights without it", do="pass it")
    request = Request(
        suspect=_suspect(suspect, encoder, width, mean, std, input_size),
        reference=reference,
        other=None if other is None else _spec("--other", reference=other, weights=other_weights),
        null=null,
        data=data,
        data_dir=data_dir,
        download=download,
        part=_part(part),
        split=common.split_spec(common.split_values(None, split_seed, limit)),
        seed=seed,
    )
    chosen = _chosen(scans, request)
    with Following(Console(stderr=True), "scan") as following:
        report = run(request, chosen, make_runtime(device or "auto", threads), following.step)
    if out is not None:
        _write(out, report.model_dump_json(indent=2) + "\n")
    show(report, Console(), top)
    if out is not None:
        print(f"wrote {out}")


def _suspect(
    path: Path, encoder: str | None, width: int | None, mean: str | None, std: str | None, size: int | None
) -> EncoderSpec:
    values = common.encoder_values(encoder or str(path), None, width, mean, std, size)
    return _spec("the suspect, --encoder and its flags", **values, weights=None if encoder is None else path)


def _spec(what: str, **values: object) -> EncoderSpec:
    from pydantic import ValidationError

    from foretaste.encoders.spec import EncoderSpec
    from foretaste.method import describe

    try:
        return EncoderSpec.model_validate(values)
    except ValidationError as error:
        raise SpecError(f"{what}: an encoder", got=describe(error)) from None


def _part(text: str) -> Literal["test", "train"]:
    return "train" if text == "train" else "test"


def _chosen(text: str | None, request: Request) -> list[Scan]:
    """The scans that were named, or all whose needs are there."""
    from foretaste.audit.spec import MethodSpec
    from foretaste.defences import DEFENCES, configure
    from foretaste.defences.scans.run import applicable

    if text is not None:
        named = [MethodSpec.parse(word) for word in text.split(",") if word]
        return [configure(method.name, method.fields, "scan") for method in named]
    if request.data is None:
        expected = "--data: images to look at (a name of foretaste list, FILE.npz or a folder)"
        raise SpecError(expected, got="none", do="pass it, or --scans weight-statistics, which needs no image")
    every = [configure(name, {}, "scan") for name, entry in DEFENCES.items() if entry.kind == "scan"]
    return [one for one in every if applicable(request, one.needs)]


def _write(path: Path, text: str) -> None:
    """The whole file or none."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise SpecError(f"--out {path}: a file that can be written", got=str(error), do="pass another --out") from None
    finally:
        draft.unlink(missing_ok=True)
