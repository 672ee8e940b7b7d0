"""`foretaste repair NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from foretaste.cli import common, flags, shared


def repair(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="See foretaste list; the fields of foretaste list NAME are flags too.")],
    suspect: Annotated[Path, typer.Argument(help="The encoder's weights; nothing in the file is executed.")],
    out: Annotated[Path, typer.Option(help="A new file for the repaired encoder: NAME.safetensors.")],
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Its architecture, see foretaste list; default: as its card says.")
    ] = None,
    width: shared.Width = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    input_size: shared.InputSize = None,
    data: shared.Data = None,
    data_dir: shared.DataDir = None,
    download: shared.Download = False,
    seed: Annotated[int, typer.Option(help="Seed of the repair.")] = 0,
    split_seed: shared.SplitSeed = None,
    limit: shared.Limit = None,
    device: shared.Device = None,
    threads: common.Threads = None,
    precision: Annotated[
        str, typer.Option(help="auto (bfloat16 where the machine has it), float32 or bfloat16.")
    ] = "auto",
) -> None:
    """Make a new encoder from a suspect one and clean images of your own.

    It sees the rows of a data set that are not test rows; they must be clean. The suspect's file stays as it is.
    """
    from foretaste import defences
    from foretaste.api.encoders import repair_encoder

    fields: dict[str, Any] = {**common.extra_fields(context.args, f"repair {name}")}
    method = defences.find(name, "repair")
    # Without --encoder the file itself has to say what it is.
    reference, weights = (encoder, suspect) if encoder else (str(suspect), None)
    said = flags.values_of(
        {"encoder": reference, "weights": weights, "width": width, "mean": mean, "std": std, "input_size": input_size}
        | {"split_seed": split_seed, "limit": limit}
    )
    rows = common.split_spec(said.get("split", {}))
    made = repair_encoder(
        method,
        said["encoder"],
        out,
        data=data,
        data_dir=data_dir,
        download=download,
        split=rows,
        seed=seed,
        precision=precision,
        device=device or "auto",
        threads=threads,
        **fields,
    )
    card = made.card
    print(f"clean data used: {made.data}")
    print(card.source.rpartition("; ")[2])
    print(f"wrote {out}: {card.architecture}, {card.d} features, sha256 {card.sha256[:12]}")
