"""`foretaste audit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretaste.cli import common

if TYPE_CHECKING:
    from foretaste.audit.spec import AuditSpec


def audit(
    file: Annotated[Path | None, typer.Argument(help="An audit as a YAML file; flags override it.")] = None,
    data: common.Data = None,
    data_dir: common.DataDir = None,
    download: common.Download = False,
    encoder: common.EncoderName = None,
    weights: common.Weights = None,
    width: common.Width = None,
    mean: common.Mean = None,
    std: common.Std = None,
    input_size: common.InputSize = None,
    features: common.Features = None,
    validation: common.Validation = None,
    test: Annotated[Path | None, typer.Option(help="npz with the test features.")] = None,
    attacks: Annotated[
        str | None,
        typer.Option(help="Separated by commas, fields after colons: label-flip,exact:carrier=pixels:epsilon=8."),
    ] = None,
    budgets: Annotated[str | None, typer.Option(help="Added rows / training rows; default 0.01,0.03,0.1.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of each labelled-data attack; default 3.")] = None,
    targets: Annotated[
        int | None, typer.Option(help="(target, class) pairs of each attack that steers one image; default 20.")
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(help="Images of the wanted class that the attacker holds: own, or the head's training rows."),
    ] = None,
    pretraining: Annotated[
        str | None,
        typer.Option(help="Images for attacks on pre-training: DATA,limit=5000,epochs=5 (foretaste list simclr)."),
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(help="Images whose features attacks on the weights keep: DATA,limit=5000; default its own rows."),
    ] = None,
    probes: Annotated[
        str | None, typer.Option(help="Victims as in --attacks, the first is the headline; default exact.")
    ] = None,
    ridge: Annotated[float | None, typer.Option(help="L2 weight of the exact head; default 0.001.")] = None,
    attacker_rows: Annotated[
        str | None,
        typer.Option(help="Training rows that the attacker knows: full, subset (of each class) or surrogate (none)."),
    ] = None,
    attacker_share: Annotated[float | None, typer.Option(help="Share of --attacker-rows subset; default 0.1.")] = None,
    attacker_encoder: Annotated[
        str | None, typer.Option(help="The encoder that the attacker has; default the victim's.")
    ] = None,
    attacker_weights: Annotated[Path | None, typer.Option(help="Checkpoint for --attacker-encoder.")] = None,
    countermeasures: Annotated[
        str | None,
        typer.Option(
            help="Of the defender, separated by commas, or none: clipped, pixel-clipped, norm-filtered, "
            "centroid-filtered; default clipped."
        ),
    ] = None,
    defences: Annotated[
        str | None,
        typer.Option(
            help="As in --attacks, default none. Filters of the training rows and certified heads (sphere,dpa); "
            "repairs, guards and scans of the encoder where an attack changed it (distil,views-vote,drift)."
        ),
    ] = None,
    other: Annotated[
        str | None, typer.Option(help="The defender's second encoder, for agreement and neighbours.")
    ] = None,
    other_weights: Annotated[Path | None, typer.Option(help="Checkpoint for --other.")] = None,
    null: Annotated[
        Path | None, typer.Option(help="Folder of clean encoders, for the false-alarm rates of scans.")
    ] = None,
    split: common.SplitShares = None,
    split_seed: common.SplitSeed = None,
    limit: common.Limit = None,
    device: common.Device = None,
    precision: Annotated[str | None, typer.Option(help="Inside the encoder: auto, float32 or bfloat16.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for record and report.")] = Path("foretaste-audit"),
    only: Annotated[str | None, typer.Option(help="Run just this trial (its identity in the record).")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved audit, the number of trials and the time; run nothing.")
    ] = False,
) -> None:
    """Audit an encoder and its head, and write the report. Without arguments: the embedded digits audit.

    The same command continues an audit that was interrupted. Exit code 1: some trial failed (it is in the record).
    """
    from foretaste.audit.spec import AuditSpec

    said: dict[str, Any] = {
        "data": data,
        "data_dir": data_dir,
        "download": download or None,
        "features": features,
        "validation": validation,
        "test": test,
        "attacks": None if attacks is None else [part for part in attacks.split(",") if part],
        "budgets": common.numbers(budgets, "--budgets"),
        "seeds": seeds,
        "targets": targets,
        "references": references,
        "pretraining": pretraining,
        "shadow": shadow,
        "probes": None if probes is None else [part for part in probes.split(",") if part],
        "ridge": ridge,
        "countermeasures": None if countermeasures is None else [part for part in countermeasures.split(",") if part],
        "defences": None if defences is None else [part for part in defences.split(",") if part],
        "other": common.other_values(other, other_weights),
        "null": null,
        "device": device,
        "precision": precision,
    }
    values = {} if file is None else AuditSpec.read(file).model_dump(exclude_unset=True)
    values |= {key: value for key, value in said.items() if value is not None}
    if chosen := common.encoder_values(encoder, weights, width, mean, std, input_size):
        values["encoder"] = chosen
    if shares := common.split_values(split, split_seed, limit):
        values["split"] = {**values.get("split", {}), **shares}
    if known := common.attacker_values(attacker_rows, attacker_share, attacker_encoder, attacker_weights):
        values["attacker"] = {**values.get("attacker", {}), **known}
    spec = AuditSpec.make(values, "audit" if file is None else str(file))
    if dry_run:
        _show_plan(spec)
    else:
        _run(spec, out, only)


def _show_plan(spec: AuditSpec) -> None:
    from rich.console import Console

    from foretaste.audit.cost import estimate_seconds
    from foretaste.audit.grid import configured, plan
    from foretaste.audit.prepare import prepare
    from foretaste.cli.progress import AuditProgress

    configured(spec)
    with AuditProgress(Console(stderr=True)) as progress:
        prepared = prepare(spec, progress.stage)
        trials = plan(prepared)
        seconds = estimate_seconds(prepared, trials)
    print(prepared.spec.to_yaml(), end="")
    print(f"# {len(trials)} trials, about {common.duration(seconds)} on this machine")


def _run(spec: AuditSpec, out: Path, only: str | None) -> None:
    from rich.console import Console

    from foretaste.audit.runner import run
    from foretaste.cli.progress import AuditProgress
    from foretaste.report import write

    with AuditProgress(Console(stderr=True)) as progress:
        outcome = run(spec, out, progress, only)
    page, text = write(out)
    print(_verdict(text))
    print(f"\nreport: {page}")
    if outcome.failures:
        print(
            f"foretaste: {len(outcome.failures)} of {len(outcome.records)} trials failed; the report says why, "
            "and the same command tries them again.",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def _verdict(report: Path) -> str:
    """The plain words on top of the report: its recommendation and its verdict."""
    lines = report.read_text(encoding="utf-8").splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("## ")]
    end = next((number for number in heads if number > lines.index("## Verdict")), len(lines))
    return "\n".join(line for line in lines[heads[0] : end] if line and not line.startswith("## "))
