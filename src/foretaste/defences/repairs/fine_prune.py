"""Fine-pruning (Liu, Dolan-Gavitt, Garg, RAID 2018, arXiv 1805.12185): prune what clean images leave idle, then tune.

A backdoor hides in channels that clean images hardly use. The channels of the last convolution are ordered by their
mean activation over clean images, after BatchNorm and ReLU; the least active are set to zero and stay so while the rest
is fine-tuned. The paper prunes until a classifier loses accuracy; an encoder has none, so here a share is pruned.
"""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.defences.repairs.base import described, own_body
from foretaste.defences.repairs.fine_tune import FineTune
from foretaste.defences.repairs.pairs import Pair, conv_norm_pairs, silence
from foretaste.encoders.base import Encoder
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.pretrain.simclr import Progress, quiet
from foretaste.runtime import Runtime


class FinePrune(FineTune):
    """Zero the channels that clean images use least, in the last layers, and fine-tune the others."""

    name: ClassVar[str] = "fine-prune"
    share: float = Field(default=0.2, ge=0, lt=1, description="share of each layer's channels that is pruned")
    layers: int = Field(default=1, ge=1, description="how many of the last convolutions are pruned (the paper: one)")
    epochs: int = Field(default=100, ge=0, description="passes over the clean images after pruning; 0: prune only")

    def mend(self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: Progress = quiet) -> Encoder:
        """Prune a copy, then tune it, see `Repair.mend`.

        Raises:
            DataError: as of fine-tune.
            EncoderError: no convolution of the encoder is followed by BatchNorm, or the loss is not finite.
        """
        self.check(clean)
        body = own_body(encoder)
        pairs = conv_norm_pairs(encoder, body, clean.pixels.shape, self.name)[-self.layers :]
        activity = mean_activity(Encoder(body, encoder.card), pairs, clean, runtime)
        body.cpu()
        pruned = {pair.name: self.idle(mean) for pair, mean in zip(pairs, activity, strict=True)}
        for pair in pairs:
            silence(pair, pruned[pair.name])
        if self.epochs:
            tuned = self.tuned(Encoder(_muted(body, pruned), encoder.card), clean, seed, runtime, progress)
            body.load_state_dict(tuned.state_dict())
        count = sum(int(channels.sum()) for channels in pruned.values())
        return self.settled(encoder, body, f"{count} channels zeroed by {described(clean)}, seed {seed}")

    def idle(self, activity: Tensor) -> Tensor:
        """Bool [C]: the floor(share * C) least active channels."""
        count = int(self.share * len(activity))
        return torch.zeros(len(activity), dtype=torch.bool).index_fill_(0, activity.argsort(stable=True)[:count], True)


def mean_activity(encoder: Encoder, pairs: list[Pair], clean: Images, runtime: Runtime) -> list[Tensor]:
    """Mean of ReLU(BatchNorm(convolution)) over clean images and places, float64 [C] for each pair, on the CPU."""
    sums: dict[str, Tensor] = {}

    def hook_of(name: str) -> object:
        def add(_: nn.Module, __: object, output: Tensor) -> None:
            mean = output.detach().relu().float().mean((2, 3)).double().sum(0).cpu()
            sums[name] = sums.get(name, torch.zeros_like(mean)) + mean

        return add

    hooks = [pair.norm.register_forward_hook(hook_of(pair.name)) for pair in pairs]  # type: ignore[arg-type]
    try:
        embed(encoder, clean.pixels, runtime)
    finally:
        for hook in hooks:
            hook.remove()
    return [sums[pair.name] / len(clean) for pair in pairs]


def _muted(body: nn.Module, pruned: dict[str, Tensor]) -> nn.Module:
    """The network with its pruned channels held at zero: without a gradient their scale and shift stay there.

    The hooks stay in copies of this network, and out of the one whose weights are kept.
    """
    muted = copy.deepcopy(body)
    for name, channels in pruned.items():
        keep = (~channels).float().view(1, -1, 1, 1)
        muted.get_submodule(name).register_forward_hook(lambda _, __, output, keep=keep: output * keep.to(output))
    return muted
