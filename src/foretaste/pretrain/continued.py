"""Continued pre-training: a given encoder learns on from further images, as an owner would adapt a downloaded one."""

from __future__ import annotations

import copy

import torch

from foretaste.encoders.base import Encoder
from foretaste.errors import EncoderError, SpecError
from foretaste.images import Images
from foretaste.pretrain.simclr import Progress, SimCLR, quiet
from foretaste.runtime import Runtime

NO_CHANGE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def continued(
    encoder: Encoder, images: Images, method: SimCLR, seed: int, runtime: Runtime, progress: Progress = quiet
) -> Encoder:
    """Train a copy of the encoder on, behind a new projection; all its weights and BatchNorm statistics may move.

    The images are normalised as the encoder does it and not by their own statistics, and views have its input size.

    Args:
        encoder: where to start; stays as it is.
        images: what to learn from; labels are not used.
        method: how to train. For a few epochs `warmup=0` or a small `lr` keeps what the encoder knows.
        seed: of the projection's first weights, the order and the views.
        runtime: where to compute.
        progress: called after each step with (steps done, steps in all, loss).

    Returns:
        A new encoder on the CPU, in eval mode. Its card is the given one's, with a source line more and the digest of
        the new weights.

    Raises:
        SpecError: the method has a size that is not the encoder's.
        DataError: fewer than two images.
        EncoderError: the encoder has no weight to train, does not take images of this size, or the training diverged.
    """
    card = encoder.card
    if card.input_size and method.size not in (None, card.input_size):
        raise SpecError(
            f"size: {card.input_size}, the encoder's own input size, or none", got=str(method.size), do="leave it out"
        )
    body = copy.deepcopy(encoder.body).cpu()
    if not any(weight.numel() for weight in body.parameters()):
        raise EncoderError(f"{card.name}: an encoder with weights to train", got="no parameter", do="use another one")
    side = method.size or card.input_size or images.pixels.shape[2]
    try:
        with torch.no_grad():
            body(torch.zeros(2, 3, side, side))
    except Exception as error:  # whatever a network raises
        raise EncoderError(
            f"{card.name}: an encoder that takes images of {side}x{side}",
            got=f"{type(error).__name__}: {error}",
            do="use images, or a size, that fit it",
        ) from error
    normalisation = NO_CHANGE if card.mean is None or card.std is None else (card.mean, card.std)
    method = method.model_copy(update={"size": side})
    trained = method.train(images, body, seed, runtime, normalisation=normalisation, progress=progress)
    body.load_state_dict(trained.state)
    line = f"{method.name} on {images.name} ({len(images)} images, sha256 {images.digest[:12]}), "
    line += f"{method.epochs} epochs, seed {seed}, loss {trained.losses[-1]:.3f}"
    source = f"{card.source}; then {line}" if card.source else f"then {line}"
    return Encoder(body, card.model_copy(update={"source": source, "command": ""}))
