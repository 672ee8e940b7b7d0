"""One attack on its own, written to a file: what `foretaste attack` does."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from foretaste.attacks.base import (
    Knowledge,
    LabelledAttack,
    Poisoning,
    Progress,
    WeightAttack,
    poisoned_rows,
    require_replaceable,
)
from foretaste.data import SplitSpec, file_of, load, split, whole
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import save_encoder
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache, cached_embed
from foretaste.features.file import check_same, read_features
from foretaste.images import Images
from foretaste.method import describe
from foretaste.record import Ledger
from foretaste.runtime import Runtime, digest_tensors, make_runtime


@dataclass(frozen=True)
class Request:
    """What an attack is to be run on; see the flags of `foretaste attack`."""

    data: str | None = None
    data_dir: Path | None = None
    download: bool = False
    encoder: dict[str, Any] | None = None
    features: Path | None = None
    validation: Path | None = None
    budget: float | None = None
    target_index: int | None = None
    target_class: str | None = None
    seed: int = 0
    ridge: float = 1e-3
    split: SplitSpec = field(default_factory=SplitSpec)
    device: str = "auto"


def craft(method: LabelledAttack | WeightAttack, request: Request, out: Path, progress: Progress) -> list[str]:
    """Run the attack and write its result, whole or not at all; returns lines that say what it did.

    Raises:
        ForetasteError: bad input, or an attack that failed.
    """
    wanted = ".safetensors" if isinstance(method, WeightAttack) else ".npz"
    if out.suffix != wanted:
        raise SpecError(f"--out: a file that ends in {wanted}", got=repr(out.name), do="rename it")
    data = None if request.data is None else file_of(request.data)[0]
    sources = [request.features, request.validation, data, *(request.encoder or {}).values()]
    for source in sources:
        if isinstance(source, str | Path) and out.exists() and Path(source).exists() and out.samefile(source):
            raise SpecError(
                f"--out {out}: a file that is not an input", got="the input itself", do="pass another --out"
            )
    if not out.parent.is_dir():
        raise SpecError(f"--out {out}: a file in a folder that exists", got=f"no folder {out.parent}", do="make it")
    if not 0 < request.ridge < float("inf"):
        raise SpecError("--ridge: a positive number", got=f"{request.ridge:g}")
    if isinstance(method, WeightAttack):
        return _weights(method, request, out, progress)
    return _labelled(method, request, out, progress)


def _labelled(method: LabelledAttack, request: Request, out: Path, progress: Progress) -> list[str]:
    if request.budget is None:
        raise SpecError("--budget: added rows / training rows", got="none", do="pass for instance --budget 0.03")
    if request.target_index is not None or request.target_class is not None:
        raise SpecError(f"{method.name}: no target, it lowers the accuracy", got="--target-index or --target-class")
    require_replaceable(method, request.budget)
    runtime = make_runtime(request.device)
    known = _known_features(request, runtime) if request.features is not None else _known_images(request, runtime)
    rows = poisoned_rows(request.budget, len(known.y))
    poisoning = method.poison(known, rows, request.seed, progress)
    arrays = {"y": poisoning.y.numpy(), "base": poisoning.base.numpy(), "replaces": np.array(poisoning.replaces)}
    if poisoning.pixels is not None:
        arrays["x"] = poisoning.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    if poisoning.z is not None:
        arrays["z"] = poisoning.z.numpy()
    _save(out, arrays)
    told = f"{rows} poisoned rows = floor({request.budget:g} x {len(known.y)})"
    told += ", each in the place of its base row" if poisoning.replaces else ""
    return [told, *_told(poisoning.ledger, poisoning)]


def _weights(method: WeightAttack, request: Request, out: Path, progress: Progress) -> list[str]:
    if request.features is not None or request.data is None or request.encoder is None:
        raise SpecError(f"{method.name}: --data and --encoder", got="features from a file", do="it edits an encoder")
    if request.budget is not None or request.validation is not None:
        said = "--budget" if request.budget is not None else "--validation"
        raise SpecError(f"{method.name}: no budget and no validation file", got=said, do="it adds no row; leave it out")
    if request.target_index is None or request.target_class is None:
        raise SpecError(f"{method.name}: --target-index and --target-class", got="one of them or none", do="pass both")
    runtime = make_runtime(request.device)
    dataset = load(request.data, data_dir=request.data_dir, download=request.download)
    parts = split(dataset, request.split)
    encoder = _encoder(request, parts.train, runtime)
    if not 0 <= request.target_index < len(parts.test):
        raise SpecError(f"--target-index: a test row in [0, {len(parts.test) - 1}]", got=str(request.target_index))
    wanted = _class_of(request.target_class, parts.test.classes)
    truth = int(parts.test.labels[request.target_index])
    if truth == wanted:
        name = parts.test.classes[wanted]
        raise SpecError(
            "--target-class: another class than the target's own", got=f"its own, {name!r}", do="pass another"
        )
    own = parts.validation
    references = own.take((own.labels == wanted).nonzero()[:, 0])
    target = parts.test.pixels[request.target_index].clone()
    corruption = method.corrupt(encoder, target, references, own, request.seed, runtime, progress)
    told = (
        f"{method.name} on {encoder.card.name}: test row {request.target_index} to class {wanted}, seed {request.seed}"
    )
    card = encoder.card.model_copy(update={"source": told, "sha256": digest_tensors(corruption.state), "command": ""})
    save_encoder(out, corruption.state, card, overwrite=True)
    return [
        f"test row {request.target_index}: from {parts.test.classes[truth]} to {parts.test.classes[wanted]}",
        f"{len(corruption.ledger.changed)} tensors changed",
        *_told(corruption.ledger, None),
    ]


def _known_features(request: Request, runtime: Runtime) -> Knowledge:
    assert request.features is not None
    train = read_features(request.features)
    own = train
    if request.validation is not None:
        own = read_features(request.validation, classes=len(train.classes))
        check_same(train, own)
    return Knowledge(train.z, train.y, own.z, own.y, len(train.classes), request.ridge, runtime)


def _known_images(request: Request, runtime: Runtime) -> Knowledge:
    """All rows that are not test rows are the victim's; without a validation file the attacker tunes on them too."""
    assert request.data is not None
    dataset = load(request.data, data_dir=request.data_dir, download=request.download)
    train, _ = whole(dataset, request.split)
    encoder = _encoder(request, train, runtime)
    cache = FeatureCache()
    z = cached_embed(encoder, train, runtime, cache)
    own_z, own_y = z, train.labels
    if request.validation is not None:
        own = load(str(request.validation)).train
        if len(own.classes) != len(train.classes):
            found = f"{len(own.classes)} classes"
            raise SpecError(f"{request.validation}: the {len(train.classes)} classes of the data", got=found)
        own_z, own_y = cached_embed(encoder, own, runtime, cache), own.labels
    return Knowledge(z, train.labels, own_z, own_y, len(train.classes), request.ridge, runtime, train, encoder)


def _encoder(request: Request, images: Images, runtime: Runtime) -> Encoder:
    try:
        spec = EncoderSpec.model_validate(request.encoder)
    except ValidationError as error:
        raise SpecError("--encoder and its flags: an encoder", got=describe(error)) from None
    encoder = build(spec, (images.pixels.shape[2], images.pixels.shape[3]))
    return encoder.to(runtime.device)


def _class_of(text: str, classes: tuple[str, ...]) -> int:
    if text in classes and not text.isdecimal():
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    some = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    raise SpecError(f"--target-class: a number in [0, {len(classes) - 1}] or a name ({some})", got=repr(text))


def _told(ledger: Ledger, poisoning: Poisoning | None) -> list[str]:
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


def _save(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """An npz, whole or not at all."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise SpecError(f"--out {path}: a file that can be written", got=str(error), do="pass another --out") from None
