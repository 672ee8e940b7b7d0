"""What a labelled-data attack moves: features themselves, or the pixels of images through the encoder."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from foretaste.attacks.optimise.constraints import Constraint
from foretaste.encoders.base import Encoder
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime

CarrierName = Literal["features", "pixels"]
GRAPH_BYTES = 2 * 2**30
"""Activations held between forward and backward; those of images beyond are computed again."""
BLOCK_PIXELS = 2**17
"""Pixels that go through the encoder at once: 128 images of 32 x 32 (0.2 GiB held by a ResNet-18 of width 16)."""


class Carrier(Protocol):
    """A leaf tensor that an optimiser moves, and the features that come of it."""

    leaf: Tensor

    @property
    def passes(self) -> int:
        """Images sent through the encoder so far."""
        ...

    def features(self) -> Tensor:
        """Features of the m poisons in standard units, float32 [m, d]."""
        ...

    def pull(self, gradient: Tensor) -> None:
        """Write d(objective)/d(leaf) into `leaf.grad`, given d(objective)/d(features) [m, d]."""
        ...

    def project(self, y: Tensor) -> None:
        """Bring the leaf back into its constraint set."""
        ...

    def deliver(self, y: Tensor) -> Tensor:
        """The poison as the attacker hands it over: features float32 [m, d] or images uint8 [m, 3, H, W]."""
        ...


class FeatureCarrier:
    """The attacker writes features: the leaf is z in standard units."""

    passes = 0

    def __init__(self, z: Tensor, scaler: Scaler, constraint: Constraint) -> None:
        self.scaler, self.constraint = scaler, constraint
        self.leaf = scaler.apply(z)

    def features(self) -> Tensor:
        """The leaf."""
        return self.leaf

    def pull(self, gradient: Tensor) -> None:
        """Nothing lies between the features and the leaf."""
        self.leaf.grad = gradient

    def project(self, y: Tensor) -> None:
        """Project in the encoder's own units, in which the constraint is defined."""
        self.leaf.copy_(self.scaler.apply(self.constraint.project(self.scaler.undo(self.leaf), y)))

    def deliver(self, y: Tensor) -> Tensor:
        """The poison in the encoder's own units, float32 [m, d], inside the constraint to the last bit."""
        return self.constraint.project(self.scaler.undo(self.leaf), y)


def ball(base: Tensor, epsilon: float | None) -> tuple[Tensor, Tensor]:
    """Lowest and highest pixels within epsilon (L-inf, in 1/255; None: anywhere) of uint8 images; int16, same shape.

    Bounds are whole grey levels: what is delivered is uint8, and rounding must not leave the ball.
    """
    reach, levels = 255 if epsilon is None else int(epsilon), base.to(torch.int16)
    return (levels - reach).clamp(min=0), (levels + reach).clamp(max=255)


def block_of(encoder: Encoder, pixels: Tensor) -> int:
    """How many of the images [n, 3, H, W] go through the encoder at once."""
    side = encoder.card.input_size or pixels.shape[-1]
    return min(max(BLOCK_PIXELS // side**2, 8), 128)


class PixelCarrier:
    """The attacker writes images: the leaf is pixels in [0, 1], optionally within epsilon of the base image (L-inf).

    Args:
        base: uint8 [m, 3, H, W].
        encoder: frozen, in eval mode; gradients flow through it. It moves to the runtime's device.
        scaler: of the clean features.
        epsilon: in 1/255; None: anywhere in [0, 1].
        runtime: device and precision of the encoder's passes.
    """

    def __init__(self, base: Tensor, encoder: Encoder, scaler: Scaler, epsilon: float | None, runtime: Runtime) -> None:
        self.encoder, self.scaler, self.runtime = encoder.to(runtime.device), scaler, runtime
        self.low, self.high = (levels / 255 for levels in ball(base, epsilon))
        self.leaf = base.float() / 255
        self.passes = 0
        self._batch = block_of(encoder, base)
        self._graphs: list[tuple[Tensor, Tensor] | None] = []
        self._held = _Held()

    def features(self) -> Tensor:
        """One forward pass; its graph is kept for `pull` as far as memory allows."""
        self.passes += len(self.leaf)
        self._graphs, self._held = [], _Held()
        outputs = []
        for block in self.leaf.split(self._batch):
            keep = self._held.bytes < GRAPH_BYTES
            images, z = self._forward(block, graph=keep)
            self._graphs.append((images, z) if keep else None)
            outputs.append(z.detach().cpu())
        return self.scaler.apply(torch.cat(outputs))

    def pull(self, gradient: Tensor) -> None:
        """One backward pass over the poison images."""
        gradient = gradient / self.scaler.scale.to(gradient)  # through the standardisation
        pieces = []
        blocks = zip(gradient.split(self._batch), self.leaf.split(self._batch), self._graphs, strict=True)
        for part, block, kept in blocks:
            if kept is None:
                self.passes += len(block)
            images, z = kept or self._forward(block, graph=True)
            z.backward(part.to(z.device))
            assert images.grad is not None
            pieces.append(images.grad.cpu())
        self._graphs = []
        self.leaf.grad = torch.cat(pieces)

    def project(self, y: Tensor | None = None) -> None:
        """Clip to [0, 1] and to the ball round the base image, whatever the label."""
        self.leaf.copy_(torch.minimum(torch.maximum(self.leaf, self.low), self.high))

    def deliver(self, y: Tensor | None = None) -> Tensor:
        """The poison images, uint8 [m, 3, H, W]."""
        return (self.leaf * 255).round().to(torch.uint8)

    def _forward(self, block: Tensor, *, graph: bool) -> tuple[Tensor, Tensor]:
        """Images on the device and their features; with a graph between them if asked."""
        block = block.detach().to(self.runtime.device)
        if self.runtime.channels_last:
            block = block.contiguous(memory_format=torch.channels_last)
        block.requires_grad_(graph)
        count = torch.autograd.graph.saved_tensors_hooks(self._held, lambda tensor: tensor)
        with torch.set_grad_enabled(graph), self.runtime.autocast(), count:
            return block, self.encoder(block)


class _Held:
    """Counts the bytes of what a graph keeps. No method of the carrier: that would tie carrier and graph for good."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        self.bytes += tensor.nbytes
        return tensor.detach()
