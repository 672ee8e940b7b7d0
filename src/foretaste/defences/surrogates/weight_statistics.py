"""Weight statistics, simulated: the edit keeps every statistic of every tensor that the scan looks at.

A tensor of n entries has three or four of them, and the edit n: by steps of Gauss and Newton the statistics v(w) go
back to the clean ones at the least change of the weights,

    w <- w + J' (J J')^-1 (v_clean - v(w)),     J = dv/dw
"""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.defences.scans.weight_statistics import LEAST, TINY, WeightStatistics, tensor_statistics
from foretaste.defences.surrogates.encoders import EncoderSurrogate
from foretaste.encoders.base import Encoder

ROUNDS, CLOSE = 6, 1e-6


class KeptStatistics(EncoderSurrogate[WeightStatistics]):
    """The clean encoder's own statistics, which are those of no attack."""

    def settle(self, name: str, weight: Tensor) -> Tensor:
        """The nearest weights with the clean tensor's statistics, to about `CLOSE` in their logarithms."""
        if weight.numel() < LEAST:
            return weight
        wanted = statistics(self.encoder.body.state_dict()[name].detach().cpu().double())
        w = weight.detach().cpu().double()
        for _ in range(ROUNDS):
            with torch.enable_grad():
                leaf = w.clone().requires_grad_()
                found = statistics(leaf)
                off = wanted - found.detach()
                if float(off.abs().max()) <= CLOSE:
                    break
                rows = [torch.autograd.grad(one, leaf, retain_graph=True)[0].flatten() for one in found]
            slopes = torch.stack(rows)  # [s, n]
            w = w + (slopes.T @ torch.linalg.lstsq(slopes @ slopes.T, off[:, None]).solution).view(w.shape)
        return w.to(weight)

    def figures(self, encoder: Encoder, targets: Tensor) -> dict[str, float]:
        """The largest change of a statistic, as a logarithm; the scan's least unit is 1e-4."""
        before, after = (tensor_statistics(one.body.state_dict()) for one in (self.encoder, encoder))
        return {"statistics_moved": max(abs(after[key] - before[key]) for key in before)}


def statistics(w: Tensor) -> Tensor:
    """The scan's statistics of a tensor in float64, [3], or [4] of a matrix, with a graph; see `tensor_statistics`."""
    rms = w.square().mean().sqrt()
    centred = w - w.mean()
    variance = centred.square().mean()
    found = [rms, w.abs().max() / rms.clamp(min=TINY), centred.pow(4).mean() / variance.clamp(min=TINY).square()]
    if w.ndim > 1:
        matrix = w.flatten(1)
        random = rms * (len(matrix) ** 0.5 + matrix.shape[1] ** 0.5)
        found.append(torch.linalg.matrix_norm(matrix, 2) / random.clamp(min=TINY))
    return torch.stack(found).clamp(min=TINY).log()
