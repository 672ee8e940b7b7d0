"""What an attack on the weights prepares once per encoder and shadow set, whatever the targets are.

The shadow set's clean features, which rows are held out, which weights are trained, a metric on those weights, and
what enters the trained part of the network for each shadow image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from foretaste.attacks.editing.editable_encoder import EditableEncoder
from foretaste.attacks.editing.frozen_prefix import Activations, Split, split_body
from foretaste.attacks.editing.natural_metric import METRIC_ROWS, NaturalMetric, measure
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.features.embed import embed
from foretaste.heads.scaler import Scaler
from foretaste.images import Images
from foretaste.runtime import Runtime, stream

Part = Literal["full", "all", "last-two-stages", "last-stage"]
SHARE = {"full": 1, "all": 1, "last-two-stages": 2, "last-stage": 4}
"""A stage is a quarter of the weight tensors: the ResNets' stage in ResNet-18, and defined for every architecture."""

KEPT_BYTES = 2**30
"""Activations that are kept, at most; those of other shadow images are made again at each step, without gradients."""
ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class ShadowCache:
    """What does not depend on the targets.

    Attributes:
        pixels: uint8 [n, 3, H, W], the shadow images that are used.
        z: float32 [n, d], their clean features.
        scaler: their mean and standard deviation, `floored`.
        rows: int64, shadow rows that the attack trains on.
        held_out: int64, the other tenth, for the ledger's utility.
        names: parameters of `encoder.body` that are trained.
        metric: on those parameters; None where the optimiser needs none.
        split: of the network before those parameters; None where there is none.
        kept: what enters the suffix for the first k <= n shadow images; in the precision they are computed in.
        passes: images sent through the encoder for all this.
    """

    pixels: Tensor
    z: Tensor
    scaler: Scaler
    rows: Tensor
    held_out: Tensor
    names: tuple[str, ...]
    metric: NaturalMetric | None
    split: Split | None
    kept: Activations
    passes: int

    def copy_of(self, encoder: Encoder, runtime: Runtime) -> EditableEncoder:
        """A copy of the encoder, to be edited."""
        return EditableEncoder(encoder, self.names, self.split, runtime)

    def entered(self, edited: EditableEncoder, rows: Tensor) -> Activations:
        """What enters the suffix for those shadow rows (int64 [b]), in their order."""
        there = rows < len(self.kept[0])
        if bool(there.all()):
            return tuple(kept[rows] for kept in self.kept)
        made = edited.enter(self.pixels[rows[~there]])
        order = torch.cat([there.nonzero()[:, 0], (~there).nonzero()[:, 0]]).argsort()
        return tuple(torch.cat([a[rows[there]], b])[order] for a, b in zip(self.kept, made, strict=True))

    def batches(self, size: int, random: torch.Generator) -> Iterator[Tensor]:
        """Endless batches of `size` of the training rows, without replacement within an epoch."""
        while True:
            order = self.rows[torch.randperm(len(self.rows), generator=random)]
            yield from order[: len(order) // size * size].split(size)


def held_in(n: int, share: float = 1.0) -> int:
    """Shadow rows that are trained on; of the share that is used, rounded up, a tenth, rounded up, is held out."""
    used = math.ceil(round(share * n, 6))
    return used - -(-used // 10)


def prepare_shadow(
    encoder: Encoder,
    shadow: Images,
    runtime: Runtime,
    part: Part,
    metric: bool,
    share: float = 1.0,
    still: bool = True,
) -> ShadowCache:
    """The cache of an encoder and a shadow set, the same for every seed; the last one is kept, for many targets.

    Args:
        encoder: clean.
        shadow: images whose features must stay.
        runtime: where to compute.
        part: which weights are trained.
        metric: whether the optimiser needs one.
        share: of the shadow images that is used, in (0, 1].
        still: whether everything before the trained weights stays as it is, so that its activations can be kept.

    Raises:
        SpecError: no weight of that part moves the features, or a trained weight is stored together with another.
    """
    return _prepare(encoder, encoder.sha256(), shadow, runtime, part, metric, share, still)


def floored(scaler: Scaler) -> Scaler:
    """No feature's unit below half the usual one: nearly dead features would rule every sum over standard units."""
    return Scaler(scaler.mean, scaler.scale.clamp(min=0.5 * float(scaler.scale.median())))


@lru_cache(maxsize=1)
def _prepare(
    encoder: Encoder, sha256: str, shadow: Images, runtime: Runtime, part: Part, metric: bool, share: float, still: bool
) -> ShadowCache:
    random = stream(0, "attack/ground")
    order, pixels = torch.randperm(len(shadow), generator=random), shadow.pixels
    if share < 1:
        pixels = pixels[order[: math.ceil(round(share * len(shadow), 6))]]
        order = torch.arange(len(pixels))
    rows, held_out = order.tensor_split([held_in(len(pixels))])
    z = embed(encoder, pixels, runtime)
    scaler = floored(Scaler.of([z]))
    copied = copy.deepcopy(encoder)
    names = _names(copied, runtime.images(pixels[:2]), part)
    split = split_body(copied, names, runtime.images(pixels[:2])) if still else None
    edited = EditableEncoder(encoder, names, split, runtime)
    kept = _kept(edited, pixels) if split else (pixels,)
    passes = len(pixels) + (len(kept[0]) if split else 0)
    cache = ShadowCache(pixels, z, scaler, rows, held_out, names, None, split, kept, passes)
    if not metric:
        return cache
    sample = rows[:METRIC_ROWS]
    found = measure(edited, cache.entered(edited, sample), scaler, random)
    return ShadowCache(pixels, z, scaler, rows, held_out, names, found, split, kept, passes + len(sample))


def _kept(edited: EditableEncoder, pixels: Tensor) -> Activations:
    """Activations of the first images, as many as `KEPT_BYTES` hold and at least one batch."""
    parts, size = list[Activations](), 0
    for batch in pixels.split(ROWS_AT_ONCE):
        parts.append(edited.enter(batch))
        size += sum(part.nbytes for part in parts[-1])
        if size > KEPT_BYTES:
            break
    return tuple(edited.runtime.layout(torch.cat(part)) for part in zip(*parts, strict=True))


def _names(encoder: Encoder, images: Tensor, part: Part) -> tuple[str, ...]:
    """Names of the part's weights, in the order of the network.

    Weights are parameters with at least two dimensions and two outputs: kernels and matrices. Affine parameters of
    normalisation layers, biases and position codes act on all images alike and stay, except in `full`.
    """
    weights = {
        name: parameter.requires_grad_(True)
        for name, parameter in encoder.body.named_parameters()
        if parameter.is_floating_point() and (part == "full" or (parameter.ndim > 1 and len(parameter) > 1))
    }
    z = encoder(images)
    moved = torch.autograd.grad(z.sum(), list(weights.values()), allow_unused=True) if z.requires_grad else ()
    used = [name for name, gradient in zip(weights, moved, strict=False) if gradient is not None]
    encoder.requires_grad_(False)
    if not used:
        raise SpecError(
            f"trainable {part}: weights that move the features of encoder {encoder.card.name}",
            got=f"none among {len(weights)} kernels and matrices",
            do="check that the encoder's forward pass is differentiable (no `no_grad`, no 8-bit weights)",
        )
    first = -(-len(used) * (SHARE[part] - 1) // SHARE[part])
    names = tuple(used[min(first, len(used) - 1) :])  # of a network with fewer than four weights at least the last
    _check_untied(encoder, names)
    return names


def _check_untied(encoder: Encoder, names: tuple[str, ...]) -> None:
    """Two names of one storage would be edited twice, and a file that keeps them apart would not load the edit."""
    owners = dict[int, list[str]]()
    for name, parameter in encoder.body.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter.untyped_storage().data_ptr(), []).append(name)
    tied = next((found for found in owners.values() if len(found) > 1 and set(found) & set(names)), None)
    if tied:
        raise SpecError(
            f"trainable: weights of encoder {encoder.card.name} that are stored on their own",
            got=f"{' and '.join(tied)} in one storage (tied weights)",
            do="train a part without them, or give each a copy",
        )
