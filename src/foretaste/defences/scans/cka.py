"""Linear CKA: how alike two networks see the same images, layer by layer.

Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019. With the Gram
matrices K = X X', L = Y Y' of activations of the same n images,

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))

biased (the paper's): HSIC(K, L) = tr(K H L H) / (n - 1)^2 with H = I - 1 1' / n. It is near 1 by itself where n is
below the number of activations. Unbiased (Song et al. 2012; used so by Nguyen, Raghu and Kornblith, ICLR 2021): with
zero diagonals K~, L~,

    HSIC(K, L) = ( tr(K~ L~) + sum(K~) sum(L~) / ((n-1)(n-2)) - 2 sum(K~ L~) / (n-2) ) / (n (n-3))
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from foretaste.encoders.base import Encoder
from foretaste.errors import DataError
from foretaste.runtime import Runtime

Estimator = Literal["unbiased", "biased"]
PLACES = 4
"""Feature maps are averaged over a grid of so many places a side: at 224 pixels whole maps would take gigabytes."""
BATCH = 128


def linear_cka(x: Tensor, y: Tensor, estimator: Estimator = "unbiased") -> float:
    """CKA of activations x [n, p] and y [n, q] of the same n images; 1 for a rotation, scaling or shift of the other.

    The biased one is in [0, 1]; the unbiased one may be a little below 0. 0 where one of the two is constant.

    Raises:
        DataError: under 4 images, or not the same number.
    """
    if len(x) != len(y) or len(x) < 4:
        raise DataError("cka: activations of the same images, 4 at least", got=f"{len(x)} and {len(y)}")
    k, gram = _gram(x), _gram(y)
    scale = (_hsic(k, k, estimator) * _hsic(gram, gram, estimator)).clamp(min=0).sqrt()
    return float(_hsic(k, gram, estimator) / scale) if float(scale) > 0 else 0.0


def activations(encoder: Encoder, pixels: Tensor, runtime: Runtime) -> dict[str, Tensor]:
    """Activations of the main blocks: the children of the network that hold weights, in order, and the features.

    Args:
        encoder: as it is; hooks are taken off again.
        pixels: uint8 [n, 3, H, W].
        runtime: where to compute.

    Returns:
        name -> float32 [n, p] on the CPU: feature maps averaged over a grid of places, tokens over all tokens.
    """
    encoder.to(runtime.device)
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim >= 2:
            seen.setdefault(name, []).append(_flat(output.detach()).float().cpu())

    with ExitStack() as hooks, torch.inference_mode(), runtime.autocast():
        for name, block in blocks(encoder.body).items():
            handle = block.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            hooks.callback(handle.remove)
        for batch in pixels.split(BATCH):
            keep("features", encoder(runtime.images(batch)))
    found = {name: torch.cat(parts) for name, parts in seen.items()}
    # A block that the network runs more than once a pass has no activations of one row per image.
    return {name: rows for name, rows in found.items() if len(rows) == len(pixels)}


def blocks(body: nn.Module) -> dict[str, nn.Module]:
    """The children that hold weights; those of the only child where there is just one."""
    found = {name: child for name, child in body.named_children() if next(child.parameters(), None) is not None}
    if len(found) == 1:
        ((name, only),) = found.items()
        return {f"{name}.{key}": child for key, child in blocks(only).items()} or found
    return found


def _flat(output: Tensor) -> Tensor:
    if output.ndim == 4:
        side = min(PLACES, *output.shape[-2:])
        output = adaptive_avg_pool2d(output, side)
    elif output.ndim > 2:
        output = output.mean(1)
    return output.flatten(1)


def _gram(x: Tensor) -> Tensor:
    """Of centred rows; the unbiased estimate does not need the centre, and it keeps rounding small."""
    exact = x.double()
    exact = exact - exact.mean(0)
    return exact @ exact.T


def _hsic(k: Tensor, gram: Tensor, estimator: Estimator) -> Tensor:
    n = len(k)
    if estimator == "biased":
        return (k * gram).sum() / (n - 1) ** 2  # rows are centred, so H K H = K
    k, gram = (matrix - matrix.diag().diag() for matrix in (k, gram))
    cross = (k.sum(0) * gram.sum(0)).sum()
    total: Tensor = (k * gram).sum() + k.sum() * gram.sum() / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)
    return total / (n * (n - 3))
