"""`foretaste.scan_encoder`, `repair_encoder`, `pretrain_encoder`: looked at, mended or made outside an audit."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console

from foretaste import defences as table
from foretaste import pretrain as methods
from foretaste.audits.repair_once import NO_IMAGES, check_out
from foretaste.audits.repair_once import run as run_repair
from foretaste.audits.scan_once import Request, scans_of
from foretaste.audits.scan_once import run as run_scans
from foretaste.data import SplitSpec, load, whole
from foretaste.defences.repairs.base import Repair
from foretaste.defences.scans.base import Scan
from foretaste.defences.scans.report import ScanReport
from foretaste.encoders.card import Card
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import SpecError
from foretaste.method import describe
from foretaste.pretrain.run import run as run_pretraining
from foretaste.progress import Following
from foretaste.runtime import Runtime, free_threads, make_runtime, training_runtime

EncoderLike = str | Path | Mapping[str, Any] | EncoderSpec
"""A name, a weight file, or keys of an `EncoderSpec`."""
SplitLike = SplitSpec | Mapping[str, Any] | None
"""Which rows of the data: keys of a `SplitSpec`."""


@dataclass(frozen=True)
class EncoderFile:
    """An encoder that was written.

    Attributes:
        path: the weights; the card stands beside them.
        card: as written.
        data: in words, which rows it was made with.
    """

    path: Path
    card: Card
    data: str


def scan_encoder(
    suspect: EncoderLike,
    *,
    scans: Sequence[str | Scan] | None = None,
    reference: str | Path | None = None,
    other: EncoderLike | None = None,
    null: str | Path | None = None,
    data: str | Path | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    part: Literal["test", "train"] = "test",
    split: SplitLike = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
) -> ScanReport:
    """Look for poison in an encoder, as `foretaste scan` does.

    Args:
        suspect: the encoder.
        scans: by name with fields (`decree:steps=400`) or configured; None: all whose needs are there.
        reference: weights of the original, of the same architecture.
        other: an independent encoder of any architecture.
        null: folder of clean encoders of the same architecture, which turn scores into false-alarm rates.
        data: images to look at: name of a data set, an .npz file or a folder.
        data_dir: where the files of a standard data set are.
        download: fetch a standard data set that is not there.
        part: which rows of the data are looked at.
        split: seed and limit of those rows.
        seed: of the scans that draw.
        device: auto, cpu or cuda.
        threads: to compute with; None: the cores of this process.
        progress: draw a bar in a terminal or a notebook.

    Raises:
        SpecError: no scan, or one that lacks what it needs; an unknown name or field.
        DataError: the images cannot be used.
        EncoderError: an encoder cannot be built, or reference and null are of another architecture.
    """
    if part not in ("test", "train"):
        raise SpecError("--part: test or train", got=repr(part))
    request = Request(
        suspect=encoder_spec(suspect, "the suspect, --encoder and its flags"),
        reference=None if reference is None else Path(reference),
        other=None if other is None else encoder_spec(other, "--other"),
        null=None if null is None else Path(null),
        data=None if data is None else str(data),
        data_dir=data_dir,
        download=download,
        part=part,
        split=_split(split),
        seed=seed,
    )
    chosen, runtime = scans_of(scans, request), make_runtime(device, threads or free_threads())
    with Following(Console(stderr=True, quiet=not progress), "scan") as following:
        return run_scans(request, chosen, runtime, following.step)


def repair_encoder(
    repair: str | type[Repair] | Repair,
    suspect: EncoderLike,
    out: str | Path,
    *,
    data: str | Path | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    split: SplitLike = None,
    seed: int = 0,
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
    **fields: Any,
) -> EncoderFile:
    """Repair an encoder with clean images and write it, as `foretaste repair` does; the suspect's file stays.

    Args:
        repair: a name (`foretaste list`), a class, or a configured value.
        suspect: the encoder, with its weights.
        out: a new file that ends in .safetensors; its card is written beside it.
        data: clean images, of which those that are not test rows are used; None for a repair that looks at none.
        data_dir: where the files of a standard data set are.
        download: fetch a standard data set that is not there.
        split: seed and limit of the rows.
        seed: of everything that is drawn.
        precision: auto, float32 or bfloat16, of repairs that train.
        device: auto, cpu or cuda.
        threads: to compute with; None: the cores of this process.
        progress: draw a bar in a terminal or a notebook.
        fields: of the repair, where it is a name or a class.

    Raises:
        SpecError: an unknown repair or field, no images where they are needed, or `out` cannot be written.
        DataError: too few clean images.
        EncoderError: the encoder cannot be built or repaired.
    """
    out = Path(out)
    method: Repair = repair if isinstance(repair, Repair) else table.configure(repair, fields, "repair")
    check_out(out)
    spec, rows = encoder_spec(suspect), _split(split)
    runtime = training_runtime(make_runtime(device, threads or free_threads()), precision)
    if method.least and data is None:
        do = f"{method.name} needs {method.least} or more of them; pass some"
        raise SpecError("--data: clean images of your own", got="none", do=do)
    used = NO_IMAGES
    if method.least and data is not None:
        used = whole(load(str(data), data_dir=data_dir, download=download), rows)[0]
    command = _repair_words(method, spec, None if used is NO_IMAGES else str(data), seed, runtime, fields, out)
    with Following(Console(stderr=True, quiet=not progress), f"repair {method.name}") as following:
        card = run_repair(
            method,
            spec,
            used,
            seed,
            runtime,
            out,
            lambda done, total, loss: following.step(done, total, f"loss {loss:.3f}"),
            command=shlex.join(command),
        )
    labels = "with their labels" if method.supervised else "without labels"
    told = f"{len(used)} rows of {used.name} that are not test rows, {labels}" if method.least else "none"
    return EncoderFile(out, card, told)


def pretrain_encoder(
    data: str | Path,
    out: str | Path,
    *,
    arch: str = "resnet18-small",
    width: int | None = None,
    method: str = "simclr",
    data_dir: Path | None = None,
    download: bool = False,
    split: SplitLike = None,
    seed: int = 0,
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    licence: str = "",
    overwrite: bool = False,
    progress: bool = True,
    **fields: Any,
) -> EncoderFile:
    """Pre-train an encoder without labels and write it, as `foretaste pretrain` does; a killed run goes on.

    Args:
        data: images, of which those that are not test rows are used.
        out: a new file that ends in .safetensors; its card is written beside it.
        arch: `resnet18-small` or `timm:NAME`.
        width: of `resnet18-small`; None: 64.
        method: how to train; its fields are `fields`.
        data_dir: where the files of a standard data set are.
        download: fetch a standard data set that is not there.
        split: seed and limit of the rows.
        seed: of everything that is drawn.
        precision: auto (bfloat16 where the machine has it), float32 or bfloat16.
        device: auto, cpu or cuda.
        threads: to compute with; None: the cores of this process.
        licence: of the weights, for the card.
        overwrite: write over a file that exists.
        progress: draw a bar in a terminal or a notebook.
        fields: of the method, as in `foretaste list simclr`.

    Raises:
        SpecError: an unknown method or field; `out` cannot be written over, or a checkpoint beside it is of other
            settings.
        DataError: the images cannot be used.
        EncoderError: the architecture cannot be built, or the training diverged.
    """
    out = Path(out)
    chosen = methods.find(method).configure(**fields)
    runtime = training_runtime(make_runtime(device, threads or free_threads()), precision)
    images, _ = whole(load(str(data), data_dir=data_dir, download=download), _split(split))
    words = ["foretaste", "pretrain", "--data", str(data), "--arch", arch, "--method", method, "--seed", str(seed)]
    words += ["--width", str(width)] if width is not None else []
    words += [*_flags(fields), "--precision", runtime.precision]
    words += ["--threads", str(threads)] if threads is not None else []
    words += ["--licence", licence] if licence else []
    with Following(Console(stderr=True, quiet=not progress), f"pretrain {arch}") as following:
        card = run_pretraining(
            images,
            arch,
            width,
            chosen,
            seed,
            runtime,
            out,
            lambda done, total, loss: following.step(done, total, f"loss {loss:.3f}"),
            command=shlex.join([*words, "--out", out.name]),
            licence=licence,
            overwrite=overwrite,
        )
    return EncoderFile(out, card, f"{len(images)} rows of {images.name} that are not test rows, without labels")


def encoder_spec(encoder: EncoderLike, what: str = "--encoder and its flags") -> EncoderSpec:
    """An encoder as it was named.

    Raises:
        SpecError: keys that it does not have, or values out of their range.
    """
    if isinstance(encoder, EncoderSpec):
        return encoder
    try:
        return EncoderSpec.model_validate(
            dict(encoder) if isinstance(encoder, Mapping) else {"reference": str(encoder)}
        )
    except ValidationError as error:
        raise SpecError(f"{what}: an encoder", got=describe(error)) from None


def _split(split: SplitLike) -> SplitSpec:
    try:
        return SplitSpec.model_validate(split or {})
    except ValidationError as error:
        raise SpecError("split: shares, seed and limit", got=describe(error)) from None


def _repair_words(
    method: Repair, spec: EncoderSpec, data: str | None, seed: int, runtime: Runtime, fields: dict[str, Any], out: Path
) -> list[str]:
    """The command that makes the repaired weights again."""
    # Without --encoder the file itself says what it is.
    file, encoder = (
        (Path(spec.reference), []) if spec.weights is None else (spec.weights, ["--encoder", spec.reference])
    )
    words = ["foretaste", "repair", method.name, file.name, *encoder, "--seed", str(seed)]
    words += ["--precision", runtime.precision, *(["--data", data] if data is not None else [])]
    return [*words, *_flags(fields), "--out", out.name]


def _flags(fields: Mapping[str, Any]) -> list[str]:
    return [word for key, value in fields.items() for word in (f"--{key.replace('_', '-')}", str(value))]
