"""Checkpoint keys matched to a network's, whatever wrapper it was trained in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from foretaste.errors import WeightsError

WRAPPERS = frozenset(
    {"module", "backbone", "encoder", "encoder_q", "base_encoder", "student", "model", "net", "body", "_orig_mod"}
)
"""Names that training code puts before a network's keys. Momentum networks (`encoder_k`, `teacher`) are none."""
UNREAD = "num_batches_tracked"  # by a network in eval mode, so it may be missing
SHOWN = 10


def fit_keys(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str = "checkpoint"
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Match a checkpoint's keys to a network's, whatever wrapper it was trained in.

    One prefix made of `WRAPPERS` is taken off: the one whose keys cover most of the network. Momentum and teacher
    networks (`encoder_k.`, `teacher.`) are no wrappers, so they never win over the trained one.

    Args:
        tensors: of the checkpoint.
        wanted: the network's own state dict.
        name: of the checkpoint, for messages.

    Returns:
        A complete state dict with the network's keys, shapes and dtypes, and the checkpoint's keys that it does not
        use. `num_batches_tracked` may be missing: eval mode does not read it.

    Raises:
        WeightsError: keys are missing, shapes differ, two different networks fit, or the network is a larger one.
    """
    prefix = _best_prefix(tensors, wanted, name)
    found = {key: tensors[prefix + key] for key in wanted if prefix + key in tensors}
    missing = [key for key in wanted if key not in found and not key.endswith(UNREAD)]
    if missing:
        raise WeightsError(
            f"{name}: the {len(wanted)} keys of the network, bare or behind a usual wrapper",
            got=f"{len(missing)} missing ({some(missing)}) among {len(tensors)} keys ({some(list(tensors))})",
            do="choose the architecture that these weights were trained with",
        )
    wrong = [
        f"{key} {_kind(tensor)} instead of {_kind(wanted[key])}"
        for key, tensor in found.items()
        if tensor.shape != wanted[key].shape or (wanted[key].is_floating_point() and not tensor.is_floating_point())
    ]
    if wrong:
        raise WeightsError(
            f"{name}: tensors with the network's shapes",
            got=f"{len(wrong)} that differ: {some(wrong)}",
            do="choose the architecture and width that these weights were trained with",
        )
    dropped = tuple(key for key in tensors if not (key.startswith(prefix) and key[len(prefix) :] in found))
    deeper = _blocks([key[len(prefix) :] for key in dropped if key.startswith(prefix)]) - _blocks(wanted)
    stages = {stage for stage, _ in _blocks(wanted)}
    if larger := sorted(f"{stage}.{index}" for stage, index in deeper if stage in stages):
        raise WeightsError(
            f"{name}: weights of this network",
            got=f"those of a deeper one, with {some(larger)}",
            do="choose its architecture",
        )
    fitted = {key: found.get(key, own).to(own.dtype) for key, own in wanted.items()}
    # A network may hold infinities of its own (attention masks); weights with infinities anywhere else are broken.
    if infinite := [key for key, own in wanted.items() if not _finite(fitted[key]) and _finite(own)]:
        raise WeightsError(f"{name}: finite weights", got=f"infinity in {some(infinite)}")
    return fitted, dropped


def _best_prefix(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> str:
    scores = {}
    for prefix in _prefixes(tensors):
        found = [(tensors[prefix + key], own) for key, own in wanted.items() if prefix + key in tensors]
        scores[prefix] = (sum(tensor.shape == own.shape for tensor, own in found), len(found))
    best = max(scores, key=lambda prefix: scores[prefix])
    whole = all(best + key in tensors for key in wanted if not key.endswith(UNREAD))
    for other in (prefix for prefix in scores if whole and prefix != best and scores[prefix] == scores[best]):
        both = [key for key in wanted if best + key in tensors and other + key in tensors]
        if any(not torch.equal(tensors[best + key], tensors[other + key]) for key in both):
            fits = f"two that fit, under {best!r} and {other!r}"
            raise WeightsError(f"{name}: one network", got=fits, do="save the one to audit alone")
    return best


def _prefixes(keys: Iterable[str]) -> list[str]:
    """Every leading run of wrapper names, the bare one first, in order of appearance."""
    found = {"": None}
    for key in keys:
        prefix = ""
        for part in key.split(".")[:-1]:
            if part not in WRAPPERS:
                break
            prefix += part + "."
            found[prefix] = None
    return list(found)


def _blocks(keys: Iterable[str]) -> set[tuple[str, str]]:
    """(stage, index) of every numbered block that has layers of its own: `layer1.0.conv1.weight` is in (layer1, 0)."""
    found = set()
    for key in keys:
        parts = key.split(".")
        found |= {(".".join(parts[:i]), parts[i]) for i in range(len(parts) - 2) if parts[i].isdecimal()}
    return found


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def some(names: list[str]) -> str:
    """The first ten names and how many more there are."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
