"""`foretaste attack NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from foretaste.cli import common, flags, shared
from foretaste.errors import SpecError


def attack(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="See foretaste list; the fields of foretaste list NAME are flags too.")],
    out: Annotated[
        Path,
        typer.Option(help="poison.npz for labelled rows or pre-training images, poisoned.safetensors for an encoder."),
    ],
    data: shared.Data = None,
    data_dir: shared.DataDir = None,
    download: shared.Download = False,
    encoder: shared.EncoderName = None,
    weights: shared.Weights = None,
    width: shared.Width = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    input_size: shared.InputSize = None,
    features: shared.Features = None,
    validation: shared.Validation = None,
    pretraining: Annotated[
        str | None, typer.Option(help="Images that an attack on pre-training adds to: DATA or DATA,limit=5000.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Added (or replaced) rows / training rows: floor(budget * n) rows.")
    ] = None,
    target_index: Annotated[int | None, typer.Option(help="Row of the test split to steer.")] = None,
    target_class: Annotated[str | None, typer.Option(help="Class it should get: its number or its name.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the attack.")] = 0,
    ridge: Annotated[float, typer.Option(help="L2 weight of the victim's head.")] = 1e-3,
    split: shared.SplitShares = None,
    split_seed: shared.SplitSeed = None,
    limit: shared.Limit = None,
    device: shared.Device = None,
) -> None:
    """Run one attack alone and write its poison.

    On features, the npz has keys z and y; on data, x (uint8 [m, H, W, 3]) and y; both also have base, the training row
    that each poison started from, and replaces, which is true where the poison stands in the place of those rows. An
    attack on the weights writes a complete encoder file, one on pre-training images an npz of images x.
    """
    from foretaste import attacks
    from foretaste.api.attack import attack_to_file
    from foretaste.attacks.base import PretrainingAttack
    from foretaste.audits.attack_request import Request
    from foretaste.audits.spec_parts import PretrainingSpec

    method = attacks.configure(name, common.extra_fields(context.args, f"attack {name}"))
    said = flags.values_of(
        {"encoder": encoder, "weights": weights, "width": width, "mean": mean, "std": std, "input_size": input_size}
        | {"split": split, "split_seed": split_seed, "limit": limit}
    )
    chosen, shares = said.get("encoder", {}), said.get("split", {})
    if features is None and data is None:
        raise SpecError("attack: --features F.npz, or --data D with --encoder E", got="neither", do="pass one of them")
    if features is not None and (data is not None or chosen):
        raise SpecError("attack: --features, or --data with --encoder", got="both", do="pass one of them")
    if features is not None and shares:
        raise SpecError(
            "attack: --split, --split-seed and --limit beside --data", got="--features", do="leave them out"
        )
    request = Request(
        data=data,
        data_dir=data_dir,
        download=download,
        encoder=chosen or None if isinstance(method, PretrainingAttack) else _encoder(chosen, data),
        features=features,
        pretraining=None if pretraining is None else PretrainingSpec.parse(pretraining),
        validation=validation,
        budget=budget,
        target_index=target_index,
        target_class=target_class,
        seed=seed,
        ridge=ridge,
        split=common.split_spec(shares),
        device=device or "auto",
    )
    print("\n".join([*attack_to_file(method, request, out), f"wrote {out}"]))


def _encoder(chosen: dict[str, Any], data: str | None) -> dict[str, Any] | None:
    if chosen or data is None:
        return chosen or None
    if data == "digits":
        return {"reference": "digits-simclr"}
    raise SpecError("--encoder: the encoder under attack", got="none", do="see `foretaste list`")
