"""Weight files: read without running anything, written whole.

A checkpoint is untrusted input. `.safetensors` holds no code; the other formats go through `torch.load` with
`weights_only=True`, which refuses every pickle that would call something.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from foretaste.encoders.card import Card
from foretaste.encoders.keys import some
from foretaste.errors import WeightsError
from foretaste.runtime import digest_tensors

CARD_KEY = "foretaste.card"
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar")
NESTS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "module",
    "student",
    "encoder_q",
    "base_encoder",
    "encoder",
    "backbone",
)


@dataclass(frozen=True, eq=False)
class StateFile:
    """What a weight file holds.

    Attributes:
        tensors: key -> CPU tensor, as stored; no NaN.
        card: of an encoder that Foretaste wrote, else None. The file says so itself: text to show, never to trust.
        metadata: of a safetensors file, else empty.
        unused: entries beside the state dict, e.g. `epoch`, `optimizer`, `teacher`.
    """

    tensors: dict[str, Tensor]
    card: Card | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def read_state_dict(path: Path) -> StateFile:
    """Read a checkpoint without running anything in it.

    Args:
        path: `.safetensors`, or `.pth`, `.pt`, `.ckpt`, `.bin`, `.tar` as `torch.save` writes them; the state dict may
            be nested under the usual names (`state_dict`, `model`, `student`, ...).

    Raises:
        WeightsError: no such file, another format, truncated, empty, code inside, NaN, or entries that are no tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: a weight file", got="a folder" if path.is_dir() else "no such file")
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    if path.suffix.lower() not in TORCH_SUFFIXES:
        raise WeightsError(
            f"{path}: a weight file (.safetensors, {', '.join(TORCH_SUFFIXES)})", got=f"suffix {path.suffix!r}"
        )
    tensors, unused = _unwrap(_read_torch(path))
    return StateFile(_checked(tensors, path), unused=unused)


def save_encoder(path: Path, state: Mapping[str, Tensor], card: Card, *, overwrite: bool = False) -> None:
    """Write a complete encoder: safetensors with exactly these keys and the card inside, and `PATH.card.json` beside.

    The file appears whole or not at all. Tensors that share memory are written one by one. The card's sha256 becomes
    that of `state`.

    Raises:
        WeightsError: the name does not end in .safetensors, the file exists, or the folder cannot be written.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: a name that ends in .safetensors", got=repr(path.name))
    if path.exists() and not overwrite:
        raise WeightsError(f"{path}: a new file", got="one that exists", do="choose another name, or remove it first")
    tensors = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    text = card.model_copy(update={"sha256": digest_tensors(tensors)}).model_dump_json(indent=2)
    beside = path.with_name(path.name + ".card.json")
    drafts = {target: target.with_name(f".{target.name}.{os.getpid()}.tmp") for target in (beside, path)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        drafts[beside].write_text(text + "\n", encoding="utf-8")
        drafts[path].write_bytes(save(tensors, metadata={CARD_KEY: text}))
        for target, draft in drafts.items():
            draft.replace(target)
    except (OSError, SafetensorError, KeyError) as error:  # KeyError: a dtype that the format does not know
        raise WeightsError(f"{path}: a file that can be written", got=str(error)) from error
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> StateFile:
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: a whole safetensors file", got=f"a damaged one ({error})", do="fetch it again"
        ) from error
    try:
        card = Card.model_validate_json(metadata[CARD_KEY]) if CARD_KEY in metadata else None
    except ValidationError as error:
        first = error.errors()[0]
        found = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise WeightsError(f"{path}: a card in the metadata as Foretaste writes it", got=found) from error
    return StateFile(_checked(tensors, path), card, metadata)


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols and TorchScript: the error below says it
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - the one safe use
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, UnpicklingError and more on bad bytes
        text = str(error)
        if type(error).__name__ == "UnpicklingError" or "TorchScript" in text:
            wants = re.search(r"GLOBAL ([\w.]+)", text)
            found = f"one that asks for {wants[1]}" if wants else "one with code or objects"
            raise WeightsError(
                f"{path}: a checkpoint of tensors alone",
                got=f"{found}; nothing was executed",
                do="if you trust its source, save model.state_dict() as .safetensors where it was made",
            ) from error
        raise WeightsError(
            f"{path}: a whole checkpoint as torch.save writes it",
            got=f"a damaged one ({type(error).__name__}: {text.partition('. ')[0][:200]})",
            do="fetch it again",
        ) from error


def _unwrap(content: object) -> tuple[object, tuple[str, ...]]:
    """Go down to the state dict; also the names of what lies beside it."""
    unused: list[str] = []
    path = ""
    for _ in range(len(NESTS)):  # bounded: a pickled dict may contain itself
        if not isinstance(content, Mapping):
            break
        nest = next((name for name in NESTS if isinstance(content.get(name), Mapping)), None)
        if nest is None:
            break
        unused += [f"{path}{name}" for name in content if name != nest]
        path, content = f"{path}{nest}.", content[nest]
    return content, tuple(unused)


def _checked(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict, if it is one: string keys, dense CPU tensors that hold their own data, no NaN."""
    if not isinstance(content, Mapping) or not content:
        found = "nothing" if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(f"{path}: a state dict (key -> tensor)", got=found)
    # A stored tensor larger than its data (stride 0) would cost memory that the file does not show.
    odd = [
        f"{key} ({type(value).__name__})"
        for key, value in content.items()
        if not isinstance(key, str)
        or not isinstance(value, Tensor)
        or value.layout != torch.strided
        or value.is_quantized
        or value.device.type != "cpu"
        or value.untyped_storage().nbytes() < value.numel() * value.element_size()
    ]
    if odd:
        raise WeightsError(f"{path}: a state dict of dense tensors (key -> tensor)", got=some(odd))
    tensors = {str(key): value.detach() for key, value in content.items()}
    if bad := [key for key, value in tensors.items() if value.is_floating_point() and bool(value.isnan().any())]:
        raise WeightsError(
            f"{path}: finite weights", got=f"NaN in {some(bad)}", do="its training diverged; use another"
        )
    return tensors
