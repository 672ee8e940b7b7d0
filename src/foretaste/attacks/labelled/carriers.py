"""What a labelled-data attack moves: features themselves, or the pixels of images through the encoder."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from foretaste.attacks.labelled.constraints import Constraint
from foretaste.encoders.base import Encoder
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime

CarrierName = Literal["features", "pixels"]
BATCH = 256
KEPT_GRAPHS = 1024  # images whose activations are held between forward and backward; beyond, they are recomputed


class Carrier(Protocol):
    """A leaf tensor that an optimiser moves, and the features that come of it."""

    leaf: Tensor
    passes: int

    def features(self) -> Tensor:
        """Features of the m poisons in standard units, float32 [m, d]."""
        ...

    def pull(self, gradient: Tensor) -> None:
        """Write d(objective)/d(leaf) into `leaf.grad`, given d(objective)/d(features) [m, d]."""
        ...

    def project(self, y: Tensor) -> None:
        """Bring the leaf back into its constraint set."""
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


class PixelCarrier:
    """The attacker writes images: the leaf is pixels in [0, 1], optionally within epsilon of the base image (L-inf).

    Args:
        base: uint8 [m, 3, H, W].
        encoder: frozen, in eval mode; gradients flow through it.
        scaler: of the clean features.
        epsilon: in 1/255; None: anywhere in [0, 1].
        runtime: device and precision of the encoder's passes.
    """

    def __init__(self, base: Tensor, encoder: Encoder, scaler: Scaler, epsilon: float | None, runtime: Runtime) -> None:
        self.encoder, self.scaler, self.runtime = encoder, scaler, runtime
        # Bounds are whole grey levels: what is delivered is uint8, and rounding must not leave the ball.
        reach = 255 if epsilon is None else int(epsilon)
        levels = base.to(torch.int16)
        self.low, self.high = (levels - reach).clamp(min=0) / 255, (levels + reach).clamp(max=255) / 255
        self.leaf = base.float() / 255
        self.passes = 0
        self._graphs: list[tuple[Tensor, Tensor]] = []

    def features(self) -> Tensor:
        """One forward pass; its graph is kept for `pull` where memory allows."""
        self.passes += len(self.leaf)
        self._graphs = [self._forward(block) for block in self.leaf.split(BATCH)] if self._fits() else []
        outputs = [z for _, z in self._graphs] or [self._forward(block, False)[1] for block in self.leaf.split(BATCH)]
        return self.scaler.apply(torch.cat([z.detach().cpu() for z in outputs]))

    def pull(self, gradient: Tensor) -> None:
        """One backward pass over the poison images."""
        gradient = gradient / self.scaler.scale.to(gradient)  # through the standardisation
        pieces = []
        for index, part in enumerate(gradient.split(BATCH)):
            if self._graphs:
                block, z = self._graphs[index]
            else:
                block, z = self._forward(self.leaf[index * BATCH : (index + 1) * BATCH])
                self.passes += len(block)
            z.backward(part.to(z.device))
            assert block.grad is not None
            pieces.append(block.grad.cpu())
        self._graphs = []
        self.leaf.grad = torch.cat(pieces)

    def project(self, y: Tensor) -> None:
        """Clip to [0, 1] and to the ball round the base image."""
        self.leaf.copy_(torch.minimum(torch.maximum(self.leaf, self.low), self.high))

    def deliver(self, y: Tensor) -> Tensor:
        """The poison images, uint8 [m, 3, H, W]."""
        return (self.leaf * 255).round().to(torch.uint8)

    def _fits(self) -> bool:
        return len(self.leaf) <= KEPT_GRAPHS

    def _forward(self, block: Tensor, graph: bool = True) -> tuple[Tensor, Tensor]:
        block = block.detach().to(self.runtime.device)
        if self.runtime.channels_last:
            block = block.contiguous(memory_format=torch.channels_last)
        block.requires_grad_(graph)
        with torch.set_grad_enabled(graph), self.runtime.autocast():
            return block, self.encoder(block)
