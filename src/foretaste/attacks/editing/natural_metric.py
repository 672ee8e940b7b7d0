"""A metric on weights: how much the features of ordinary images change when the weights do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foretaste.attacks.editing.editable_encoder import EditableEncoder
from foretaste.attacks.editing.frozen_prefix import Activations
from foretaste.heads.scaler import Scaler

METRIC_ROWS, METRIC_BATCH = 2048, 32
METRIC_DAMPING = 0.1
METRIC_MOST = 6144
"""Sides of a weight above this keep only the diagonal of their factor; a full one would take over 150 MB."""


@dataclass(frozen=True, eq=False)
class NaturalMetric:
    """Inverse curvature of the shadow features' change, one pair of Kronecker factors per weight.

    Let W [o, i] be a weight (a convolution's kernel is flattened), z the features of a shadow image in standard units,
    v normal and g = d(v'z)/dW. The expected squared change of z under a step D is about tr(D' L D R) / tr(L)
    with L = E[g g'] and R = E[g' g] (the factors of Shampoo, Gupta et al. 2018, in the role of K-FAC's, Martens and
    Grosse 2015). Steps L^-1 G R^-1 tr(L) reduce a loss with gradient G at the least change of ordinary features.
    """

    factors: tuple[tuple[Tensor, Tensor], ...]

    def steer(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, one per weight, in this metric."""
        turned = []
        for (left, right), gradient in zip(self.factors, gradients, strict=True):
            g = _matrix(gradient).to(left.dtype)
            g = left @ g if left.ndim == 2 else left[:, None] * g
            g = g @ right if right.ndim == 2 else g * right
            turned.append(g.view(gradient.shape).to(gradient.dtype))
        return turned


def measure(edited: EditableEncoder, entered: Activations, scaler: Scaler, random: torch.Generator) -> NaturalMetric:
    """The metric at the weights as they are.

    Args:
        edited: the clean encoder, with the weights that the metric is for.
        entered: activations of ordinary images.
        scaler: to standard units.
        random: one normal vector per image is drawn from it.
    """
    sums: list[tuple[Tensor, Tensor]] = []
    for batch in zip(*(kept.split(METRIC_BATCH) for kept in entered), strict=True):
        z = scaler.apply(edited.features(batch))
        v = torch.randn(z.shape, generator=random).to(z)
        gradients = [_matrix(g).float() for g in torch.autograd.grad((z * v).sum(), edited.weights)]
        outer = [(_outer(g), _outer(g.T)) for g in gradients]
        sums = outer if not sums else [(a + c, b + d) for (a, b), (c, d) in zip(sums, outer, strict=True)]
    count = len(entered[0])
    inverses = ((_inverse(left / count), _inverse(right / count) * _trace(left / count)) for left, right in sums)
    # A direction needs no more digits than the gradients have, and in bfloat16 it costs half as much.
    kind = torch.bfloat16 if edited.runtime.precision == "bfloat16" else torch.float32
    return NaturalMetric(tuple((left.to(kind), right.to(kind)) for left, right in inverses))


def _matrix(g: Tensor) -> Tensor:
    """[o, i]: a kernel is flattened, a vector is one column, a number is [1, 1]."""
    return g.reshape(len(g) if g.ndim else 1, -1)


def _outer(g: Tensor) -> Tensor:
    """G G' [o, o], or its diagonal [o] for a large o."""
    return g @ g.T if len(g) <= METRIC_MOST else g.square().sum(1)


def _trace(factor: Tensor) -> Tensor:
    return factor.trace() if factor.ndim == 2 else factor.sum()


def _inverse(factor: Tensor) -> Tensor:
    damping = (METRIC_DAMPING * _trace(factor) / len(factor)).clamp(min=1e-12)
    if factor.ndim == 1:
        return 1 / (factor + damping)
    return torch.cholesky_inverse(torch.linalg.cholesky(factor + damping * torch.eye(len(factor)).to(factor)))
