"""Reconstruction of the input from its feature: a feature that does not tell what the input looks like is suspicious.

After DeDe (CVPR 2025): a decoder learns to turn an encoder's features back into clean images; the feature of a poisoned
input decodes to something else than the input. DeDe's decoder is a masked transformer that also sees a few patches of
the input; here it is a small convolutional network that sees the feature alone. With g the decoder, f the encoder and
m the mean clean image:

    score = log( mean (g(f(x)) - x)^2 )  -  log( mean (m - x)^2 )       (relative: how little the feature explains)
    score = mean (g(f(x)) - x)^2                                        (relative=false, DeDe's)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from foretaste.defences.guards.base import FittedGuard, Guard, GuardRows, check_inputs
from foretaste.encoders.build import repeatable_initialisation
from foretaste.errors import EncoderError
from foretaste.features.decoder import Architecture, Network
from foretaste.heads.scaler import Scaler
from foretaste.runtime import stream, stream_seed

FLOOR = (0.5 / 255) ** 2
"""Half a grey level, squared: below it images are equal."""


class Reconstruction(Guard):
    """How badly a decoder, trained on clean images, draws the input from its feature."""

    name: ClassVar[str] = "reconstruction"
    architecture: Architecture = Field(default="convolutional", description="of the decoder")
    steps: int = Field(default=1000, ge=1, description="of Adam")
    batch: int = Field(default=64, ge=1, description="clean images per step; there must be as many")
    lr: float = Field(default=2e-3, gt=0, description="first learning rate; falls to 0 along half a cosine")
    relative: bool = Field(
        default=True, description="relative to the error of the mean image: images full of detail are no suspects"
    )

    def fit(self, context: GuardRows) -> FittedGuard:
        """Train the decoder, see `Guard.fit`.

        Raises:
            DataError: fewer clean images than a batch.
            EncoderError: the training diverged.
        """
        context.enough(self.name, self.batch)
        clean, runtime = context.clean, context.runtime
        scaler = Scaler.of([context.z])
        x = scaler.apply(context.z)
        with repeatable_initialisation(stream_seed(context.seed, "defence/decoder")):
            network = Network(self.architecture, x.shape[1], tuple(clean.pixels.shape[1:]))
        network.mean.copy_(clean.pixels.float().mean(0) / 255)
        network.to(runtime.device)
        optimiser = torch.optim.Adam(network.parameters(), lr=self.lr)
        draws = stream(context.seed, "defence/batches")
        last = math.inf
        for step in range(self.steps):
            rows = torch.randint(len(clean), (self.batch,), generator=draws)
            loss = mse_loss(network(x[rows].to(runtime.device)), runtime.images(clean.pixels[rows]))
            for group in optimiser.param_groups:
                group["lr"] = self.lr / 2 * (1 + math.cos(math.pi * step / self.steps))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            last = float(loss.detach())
        if not math.isfinite(last):
            raise EncoderError(f"{self.name}: a finite loss", got=str(last), do="lower lr")
        return _Fitted(self, context, scaler, network.eval().requires_grad_(False))


@dataclass(frozen=True, eq=False)
class _Fitted(FittedGuard):
    guard: Reconstruction
    context: GuardRows
    scaler: Scaler
    network: Network

    @torch.inference_mode()
    def score(self, inputs: Tensor) -> Tensor:
        """See `FittedGuard.score`; relative: below 0 where the decoder beats the mean image, else in [0, 1]."""
        check_inputs(inputs, self.context.clean)
        runtime = self.context.runtime
        goal = self.scaler.apply(self.context.features(inputs))
        parts = [torch.zeros(0, dtype=torch.float64)]
        for z, block in zip(goal.split(256), inputs.split(256), strict=True):
            if len(block):
                parts.append(self._scored(self.network(z.to(runtime.device)).clamp(0, 1), runtime.images(block)))
        return torch.cat(parts)

    def _scored(self, drawn: Tensor, real: Tensor) -> Tensor:
        """Scores float64 [b] of drawn and real images float [b, 3, H, W]."""
        error = (drawn - real).double().square().mean((1, 2, 3)).cpu()
        if not self.guard.relative:
            return error
        plain = (self.network.mean - real).double().square().mean((1, 2, 3)).cpu()
        return error.clamp(min=FLOOR).log() - plain.clamp(min=FLOOR).log()
