"""What every encoder must keep: images in [0, 1] to finite float [N, d], the same in every pass and batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foretaste.encoders.base import Encoder
from foretaste.errors import EncoderError
from foretaste.runtime import stream


def check_contract(encoder: Encoder, reference: str, sample: tuple[int, int]) -> int:
    """Send two images through a freshly built encoder.

    Args:
        encoder: with `card.sha256` of the weights that it has.
        reference: how the user named it, for messages.
        sample: height and width of the images in pixels.

    Returns:
        d, the number of features.

    Raises:
        EncoderError: the network fails, or its output is no float [N, d], not finite, differs between two passes, or
            depends on the rest of the batch; or a pass changes the weights.
    """
    expected = f"--encoder {reference}: float [2, 3, {sample[0]}, {sample[1]}] in [0, 1] to finite float [2, d]"
    images = torch.rand((2, 3, *sample), generator=stream(0, "contract"))
    hook = encoder.body.register_forward_hook(_require_float_matrix)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            first, before = encoder(images), torch.get_rng_state()
            again, after = encoder(images), torch.get_rng_state()
            alone = encoder(images[:1])
    except Exception as error:  # whatever a network raises
        raise EncoderError(expected, got=f"{type(error).__name__}: {error}") from error
    finally:
        hook.remove()
    if len(first) != 2 or not first.shape[1]:
        raise EncoderError(expected, got=f"float {list(first.shape)}", do="return one vector per image")
    if not first.isfinite().all():
        raise EncoderError(expected, got="NaN or infinite features", do="check the weights")
    # Two passes of a random network can agree by chance (dropout on few features), so a draw alone is enough.
    if not torch.equal(first, again) or not torch.equal(before, after) or encoder.sha256() != encoder.card.sha256:
        raise EncoderError(
            f"--encoder {reference}: the same features in every pass in eval mode, and weights that stay",
            got="a network that changes its output, its input or its weights",
            do="take out what is random, in place or updated in forward",
        )
    if (first[:1] - alone).abs().max() > 0.01 * first.abs().max():
        raise EncoderError(
            f"--encoder {reference}: features of an image that do not depend on the others in its batch",
            got="a network that mixes the batch",
            do="give its BatchNorm running statistics",
        )
    return int(first.shape[1])


def _require_float_matrix(_: nn.Module, __: object, output: object) -> None:
    if not isinstance(output, Tensor):
        raise TypeError(f"forward returns a {type(output).__name__}; it must be one tensor")
    if not output.is_floating_point() or output.ndim != 2:
        found = f"{str(output.dtype).removeprefix('torch.')} {list(output.shape)}"
        raise TypeError(f"forward returns {found}; pool or flatten it to float [N, d]")
