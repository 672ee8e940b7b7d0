"""What the repairs that train share: their fields, and gradient descent on random views of the clean images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from foretaste.defences.repairs.base import Repair
from foretaste.encoders.build import repeatable_initialisation
from foretaste.errors import EncoderError
from foretaste.images import Images
from foretaste.pretrain.simclr import Progress, recipe
from foretaste.pretrain.views import RECIPES, Views, make_views
from foretaste.runtime import Runtime, stream, stream_seed


class Training(Repair):
    """A repair that trains on clean images, at least a batch of them."""

    epochs: int = Field(default=100, ge=1, description="passes over the clean images")
    batch: int = Field(default=256, ge=2, description="images per step; there must be as many clean ones")
    views: Annotated[Views, BeforeValidator(recipe)] = Field(
        default=RECIPES["photos"], description=f"random views: a name ({', '.join(RECIPES)}) or the fields of `Views`"
    )

    @property
    def least(self) -> int:
        """A batch."""
        return self.batch

    def planned(self, clean: int) -> int:
        """Two passes forward (two views, or student and teacher) and one backward per epoch, see `Repair.planned`."""
        return 4 * self.epochs * clean

    def descend(
        self,
        optimiser: torch.optim.Optimizer,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        clean: Images,
        size: int | None,
        seed: int,
        runtime: Runtime,
        progress: Progress,
    ) -> float:
        """Train in place: every epoch has a random order and new views, the rate falls to 0 along half a cosine.

        Rows left over after the last full batch of an epoch come in another epoch.

        Args:
            optimiser: of the weights that are trained, with the first learning rate.
            loss_of: from views float [b, 3, size, size] in [0, 1] and their rows int64 [b] to a scalar; runs in the
                runtime's precision.
            clean: at least a batch.
            size: side of the views in pixels; None: as the images are.
            seed: of order and views.
            runtime: where to compute.
            progress: called after each step.

        Returns:
            The mean loss of the last epoch.

        Raises:
            EncoderError: the loss is not finite.
        """
        rates = [group["lr"] for group in optimiser.param_groups]
        steps = len(clean) // self.batch
        pixels, total = clean.pixels.to(runtime.device), math.nan
        for epoch in range(self.epochs):
            rng = stream(seed, f"defence/epoch/{epoch}")
            order, total = torch.randperm(len(clean), generator=rng), 0.0
            for step, rows in enumerate(order[: steps * self.batch].split(self.batch)):
                done = epoch * steps + step
                images = make_views(pixels[rows.to(runtime.device)], self.views, rng, size)
                if runtime.channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                # Layers that drop units draw from the global stream.
                with runtime.autocast(), repeatable_initialisation(stream_seed(seed, f"defence/step/{done}")):
                    loss = loss_of(images, rows)
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate / 2 * (1 + math.cos(math.pi * done / (self.epochs * steps)))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += (value := loss.item())
                progress(done + 1, self.epochs * steps, value)
            if not math.isfinite(total):
                raise EncoderError(f"{self.name}: a finite loss in epoch {epoch + 1}", got=str(total), do="lower lr")
        return total / steps
