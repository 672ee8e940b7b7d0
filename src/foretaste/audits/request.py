"""What `foretaste attack` is asked for, and what every one of its attacks needs of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.results import Poisoning
from foretaste.audits.drawn import PretrainingSpec
from foretaste.data import SplitSpec, load, whole
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache, cached_embed
from foretaste.images import Images
from foretaste.method import describe
from foretaste.record import Ledger
from foretaste.runtime import Runtime


@dataclass(frozen=True)
class Request:
    """What an attack is to be run on; see the flags of `foretaste attack`."""

    data: str | None = None
    data_dir: Path | None = None
    download: bool = False
    encoder: dict[str, Any] | None = None
    features: Path | None = None
    pretraining: PretrainingSpec | None = None
    validation: Path | None = None
    budget: float | None = None
    target_index: int | None = None
    target_class: str | None = None
    seed: int = 0
    ridge: float = 1e-3
    split: SplitSpec = field(default_factory=SplitSpec)
    device: str = "auto"


def known_images(request: Request, runtime: Runtime) -> tuple[Knowledge, Images]:
    """What the attacker knows, and the test rows, which it does not.

    All rows that are not test rows are the victim's; without a validation file the attacker tunes on them too.
    """
    assert request.data is not None
    dataset = load(request.data, data_dir=request.data_dir, download=request.download)
    train, test = whole(dataset, request.split)
    encoder = encoder_of(request, train, runtime)
    cache = FeatureCache()
    z = cached_embed(encoder, train, runtime, cache)
    own_z, own_y = z, train.labels
    if request.validation is not None:
        own = load(str(request.validation)).train
        if len(own.classes) != len(train.classes):
            found = f"{len(own.classes)} classes"
            raise SpecError(f"{request.validation}: the {len(train.classes)} classes of the data", got=found)
        own_z, own_y = cached_embed(encoder, own, runtime, cache), own.labels
    known = Knowledge(z, train.labels, own_z, own_y, len(train.classes), request.ridge, runtime, train, encoder)
    return known, test


def encoder_of(request: Request, images: Images, runtime: Runtime) -> Encoder:
    """The encoder that was asked for.

    Raises:
        SpecError: its flags are wrong.
        EncoderError: it cannot be built.
    """
    try:
        spec = EncoderSpec.model_validate(request.encoder)
    except ValidationError as error:
        raise SpecError("--encoder and its flags: an encoder", got=describe(error)) from None
    encoder = build(spec, (images.pixels.shape[2], images.pixels.shape[3]))
    return encoder.to(runtime.device)


def class_of(text: str, classes: tuple[str, ...]) -> int:
    """The class of that number or name.

    Raises:
        SpecError: there is none.
    """
    if text in classes and not text.isdecimal():
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    some = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    raise SpecError(f"--target-class: a number in [0, {len(classes) - 1}] or a name ({some})", got=repr(text))


def told(ledger: Ledger, poisoning: Poisoning | None = None) -> list[str]:
    """Lines that say what an attack reports of itself."""
    lines = []
    if len(ledger.objective) > 1:
        best = max(ledger.objective) if ledger.better == "higher" else min(ledger.objective)
        lines.append(f"objective ({ledger.objective_name}): {ledger.objective[0]:.4f} at the start, {best:.4f} at best")
    numbers = {**ledger.residuals, **ledger.figures}
    if numbers:
        lines.append(", ".join(f"{name} {value:.3g}" for name, value in numbers.items()))
    if poisoning is not None and not torch.equal(poisoning.base.unique(), poisoning.base.sort().values):
        lines.append("some training rows are the base of more than one poison")
    return lines


def save(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """An npz, whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise SpecError(f"--out {path}: a file that can be written", got=str(error), do="pass another --out") from None


def save_poisoning(out: Path, poisoning: Poisoning) -> None:
    """Labels, bases and the rows themselves: x (uint8 [m, H, W, 3]) or z."""
    arrays = {"y": poisoning.y.numpy(), "base": poisoning.base.numpy(), "replaces": np.array(poisoning.replaces)}
    if poisoning.pixels is not None:
        arrays["x"] = last_channel(poisoning.pixels)
    if poisoning.z is not None:
        arrays["z"] = poisoning.z.numpy()
    save(out, arrays)


def last_channel(pixels: torch.Tensor) -> np.ndarray[Any, Any]:
    """Uint8 [m, 3, H, W] as files have it, [m, H, W, 3]."""
    array: np.ndarray[Any, Any] = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return array
