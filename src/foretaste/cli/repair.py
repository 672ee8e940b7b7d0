"""`foretaste repair NAME`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from foretaste.cli import common, flags, shared
from foretaste.errors import SpecError


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
    from rich.console import Console

    from foretaste import defences
    from foretaste.audits.repair_once import NO_IMAGES, check_out, run
    from foretaste.data import load, whole
    from foretaste.progress import Following
    from foretaste.runtime import make_runtime, training_runtime

    fields = common.extra_fields(context.args, f"repair {name}")
    method = defences.configure(name, fields, "repair")
    check_out(out)
    # Without --encoder the file itself has to say what it is.
    reference, weights = (encoder, suspect) if encoder else (str(suspect), None)
    said = flags.values_of(
        {"encoder": reference, "weights": weights, "width": width, "mean": mean, "std": std, "input_size": input_size}
        | {"split_seed": split_seed, "limit": limit}
    )
    spec, rows = _spec(said["encoder"]), common.split_spec(said.get("split", {}))
    runtime = training_runtime(make_runtime(device or "auto", threads), precision)
    if method.least and data is None:
        raise SpecError(
            "--data: clean images of your own", got="none", do=f"{name} needs {method.least} or more of them; pass some"
        )
    clean = whole(load(data, data_dir=data_dir, download=download), rows)[0] if method.least and data else NO_IMAGES
    words = ["foretaste", "repair", name, suspect.name, *(["--encoder", encoder] if encoder else [])]
    words += ["--seed", str(seed), "--precision", runtime.precision]
    words += ["--data", data] if method.least and data else []
    words += [word for key, value in fields.items() for word in (f"--{key.replace('_', '-')}", value)]
    with Following(Console(stderr=True), f"repair {name}") as following:
        card = run(
            method,
            spec,
            clean,
            seed,
            runtime,
            out,
            lambda done, total, loss: following.step(done, total, f"loss {loss:.3f}"),
            command=shlex.join([*words, "--out", out.name]),
        )
    labels = "with their labels" if method.supervised else "without labels"
    used = f"{len(clean)} rows of {clean.name} that are not test rows, {labels}" if method.least else "none"
    print(f"clean data used: {used}")
    print(card.source.rpartition("; ")[2])
    print(f"wrote {out}: {card.architecture}, {card.d} features, sha256 {card.sha256[:12]}")


def _spec(values: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from foretaste.encoders.spec import EncoderSpec
    from foretaste.method import describe

    try:
        return EncoderSpec.model_validate(values)
    except ValidationError as error:
        raise SpecError("--encoder and its flags: an encoder", got=describe(error)) from None
