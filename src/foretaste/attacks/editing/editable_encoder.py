"""A copy of an encoder that is being edited, and how far it has come from the clean one."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from foretaste.attacks.editing.frozen_prefix import Activations, Split
from foretaste.encoders.base import Encoder
from foretaste.runtime import Runtime


class EditableEncoder:
    """A copy of an encoder whose trained weights require gradients; it runs from activations where there is a split.

    Args:
        encoder: clean; copied.
        names: parameters of its body that are trained.
        split: before the first of them, or None to run the whole network on images at each step.
        runtime: where to compute.
    """

    def __init__(self, encoder: Encoder, names: Sequence[str], split: Split | None, runtime: Runtime) -> None:
        self.encoder = copy.deepcopy(encoder)
        self.runtime = runtime
        self.weights: list[nn.Parameter] = [self.encoder.body.get_parameter(name) for name in names]
        for weight in self.weights:
            weight.requires_grad_(True)
        self._split = split
        self._suffix = None if split is None else fx.GraphModule(self.encoder.body, split.suffix)

    def enter(self, pixels: Tensor) -> Activations:
        """What `features` takes of uint8 images [B, 3, H, W]; no trained weight changes it."""
        return (pixels,) if self._split is None else self._split.enter(self.encoder, pixels, self.runtime)

    def features(self, *parts: Activations) -> Tensor:
        """Float32 [B, d] of the images of all parts in one batch, with a graph to the trained weights."""
        together = [torch.cat(part) for part in zip(*parts, strict=True)]
        with self.runtime.autocast():
            if self._suffix is None:
                whole: Tensor = self.encoder(self.runtime.images(together[0]))
                return whole
            z: Tensor = self._suffix(*map(self.runtime.layout, together))
        return z.float()

    def norms(self) -> list[_BatchNorm]:
        """The copy's BatchNorm layers that keep statistics."""
        return norms_of(self.encoder)

    def state(self) -> dict[str, Tensor]:
        """The state dict on the CPU, in tensors of its own."""
        body = self.encoder.body.state_dict()
        return {key: value.detach().cpu().contiguous().clone() for key, value in body.items()}


def norms_of(encoder: Encoder) -> list[_BatchNorm]:
    """The BatchNorm layers of an encoder that keep statistics."""
    return [m for m in encoder.body.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def difference(clean: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[list[str], dict[str, float]]:
    """Names of the tensors that differ, and the size of the change over all floating-point tensors."""
    changed = [key for key, value in state.items() if not torch.equal(value, clean[key].cpu())]
    moved = math.hypot(*(float((state[key] - clean[key].cpu()).double().norm()) for key in changed))
    size = math.hypot(*(float(value.double().norm()) for value in clean.values() if value.is_floating_point()))
    return changed, {"l2_change": moved, "relative_l2_change": moved / max(size, 1e-30)}
