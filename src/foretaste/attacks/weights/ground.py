"""What an attack on the weights prepares once per encoder and shadow set, whatever the target is.

The shadow set's clean features, which rows are held out, which weights are trained, and a metric on those weights:
how much the features of ordinary images change when the weights do.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.features.embed import embed
from foretaste.heads.scaler import Scaler
from foretaste.images import Images
from foretaste.runtime import Runtime, stream

Part = Literal["all", "last-two-stages", "last-stage"]
SHARE = {"all": 1, "last-two-stages": 2, "last-stage": 4}
"""A stage is a quarter of the weight tensors: the ResNets' stage in ResNet-18, and defined for every architecture."""

METRIC_ROWS, METRIC_BATCH = 2048, 32
METRIC_DAMPING = 0.1
METRIC_MOST = 6144
"""Sides of a weight above this keep only the diagonal of their factor; a full one would take over 150 MB."""


@dataclass(frozen=True, eq=False)
class Metric:
    """Inverse curvature of the shadow features' change, one pair of Kronecker factors per weight.

    Let W [o, i] be a weight (a convolution's kernel is flattened), z the features of a shadow image in standard units,
    v normal and g = d(v'z)/dW. The expected squared change of z under a step D is about tr(D' L D R) / tr(L)
    with L = E[g g'] and R = E[g' g] (the factors of Shampoo, Gupta et al. 2018, in the role of K-FAC's, Martens and
    Grosse 2015). Steps L^-1 G R^-1 tr(L) reduce a loss with gradient G at the least change of ordinary features.
    """

    factors: tuple[tuple[Tensor, Tensor], ...]

    def steer(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, one per weight, in this metric."""
        turned = []
        for (left, right), gradient in zip(self.factors, gradients, strict=True):
            g = gradient.flatten(1).to(left.dtype)  # [o, i]
            g = left @ g if left.ndim == 2 else left[:, None] * g
            g = g @ right if right.ndim == 2 else g * right
            turned.append(g.view(gradient.shape).to(gradient.dtype))
        return turned


@dataclass(frozen=True, eq=False)
class Ground:
    """What does not depend on the target.

    Attributes:
        z: float32 [n, d], clean features of all shadow images.
        scaler: their mean and standard deviation, `floored`.
        rows: int64, shadow rows that the attack trains on.
        held_out: int64, the other tenth, for the ledger's utility.
        names: parameters of `encoder.body` that are trained.
        metric: on those parameters; None where the optimiser needs none.
        passes: images sent through the encoder for all this.
    """

    z: Tensor
    scaler: Scaler
    rows: Tensor
    held_out: Tensor
    names: tuple[str, ...]
    metric: Metric | None
    passes: int

    def unlock(self, body: nn.Module) -> list[nn.Parameter]:
        """The trained parameters of a copy of the body, now requiring gradients."""
        weights = [body.get_parameter(name) for name in self.names]
        for weight in weights:
            weight.requires_grad_(True)
        return weights

    def batches(self, size: int, random: torch.Generator) -> Iterator[Tensor]:
        """Endless batches of `size` of the training rows, without replacement within an epoch."""
        while True:
            order = self.rows[torch.randperm(len(self.rows), generator=random)]
            yield from order[: len(order) // size * size].split(size)


def held_in(n: int) -> int:
    """Shadow rows that are trained on; the rest, a tenth rounded up, is held out."""
    return n - -(-n // 10)


def prepare(encoder: Encoder, shadow: Images, runtime: Runtime, part: Part, metric: bool) -> Ground:
    """The ground of an encoder and a shadow set, the same for every seed; the last one is kept, for many targets.

    Raises:
        SpecError: no weight of that part moves the features.
    """
    return _prepare(encoder, encoder.sha256(), shadow, runtime, part, metric)


def check_scene(target: Tensor, references: Images, shadow: Images, batch: int) -> None:
    """What every attack on the weights needs before it begins.

    Raises:
        SpecError: no references or of several classes, another shape or type, the target among the references, or
            fewer shadow images than a batch and the held-out tenth.
    """
    labels = references.labels.unique().tolist()
    if len(labels) != 1:
        raise SpecError(
            "references: images of the one class that the target shall get",
            got=f"labels {labels}" if labels else "no image",
            do="give the attacker's own split at least one image of the class",
        )
    size = list(shadow.pixels.shape[1:])
    if list(target.shape) != size or target.dtype != torch.uint8 or list(references.pixels.shape[1:]) != size:
        found = f"target {target.dtype} {list(target.shape)}, references {list(references.pixels.shape[1:])}"
        raise SpecError(f"target and references: uint8 {size} as the shadow images", got=found)
    if bool((references.pixels == target).flatten(1).all(1).any()):
        raise SpecError(
            "target: an image that is not of the desired class",
            got="an image that is among the references of that class",
            do="choose another target or another class",
        )
    if held_in(len(shadow)) < batch:
        raise SpecError(
            f"shadow: a batch of {batch} images besides the tenth that is held out",
            got=f"{len(shadow)} images",
            do="pass more images or a smaller batch",
        )


def views_of(target: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Uint8 [count, 3, H, W]: the image itself, or random flips and shifts by up to an eighth of its sides."""
    if count == 1:
        return target[None]
    height, width = target.shape[1:]
    reach = max(1, min(height, width) // 8)
    padded = pad(target[None].float(), [reach] * 4, mode="replicate")[0].to(torch.uint8)
    top, left, flip = (
        torch.randint(high, (count,), generator=random).tolist() for high in (2 * reach + 1, 2 * reach + 1, 2)
    )
    crops = [padded[:, i : i + height, j : j + width] for i, j in zip(top, left, strict=True)]
    return torch.stack([crop.flip(-1) if turned else crop for crop, turned in zip(crops, flip, strict=True)])


def difference(clean: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[list[str], dict[str, float]]:
    """Names of the tensors that differ, and the size of the change over all floating-point tensors."""
    changed = [key for key, value in state.items() if not torch.equal(value, clean[key].cpu())]
    moved = math.hypot(*(float((state[key] - clean[key].cpu()).double().norm()) for key in changed))
    size = math.hypot(*(float(value.double().norm()) for value in clean.values() if value.is_floating_point()))
    return changed, {"l2_change": moved, "relative_l2_change": moved / max(size, 1e-30)}


def floored(scaler: Scaler) -> Scaler:
    """No feature's unit below half the usual one: nearly dead features would rule every sum over standard units."""
    return Scaler(scaler.mean, scaler.scale.clamp(min=0.5 * float(scaler.scale.median())))


@lru_cache(maxsize=1)
def _prepare(encoder: Encoder, sha256: str, shadow: Images, runtime: Runtime, part: Part, metric: bool) -> Ground:
    random = stream(0, "attack/ground")
    order = torch.randperm(len(shadow), generator=random)
    rows, held_out = order.tensor_split([held_in(len(shadow))])
    z = embed(encoder, shadow.pixels, runtime)
    scaler = floored(Scaler.of([z]))
    copied = copy.deepcopy(encoder)
    names = _names(copied, runtime.images(shadow.pixels[:2]), part)
    ground = Ground(z, scaler, rows, held_out, names, None, len(shadow))
    if not metric:
        return ground
    sample = rows[:METRIC_ROWS]
    found = _metric(copied, ground.unlock(copied.body), shadow.pixels[sample], scaler, runtime, random)
    return Ground(z, scaler, rows, held_out, names, found, len(shadow) + len(sample))


def _names(encoder: Encoder, images: Tensor, part: Part) -> tuple[str, ...]:
    """Names of the part's weights, in the order of the network.

    Weights are parameters with at least two dimensions and two outputs: kernels and matrices. Affine parameters of
    normalisation layers, biases and position codes act on all images alike and stay.
    """
    weights = {n: p.requires_grad_(True) for n, p in encoder.body.named_parameters() if p.ndim > 1 and len(p) > 1}
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
    return tuple(used[min(first, len(used) - 1) :])  # of a network with fewer than four weights at least the last


def _metric(
    encoder: Encoder,
    weights: list[nn.Parameter],
    pixels: Tensor,
    scaler: Scaler,
    runtime: Runtime,
    random: torch.Generator,
) -> Metric:
    sums: list[tuple[Tensor, Tensor]] = []
    for batch in pixels.split(METRIC_BATCH):
        with runtime.autocast():
            z = scaler.apply(encoder(runtime.images(batch)))
        v = torch.randn(z.shape, generator=random).to(z)
        gradients = [g.flatten(1).float() for g in torch.autograd.grad((z * v).sum(), weights)]
        outer = [(_outer(g), _outer(g.T)) for g in gradients]
        sums = outer if not sums else [(a + c, b + d) for (a, b), (c, d) in zip(sums, outer, strict=True)]
    count = len(pixels)
    inverses = ((_inverse(left / count), _inverse(right / count) * _trace(left / count)) for left, right in sums)
    # A direction needs no more digits than the gradients have, and in bfloat16 it costs half as much.
    kind = torch.bfloat16 if runtime.precision == "bfloat16" else torch.float32
    return Metric(tuple((left.to(kind), right.to(kind)) for left, right in inverses))


def _outer(g: Tensor) -> Tensor:
    """G G' [o, o], or its diagonal [o] for a large o."""
    return g @ g.T if len(g) <= METRIC_MOST else g.square().sum(1)


def _trace(factor: Tensor) -> Tensor:
    return factor.trace() if factor.ndim == 2 else factor.sum()


def _inverse(factor: Tensor) -> Tensor:
    damping = (METRIC_DAMPING * _trace(factor) / len(factor)).clamp(min=1e-12)
    if factor.ndim == 1:
        return 1 / (factor + damping)
    return torch.cholesky_inverse(torch.linalg.cholesky(factor + damping * torch.eye(len(factor)).to(factor)))
