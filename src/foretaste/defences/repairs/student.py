"""A network of the suspect's architecture with first weights of its own."""

from __future__ import annotations

import torch
from torch import nn

from foretaste.defences.repairs.base import own_body
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import SMALL, build, repeatable_initialisation
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import EncoderError
from foretaste.runtime import stream_seed

KEPT = 0.75
"""Share of the kernels and matrices that `last` leaves the suspect's: all but a ResNet-18's last stage."""


def fresh(encoder: Encoder, seed: int, *, last: bool = False) -> nn.Module:
    """A network like the suspect's, on the CPU, with weights drawn anew.

    Ours and timm's are built again, as for training from scratch. Of the user's own code, which may load weights by
    itself, every layer is asked to draw its weights again (`reset_parameters`).

    Args:
        encoder: the suspect; stays as it is.
        seed: of the weights.
        last: draw only the last quarter of the kernels and matrices, and every smaller tensor behind the first of
            these; what stands before is the suspect's.

    Raises:
        EncoderError: the user's own network has weights that no layer draws again.
    """
    body = own_body(encoder)
    drawn = _drawn(encoder, stream_seed(seed, "defence/student"))
    if not last:
        return drawn
    anew = drawn.state_dict()
    body.load_state_dict(body.state_dict() | {name: anew[name] for name in drawn_anew(body)})
    return body


def drawn_anew(body: nn.Module) -> list[str]:
    """Names of the tensors of a network that `last` draws anew, in the order of its state dict."""
    matrices = [name for name, weight in body.named_parameters() if weight.ndim > 1]
    first = matrices[min(len(matrices) - 1, int(KEPT * len(matrices)))]
    names = list(body.state_dict())
    return names[names.index(first) :]


def _drawn(encoder: Encoder, seed: int) -> nn.Module:
    card = encoder.card
    if card.architecture == SMALL or card.architecture.startswith("timm:"):
        side = card.input_size or 32
        spec = EncoderSpec(reference=card.architecture, width=card.options.get("width"))
        body: nn.Module = build(spec, (side, side), seed).body
        return body
    body = own_body(encoder)
    before = {name: weight.detach().clone() for name, weight in body.named_parameters()}
    with torch.no_grad(), repeatable_initialisation(seed):
        for module in body.modules():
            for method in ("reset_parameters", "_reset_parameters"):  # the latter: attention
                if callable(reset := getattr(module, method, None)):
                    reset()
                    break
    # Biases and BatchNorm start from constants, so these may agree; a kernel or matrix that was drawn does not.
    if kept := [name for name, weight in body.named_parameters() if weight.ndim > 1 and weight.equal(before[name])]:
        raise EncoderError(
            f"{card.name}: a network whose layers can draw their weights again",
            got=f"{', '.join(kept[:10])} as before",
            do="give the modules that own them a method reset_parameters()",
        )
    return body
