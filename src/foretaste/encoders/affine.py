"""Weights mapped elementwise, as a repair of an encoder maps them: w becomes keep * w + add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from foretaste.encoders.base import Encoder

Affine = Mapping[str, tuple[Tensor, Tensor]]
"""Name of a tensor w in the body's state dict -> (keep, add), which broadcast; others stay."""


@contextmanager
def mapped(encoder: Encoder, affine: Affine) -> Iterator[None]:
    """Within the block the encoder is the mapped one; then it is what it was, to the bit.

    No graph that began before may be used in or after the block.
    """
    state = encoder.body.state_dict(keep_vars=True)
    before = {name: state[name].detach().clone() for name in affine}
    try:
        for name, (keep, add) in affine.items():
            state[name].data.copy_(keep.to(state[name]) * before[name] + add.to(state[name]))
        yield
    finally:
        for name, tensor in before.items():
            state[name].data.copy_(tensor)
