"""Channel-Lipschitz pruning (Zheng et al.: Data-free Backdoor Removal Based on Channel Lipschitzness, ECCV 2022).

A channel that a trigger drives reacts to small changes of its input more than the others of its layer do. The paper
bounds that by the spectral norm of the channel's kernel with its BatchNorm folded in, and prunes what stands out:

    u_k = sigma_max( W_k * |gamma_k| / sqrt(var_k + eps) ),     W_k as a matrix [in channels, kernel area]
    prune channel k of layer l if u_k > mean_l + u * std_l      (std with n - 1, as in the authors' code)

It needs no data at all.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.defences.repairs.base import Repair, own_body
from foretaste.defences.repairs.pairs import Pair, conv_norm_pairs, silence
from foretaste.encoders.base import Encoder
from foretaste.images import Images
from foretaste.pretrain.simclr import Progress, quiet
from foretaste.runtime import Runtime


class CLP(Repair):
    """Zero the channels whose Lipschitz constant stands out among those of their layer; needs no data."""

    name: ClassVar[str] = "clp"
    u: float = Field(
        default=3.0, ge=0, description="standard deviations above the layer's mean from which a channel is pruned"
    )

    def mend(self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: Progress = quiet) -> Encoder:
        """Prune; of `clean` only the size counts, `seed` is not used. See `Repair.mend`.

        Raises:
            EncoderError: no convolution of the encoder is followed by BatchNorm.
        """
        body = own_body(encoder)
        pairs = conv_norm_pairs(encoder, body, clean.pixels.shape, self.name)
        pruned = 0
        for place, pair in enumerate(pairs, start=1):
            channels = self.outstanding(channel_lipschitz(pair))
            silence(pair, channels)
            pruned += int(channels.sum())
            progress(place, len(pairs), float(pruned))
        total = sum(pair.conv.out_channels for pair in pairs)
        return self.settled(encoder, body, f"{pruned} of {total} channels zeroed, without data")

    def outstanding(self, constants: Tensor) -> Tensor:
        """Bool [C]: which of the constants float [C] of one layer are above mean + u std; a lone channel never is."""
        if len(constants) < 2:
            return torch.zeros(len(constants), dtype=torch.bool)
        return constants > constants.mean() + self.u * constants.std()


def channel_lipschitz(pair: Pair) -> Tensor:
    """u_k of every output channel, float64 [C], >= 0."""
    norm = pair.norm
    assert norm.running_var is not None  # in eval mode a network without it mixes the batch, which no encoder may
    gain = norm.weight.detach().double().abs() / (norm.running_var.double() + norm.eps).sqrt()  # [C]
    kernels = pair.conv.weight.detach().double().flatten(2)  # [C, in / groups, kernel area]
    constants: Tensor = gain * torch.linalg.matrix_norm(kernels, ord=2)
    return constants
