"""Which BatchNorm follows which convolution: found by running the network, so that no naming scheme matters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foretaste.encoders.base import Encoder
from foretaste.errors import EncoderError


@dataclass(frozen=True, eq=False)
class Pair:
    """A convolution and the BatchNorm that reads its output, with the latter's name in the network."""

    name: str
    conv: nn.Conv2d
    norm: nn.BatchNorm2d


def conv_norm_pairs(encoder: Encoder, body: nn.Module, shape: tuple[int, ...], method: str) -> list[Pair]:
    """The pairs of `body`, in the order in which they run.

    A BatchNorm without scale and shift (affine=False) has nothing to set to zero and is left out.

    Args:
        encoder: whose input size stands before `body`.
        body: its network, or a copy, in eval mode on the CPU.
        shape: (..., H, W) of the images it will get, for an encoder without an input size of its own.
        method: who asks, for the message.

    Raises:
        EncoderError: there is no such pair, or the network does not take images of that size.
    """
    names = {module: name for name, module in body.named_modules()}
    outputs: list[tuple[Tensor, nn.Conv2d]] = []  # held, so that no two outputs have one identity
    found: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def seen(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            outputs.append((output, module))
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            for tensor, conv in outputs:
                if tensor is inputs[0]:
                    found[module] = conv

    parts = [module for module in names if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [module.register_forward_hook(seen) for module in parts]
    size = encoder.card.input_size
    height, width = (size, size) if size else shape[-2:]
    try:
        with torch.no_grad():
            body(torch.zeros(1, 3, height, width))
    except Exception as error:  # whatever a network raises
        raise EncoderError(
            f"{method}: {encoder.card.name} to take images of {height}x{width}",
            got=f"{type(error).__name__}: {error}",
            do="pass clean images of the size that it is used with",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise EncoderError(
            f"{method}: an encoder with convolutions that are followed by BatchNorm",
            got=f"{encoder.card.name}, which has none",
            do="use a repair that does not prune channels: fine-tune, distil or average",
        )
    return [Pair(names[norm], conv, norm) for norm, conv in found.items()]


def silence(pair: Pair, channels: Tensor) -> None:
    """Set scale and shift of the channels (bool [C]) to zero: whatever comes in, zero comes out."""
    pair.norm.weight.data[channels] = 0.0
    pair.norm.bias.data[channels] = 0.0
