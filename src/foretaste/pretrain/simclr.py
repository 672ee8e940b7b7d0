"""SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709): an encoder learned from images without labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from foretaste.encoders.build import repeatable_initialisation
from foretaste.errors import DataError, EncoderError, WeightsError
from foretaste.images import Images
from foretaste.method import Method
from foretaste.pretrain import checkpoint as checkpoints
from foretaste.pretrain.views import RECIPES, Views, channel_statistics, make_views
from foretaste.runtime import Runtime, digest_tensors, stream, stream_seed

Channels = tuple[float, float, float]
Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss of the step); does nothing to the result."""


def quiet(done: int, total: int, loss: float) -> None:
    """The default progress: say nothing."""


def recipe(value: Any) -> Any:
    """A name of `RECIPES` stands for its views."""
    if not isinstance(value, str):
        return value
    if value not in RECIPES:
        raise ValueError(f"views are one of {', '.join(RECIPES)}, or a mapping of fields")
    return RECIPES[value]


@dataclass(frozen=True, eq=False)
class TrainedResult:
    """A trained network.

    Attributes:
        state: state dict of the body, on the CPU.
        losses: mean loss of each epoch.
        mean, std: per channel, of pixels in [0, 1]: what the body's input was normalised with.
        size: side in pixels that the images had in training.
    """

    state: dict[str, Tensor]
    losses: list[float]
    mean: Channels
    std: Channels
    size: int


