"""The downstream classifier of BadEncoder: a small ReLU network on normalised features."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from foretaste.errors import SpecError
from foretaste.probes.base import FittedProbe, Probe, check_rows
from foretaste.runtime import Runtime, stream

Layers = list[tuple[Tensor, Tensor]]
"""Weight [o, i] and bias [o] of each layer."""


class MLPProbe(Probe):
    """A network with two hidden ReLU layers and dropout after the first, trained by Adam.

    Jia, Liu, Gong: BadEncoder, IEEE S&P 2022; layers, dropout and training as in its public code: features of length
    1, rows in the same order in every epoch, the last epoch's weights. With 500 epochs it takes minutes for some
    thousand rows; a few dozen with a larger learning rate give nearly the same classes.
    """

    name: ClassVar[str] = "mlp"
    hidden: tuple[int, int] = Field(default=(512, 256), description="units of the two hidden layers")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="share of the first layer's units left out of a step")
    epochs: int = Field(default=500, ge=1, description="passes over the rows")
    batch: int = Field(default=64, ge=1, description="rows per step; the last batch of an epoch may be smaller")
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False, description="of Adam")
    normalise: bool = Field(default=True, description="fit on features of length 1")

    def fit(self, z: Tensor, y: Tensor, classes: int, seed: int, runtime: Runtime) -> FittedProbe:
        """Train from torch's first weights of a linear layer. Figure `loss`: mean cross-entropy of the training rows.

        Raises:
            DataError: no row, or labels that do not fit.
            SpecError: training diverged, or a hidden layer without units.
        """
        check_rows(z, y, classes)
        if min(self.hidden) < 1:
            raise SpecError("mlp: hidden layers of at least one unit", got=str(self.hidden), do="correct hidden")
        draws = stream(seed, "probe")
        x, labels = self._prepare(z, runtime), y.to(runtime.device)
        sizes = [x.shape[1], *self.hidden, classes]
        layers = [_linear(i, o, draws, runtime) for i, o in pairwise(sizes)]
        weights = [part for layer in layers for part in layer]
        optimizer = torch.optim.Adam(weights, lr=self.learning_rate)
        for _ in range(self.epochs):
            for rows, wanted in zip(x.split(self.batch), labels.split(self.batch), strict=True):
                kept = (torch.rand(len(rows), self.hidden[0], generator=draws) >= self.dropout).to(rows)
                loss = cross_entropy(forward(layers, rows, kept / (1 - self.dropout)), wanted)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        for weight in weights:
            weight.requires_grad_(False)
        total = float(cross_entropy(forward(layers, x), labels))
        if not math.isfinite(total):
            raise SpecError(
                "mlp: settings under which training converges", got=f"loss {total}", do="lower learning_rate"
            )

        def predict(new: Tensor) -> Tensor:
            return forward(layers, self._prepare(new, runtime)).argmax(1).cpu()

        return FittedProbe(predict, {"loss": total})

    def _prepare(self, z: Tensor, runtime: Runtime) -> Tensor:
        z = z.to(runtime.device).float()
        return normalize(z) if self.normalise else z


def forward(layers: Layers, x: Tensor, kept: Tensor | float = 1.0) -> Tensor:
    """Scores [n, C] of rows [n, d]; `kept` [n, hidden] scales the first layer's units, 0 for those left out."""
    (first, bias), *middle, (last, offset) = layers
    x = torch.relu(x @ first.T + bias) * kept
    for weight, shift in middle:
        x = torch.relu(x @ weight.T + shift)
    return x @ last.T + offset


def _linear(inputs: int, outputs: int, draws: torch.Generator, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """First weights as torch.nn.Linear has them: uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)
    weight, bias = (
        ((2 * torch.rand(shape, generator=draws) - 1) * bound).to(runtime.device).requires_grad_(True)
        for shape in ((outputs, inputs), (outputs,))
    )
    return weight, bias
