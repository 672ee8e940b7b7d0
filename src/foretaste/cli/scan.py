"""`foretaste scan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foretaste.cli import common, flags, shared
from foretaste.errors import SpecError


def scan(
    suspect: Annotated[Path, typer.Argument(help="Encoder to scan: FILE.safetensors, or a checkpoint.")],
    reference: Annotated[Path | None, typer.Option(help="Weights of the original, of the same architecture.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Architecture of the suspect; default: as its own card says, see list."),
    ] = None,
    width: shared.Width = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    input_size: shared.InputSize = None,
    data: shared.Data = None,
    data_dir: shared.DataDir = None,
    download: shared.Download = False,
    part: Annotated[str, typer.Option(help="test or train: which rows of the data are looked at.")] = "test",
    other: shared.Other = None,
    other_weights: shared.OtherWeights = None,
    null: shared.Null = None,
    scans: Annotated[
        str | None, typer.Option(help="Names with fields, as drift,decree:steps=400; default: all that can be run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for all scores and evidence.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the tables that are printed.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the scans that draw.")] = 0,
    split_seed: shared.SplitSeed = None,
    limit: shared.Limit = None,
    device: shared.Device = None,
    threads: common.Threads = None,
) -> None:
    """Look for poison in an encoder.

    With --reference: what changed and which images moved. Without: triggers, neighbourhoods, weights. A score becomes
    a false-alarm rate beside the clean encoders in --null, which go through the same scans.
    """
    from rich.console import Console

    from foretaste.api.encoders import scan_encoder
    from foretaste.cli.scan_table import show

    if part not in ("test", "train"):
        raise SpecError("--part: test or train", got=repr(part))
    if out is not None and (out.suffix != ".json" or not out.parent.is_dir()):
        found = repr(out.name) if out.suffix != ".json" else f"no folder {out.parent}"
        raise SpecError(f"--out {out}: a .json file in a folder that exists", got=found, do="pass another --out")
    said = flags.values_of(
        {"encoder": encoder or str(suspect), "width": width, "mean": mean, "std": std, "input_size": input_size}
        | {"other": other, "other_weights": other_weights, "split_seed": split_seed, "limit": limit}
    )
    report = scan_encoder(
        {**said["encoder"], "weights": None if encoder is None else suspect},
        scans=None if scans is None else [word for word in scans.split(",") if word],
        reference=reference,
        other=said.get("other"),
        null=null,
        data=data,
        data_dir=data_dir,
        download=download,
        part="train" if part == "train" else "test",
        split=common.split_spec(said.get("split", {})),
        seed=seed,
        device=device or "auto",
        threads=threads,
    )
    if out is not None:
        _write(out, report.model_dump_json(indent=2) + "\n")
    show(report, Console(), top)
    if out is not None:
        print(f"wrote {out}")


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
