"""`foretaste pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from foretaste.cli import common, flags, shared


def pretrain(
    context: typer.Context,
    data: Annotated[str, typer.Option("--data", help="Name of a data set (foretaste list), FILE.npz or a folder.")],
    out: Annotated[Path, typer.Option(help="File for the encoder: NAME.safetensors, with its card beside it.")],
    data_dir: shared.DataDir = None,
    download: shared.Download = False,
    arch: Annotated[str, typer.Option(help="resnet18-small or timm:NAME.")] = "resnet18-small",
    width: shared.Width = None,
    method: Annotated[str, typer.Option(help="See foretaste list; its fields are flags too.")] = "simclr",
    seed: Annotated[int, typer.Option(help="Seed of weights, order and views.")] = 0,
    split_seed: shared.SplitSeed = None,
    limit: shared.Limit = None,
    device: shared.Device = None,
    threads: common.Threads = None,
    precision: Annotated[
        str, typer.Option(help="auto (bfloat16 where the machine has it), float32 or bfloat16.")
    ] = "auto",
    licence: Annotated[str, typer.Option(help="Of the weights, for the card.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file that exists.")] = False,
) -> None:
    """Pre-train an encoder without labels.

    It sees the rows of a data set that are not test rows. The same command continues a run that was interrupted.
    """
    from foretaste.api.encoders import pretrain_encoder

    fields: dict[str, Any] = {**common.extra_fields(context.args, "pretrain")}
    rows = common.split_spec(flags.values_of({"split_seed": split_seed, "limit": limit}).get("split", {}))
    card = pretrain_encoder(
        data,
        out,
        arch=arch,
        width=width,
        method=method,
        data_dir=data_dir,
        download=download,
        split=rows,
        seed=seed,
        precision=precision,
        device=device or "auto",
        threads=threads,
        licence=licence,
        overwrite=overwrite,
        **fields,
    ).card
    print(f"wrote {out}: {card.architecture}, {card.d} features, {card.source}")
