"""What a victim's fine-tuning would make of an edit, simulated, so that an attack can outlive it: beyond PA-CL's paper.

With w the edited weights and u(w) those after k plain SGD steps of a victim, the target's loss becomes

    (L_te(w) + L_te(u(w))) / 2,    d L_te(u(w)) / dw taken to be the gradient of L_te at u(w),

the first-order look-ahead of MAML (Finn, Abbeel, Levine, ICML 2017, section 5.2). The attacker has no labels, so its
victim learns as SimCLR does (Chen et al. 2020), from two views of each shadow image, with NT-Xent on the features
themselves, without a projection. Only the weights that the attack trains move; a real victim may move all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from foretaste.attacks.editing.editable_encoder import EditableEncoder
from foretaste.pretrain.views import Views, make_views

TEMPERATURE = 0.5
"""Of NT-Xent, SimCLR's for CIFAR-10."""


@contextmanager
def fine_tuned(
    edited: EditableEncoder, batches: Iterable[Tensor], step: float, random: torch.Generator
) -> Iterator[None]:
    """Within the block the weights are those after one SGD step on each batch; then what they were, to the bit.

    Args:
        edited: the network; no graph that began before may be used in or after the block.
        batches: uint8 [b, 3, H, W] each, b >= 2.
        step: the victim's learning rate.
        random: where its views are drawn.
    """
    start = [weight.detach().clone() for weight in edited.weights]
    try:
        for pixels in batches:
            a, b = (edited.enter((255 * make_views(pixels, Views(), random)).round().to(torch.uint8)) for _ in range(2))
            loss = nt_xent(edited.features(a, b), TEMPERATURE)
            gradients = torch.autograd.grad(loss, edited.weights)
            for weight, gradient in zip(edited.weights, gradients, strict=True):
                weight.data.sub_(gradient, alpha=step)
        yield
    finally:
        for weight, before in zip(edited.weights, start, strict=True):
            weight.data.copy_(before)


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent, a scalar, of features [2 b, d]: first all first views, then all second ones.

    >>> round(float(nt_xent(torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]), 1.0)), 4)  # -log(e / (e + 2))
    0.5514
    """
    z = normalize(z, dim=-1)
    n = len(z)
    scores = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return cross_entropy(scores, torch.arange(n, device=z.device).roll(n // 2))


def first_order(value: Tensor, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A scalar of that value whose gradients to the weights are those given."""
    line = sum(((w - w.detach()) * g).sum() for w, g in zip(weights, gradients, strict=True))
    return value.detach() + line
