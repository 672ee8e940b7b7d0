"""The linear probe of the papers: momentum SGD on the cross-entropy, in closed form."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from foretaste.errors import SpecError
from foretaste.heads.scaler import Scaler
from foretaste.probes.base import FittedProbe, Probe, check_rows
from foretaste.runtime import Runtime, stream


class SGDProbe(Probe):
    """Softmax regression by SGD with momentum, weight decay on weights and bias, and a cosine schedule per epoch.

    Settings of the head that gradient canceling is judged by (Lu, Kamath and Yu 2023, arXiv 2303.03592, code for
    CIFAR-10 with a frozen MoCo encoder), except that the learning rate reaches 0 with the last epoch.
    """

    name: ClassVar[str] = "sgd"
    epochs: int = Field(default=100, ge=1, description="passes over the rows")
    batch: int = Field(default=128, ge=1, description="rows per step; the last batch of an epoch may be smaller")
    learning_rate: float = Field(default=0.1, gt=0, allow_inf_nan=False, description="of the first epoch")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="share of the last step that is kept")
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False, description="L2 weight, as in torch.optim.SGD")
    standardise: bool = Field(default=True, description="fit on features of mean 0 and deviation 1")

    def fit(self, z: Tensor, y: Tensor, classes: int, seed: int, runtime: Runtime) -> FittedProbe:
        """Train from weights ~ N(0, 0.01^2) and bias 0. Figure `loss`: mean cross-entropy of the training rows.

        Raises:
            DataError: no row, or labels that do not fit.
            SpecError: training diverged.
        """
        check_rows(z, y, classes)
        x = z.to(runtime.device).float()
        scaler = Scaler.of([x]) if self.standardise else None
        x = _prepare(x, scaler)
        draws = stream(seed, "probe")
        weight = torch.zeros(classes, x.shape[1])  # [C, d + 1], the bias last
        weight[:, :-1] = torch.randn(classes, z.shape[1], generator=draws) * 0.01
        weight = weight.to(x.device)
        velocity = torch.zeros_like(weight)
        targets = one_hot(y.to(x.device), classes).float()
        with torch.no_grad():
            for epoch in range(self.epochs):
                order = torch.randperm(len(x), generator=draws).to(x.device)
                rate = self.learning_rate / 2 * (1 + math.cos(math.pi * epoch / self.epochs))
                descend(weight, velocity, x[order], targets[order], self.batch, rate, self.momentum, self.weight_decay)
            loss = float(torch.nn.functional.cross_entropy(x @ weight.T, y.to(x.device)))
        if not math.isfinite(loss):
            raise SpecError(
                "sgd: settings under which training converges", got=f"loss {loss}", do="lower learning_rate"
            )

        def predict(new: Tensor) -> Tensor:
            return (_prepare(new.to(runtime.device).float(), scaler) @ weight.T).argmax(1).cpu()

        return FittedProbe(predict, {"loss": loss})


def descend(
    weight: Tensor,
    velocity: Tensor,
    x: Tensor,
    targets: Tensor,
    batch: int,
    rate: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """One epoch of torch.optim.SGD's update on the mean cross-entropy of each batch, in place.

        V <- momentum V + (softmax(X W') - T)' X / b + weight_decay W,      W <- W - rate V

    Written out because autograd and the optimiser's Python cost several times the arithmetic at this size.

    Args:
        weight: W, float32 [C, d + 1].
        velocity: V, as W.
        x: float32 [n, d + 1], the last column 1, in the order of training.
        targets: T, one-hot [n, C].
        batch: b; the last one may be smaller.
        rate: of this epoch.
        momentum: share of V that is kept.
        weight_decay: L2 weight.
    """
    for rows, wanted in zip(torch.split(x, batch), torch.split(targets, batch), strict=True):
        error = torch.softmax(rows @ weight.T, 1).sub_(wanted)  # [b, C]
        velocity.addmm_(error.T, rows, beta=momentum, alpha=1 / len(rows))
        velocity.add_(weight, alpha=weight_decay)
        weight.sub_(velocity, alpha=rate)


def _prepare(z: Tensor, scaler: Scaler | None) -> Tensor:
    """Standard units, and a column of ones for the bias: [n, d] to [n, d + 1]."""
    x = z if scaler is None else scaler.apply(z)
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)