class SimCLR(Method):
    """SimCLR with SGD and a cosine schedule.

    The defaults are those of the small encoders of this project; the paper trains CIFAR-10 with LARS, temperature 0.5
    and 1,000 epochs (appendix B.9).
    """

    name: ClassVar[str] = "simclr"
    epochs: int = Field(default=100, ge=1, description="passes over the images")
    batch: int = Field(default=512, ge=2, description="images per step, two views of each; at most all of them")
    lr: float = Field(default=0.3, gt=0, description="highest learning rate")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the steps in which the rate rises")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(default=1e-4, ge=0, description="of the matrices; biases and BatchNorm have none")
    temperature: float = Field(default=0.2, gt=0, description="of NT-Xent")
    hidden: int = Field(default=512, ge=1, description="hidden units of the projection, which is thrown away")
    projection: int = Field(default=128, ge=2, description="outputs of the projection")
    size: int | None = Field(default=None, ge=8, description="side that images are resized to; default: their height")
    views: Annotated[Views, BeforeValidator(recipe)] = Field(
        default=RECIPES["photos"], description=f"a name ({', '.join(RECIPES)}) or the fields of `Views`"
    )

    def train(
        self,
        images: Images,
        body: nn.Module,
        seed: int,
        runtime: Runtime,
        *,
        normalisation: tuple[Channels, Channels] | None = None,
        checkpoint: Path | None = None,
        progress: Progress = quiet,
    ) -> TrainedResult:
        """Train a copy of `body`, float [N, 3, H, W] -> [N, d]. Labels are not used.

        Every epoch has its own stream, so on one kind of CPU the same arguments give the same bytes, also when the
        run was killed and continued.

        Args:
            images: what to learn from.
            body: the network with its first weights; stays as it is.
            seed: of the projection's first weights, the order and the views.
            runtime: where to compute.
            normalisation: mean and standard deviation per channel, of pixels in [0, 1]; default: the images' own.
            checkpoint: written after each epoch; a run that finds it there continues it.
            progress: called after each step.

        Raises:
            DataError: fewer than two images.
            EncoderError: the loss is not a number any more, or the body gives no features [N, d].
            SpecError: the checkpoint is of other settings.
            WeightsError: the checkpoint is damaged or cannot be written.
        """
        from lightly.loss.ntx_ent_loss import NTXentLoss  # imports for seconds: only who trains waits

        if len(images) < 2:
            raise DataError(f"{images.name}: at least two images to compare", got=str(len(images)))
        size = self.size or images.pixels.shape[2]
        mean, std = normalisation or channel_statistics(images.pixels)
        settings = {
            **self.entry(),
            "seed": seed,
            "images": images.digest,
            "normalisation": normalisation,
            "first weights": digest_tensors(body.state_dict()),
            "runtime": [runtime.device, runtime.precision, runtime.channels_last],
        }
        network = self._network(body, size, seed).to(runtime.device)
        network.to(memory_format=torch.channels_last if runtime.channels_last else torch.preserve_format)
        matrices = [weight for weight in network.parameters() if weight.ndim > 1]
        others = [weight for weight in network.parameters() if weight.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimiser = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)
        losses = _resume(checkpoint, settings, network, optimiser) if checkpoint and checkpoint.exists() else []

        nt_xent = NTXentLoss(temperature=self.temperature)
        pixels = images.pixels.to(runtime.device)
        shift, scale = (torch.tensor(values, device=runtime.device).view(1, 3, 1, 1) for values in (mean, std))
        batch = min(self.batch, len(images))
        steps = len(images) // batch  # per epoch; the rows left over come in another epoch
        for epoch in range(len(losses), self.epochs):
            rng = stream(seed, f"pretrain/epoch/{epoch}")
            order = torch.randperm(len(images), generator=rng).to(runtime.device)
            total = 0.0
            for step in range(steps):
                rows = order[step * batch : (step + 1) * batch].repeat(2)
                inputs = (make_views(pixels[rows], self.views, rng, size) - shift) / scale
                if runtime.channels_last:
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                done = epoch * steps + step
                # Layers that drop units draw from the global stream.
                with runtime.autocast(), repeatable_initialisation(stream_seed(seed, f"pretrain/step/{done}")):
                    z = network(inputs)
                loss = nt_xent(*z.float().chunk(2))
                for group in optimiser.param_groups:
                    group["lr"] = self.rate(done, self.epochs * steps)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += (value := loss.item())
                progress(done + 1, self.epochs * steps, value)
            if not math.isfinite(total):
                raise EncoderError(f"simclr: a finite loss in epoch {epoch + 1}", got=str(total), do="lower lr")
            losses.append(total / steps)
            if checkpoint:
                checkpoints.save(checkpoint, settings, losses, _tensors(network, optimiser))
        state = {name: value.detach().cpu().contiguous() for name, value in network[0].state_dict().items()}
        return TrainedResult(state, losses, mean, std, size)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0: up to `lr` on a line, then down on half a cosine (section 2.2)."""
        rise = int(self.warmup * steps)
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr / 2 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))

    def _network(self, body: nn.Module, side: int, seed: int) -> nn.Sequential:
        """A copy of the body with the projection behind it (section 2.1: one hidden layer), in training mode."""
        body = copy.deepcopy(body).cpu().eval()
        with torch.no_grad():
            features = body(torch.zeros(2, 3, side, side))
        if features.ndim != 2 or len(features) != 2:
            raise EncoderError("network: features [N, d]", got=str(list(features.shape)), do="use one without a head")
        with repeatable_initialisation(stream_seed(seed, "pretrain/projection")):
            projection = nn.Sequential(
                nn.Linear(features.shape[1], self.hidden, bias=False),
                nn.BatchNorm1d(self.hidden),
                nn.ReLU(),
                nn.Linear(self.hidden, self.projection),
            )
        return nn.Sequential(body, projection).train().requires_grad_(True)


def _tensors(network: nn.Module, optimiser: torch.optim.SGD) -> dict[str, Tensor]:
    """What the next epoch needs: weights, BatchNorm statistics, momentum."""
    momentum = {
        f"momentum.{name}": optimiser.state[weight]["momentum_buffer"]
        for name, weight in network.named_parameters()
        if optimiser.state[weight].get("momentum_buffer") is not None
    }
    return {**{f"network.{name}": value for name, value in network.state_dict().items()}, **momentum}


def _resume(path: Path, settings: dict[str, Any], network: nn.Module, optimiser: torch.optim.SGD) -> list[float]:
    """Fill network and optimiser from a checkpoint; the losses of the epochs behind it."""
    losses, tensors = checkpoints.load(path, settings)
    try:
        network.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("network.")})
    except RuntimeError as error:
        raise WeightsError(f"{path}: the tensors of this network", got=str(error), do="remove it") from error
    for name, weight in network.named_parameters():
        if (momentum := tensors.get(f"momentum.{name}")) is not None:
            # Like the weight, so that the device and the memory format are those of an uninterrupted run.
            optimiser.state[weight] = {"momentum_buffer": torch.empty_like(weight).copy_(momentum).detach()}
    return losses
