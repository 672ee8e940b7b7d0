"""`Encoder`: images in [0, 1] to features, with its own resizing and normalisation, always in eval mode."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from foretaste.encoders.card import Card
from foretaste.runtime import digest_tensors


class Encoder(nn.Module):
    """Float [N, 3, H, W] in [0, 1] -> float32 [N, d].

    `body` is the network whose state-dict keys the weight files use. The encoder stays in eval mode whatever is
    asked: poison must never move BatchNorm statistics. Code that trains a network trains `body` on its own.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, body: nn.Module, card: Card) -> None:
        super().__init__()
        self.body = body
        for name in ("mean", "std"):
            values = getattr(card, name)
            tensor = None if values is None else torch.tensor(values).view(1, 3, 1, 1)
            self.register_buffer(name, tensor, persistent=False)
        self.card = card.model_copy(update={"sha256": digest_tensors(body.state_dict())})
        self.requires_grad_(False)
        self.train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch; gradients flow to the images, and to weights that were asked to require them.

        Args:
            images: float [N, 3, H, W] in [0, 1], on the encoder's device.

        Returns:
            float32 [N, d].
        """
        features: Tensor = self.body(self.prepared(images))
        return features.float()

    def prepared(self, images: Tensor) -> Tensor:
        """What the body is given for a batch in [0, 1]: images of its size, normalised."""
        size = self.card.input_size
        if size is not None and images.shape[-2:] != (size, size):
            images = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        if self.mean is not None and self.std is not None:
            images = (images - self.mean) / self.std
        return images

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    def sha256(self) -> str:
        """Digest of the weights as they are now; `card.sha256` is what they were when the encoder was built."""
        return digest_tensors(self.body.state_dict())
