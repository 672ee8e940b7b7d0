"""`foretaste pretrain`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

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
    from rich.console import Console

    from foretaste import pretrain as table
    from foretaste.data import load, whole
    from foretaste.pretrain.run import run
    from foretaste.progress import Following
    from foretaste.runtime import make_runtime, training_runtime

    fields = common.extra_fields(context.args, "pretrain")
    chosen = table.find(method).configure(**fields)
    runtime = training_runtime(make_runtime(device or "auto", threads), precision)
    spec = common.split_spec(flags.values_of({"split_seed": split_seed, "limit": limit}).get("split", {}))
    images, _ = whole(load(data, data_dir=data_dir, download=download), spec)
    words = ["foretaste", "pretrain", "--data", data, "--arch", arch, "--method", method, "--seed", str(seed)]
    words += ["--width", str(width)] if width is not None else []
    words += [word for key, value in fields.items() for word in (f"--{key.replace('_', '-')}", value)]
    words += ["--precision", runtime.precision]
    words += ["--threads", str(threads)] if threads is not None else []
    words += ["--licence", licence] if licence else []
    words += ["--out", out.name]
    with Following(Console(stderr=True), f"pretrain {arch}") as following:
        card = run(
            images,
            arch,
            width,
            chosen,
            seed,
            runtime,
            out,
            lambda done, total, loss: following.step(done, total, f"loss {loss:.3f}"),
            command=shlex.join(words),
            licence=licence,
            overwrite=overwrite,
        )
    print(f"wrote {out}: {card.architecture}, {card.d} features, {card.source}")
