"""From images to an encoder file: what `foretaste pretrain` does."""

from __future__ import annotations

from pathlib import Path

from foretaste.encoders.build import SMALL, build
from foretaste.encoders.card import Card
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import save_encoder
from foretaste.errors import SpecError
from foretaste.images import Images
from foretaste.pretrain.simclr import Progress, SimCLR, quiet
from foretaste.runtime import Runtime, digest_tensors


def run(
    images: Images,
    arch: str,
    width: int | None,
    method: SimCLR,
    seed: int,
    runtime: Runtime,
    out: Path,
    progress: Progress = quiet,
    *,
    command: str = "",
    licence: str = "",
    overwrite: bool = False,
) -> Card:
    """Train an encoder and write it, with its card, to `out` and `out`.card.json.

    `OUT.checkpoint.safetensors` beside it holds the run after each epoch; the same arguments continue a killed run,
    and the file goes when the encoder is written.

    Args:
        images: what to learn from; labels are not used. Never pass test rows.
        arch: what `encoders.ARCHITECTURES` lists, e.g. `resnet18-small` or `timm:NAME`.
        width: of `resnet18-small`; None: 64.
        method: how to train. Without a size, `resnet18-small` takes the images' height, others their own input size.
        seed: of everything that is drawn.
        runtime: where to compute.
        out: a new file that ends in .safetensors.
        progress: called after each step with (steps done, steps in all, loss).
        command: for the card: makes the weights again.
        licence: for the card.
        overwrite: write over a file that exists.

    Returns:
        The card as written.

    Raises:
        SpecError: `out` cannot be written over, or the checkpoint beside it is of other settings.
        EncoderError: the architecture cannot be built, or the training diverged.
        WeightsError: a file cannot be read or written.
    """
    if out.suffix != ".safetensors" or (out.exists() and not overwrite):
        found = "one that exists" if out.exists() else repr(out.name)
        raise SpecError(f"{out}: a new file that ends in .safetensors", got=found, do="choose another name")
    own = images.pixels.shape[2]
    side = method.size or own
    encoder = build(EncoderSpec(reference=arch, width=width), (side, side), seed)
    if encoder.card.architecture != SMALL:
        side = method.size or encoder.card.input_size or own
    method = method.model_copy(update={"size": side})
    checkpoint = out.with_suffix(".checkpoint.safetensors")
    trained = method.train(images, encoder.body, seed, runtime, checkpoint=checkpoint, progress=progress)
    source = f"{method.name} on {images.name} ({len(images)} images, sha256 {images.digest[:12]}), "
    card = encoder.card.model_copy(
        update={
            "name": out.stem,
            "input_size": side,
            "mean": trained.mean,
            "std": trained.std,
            "source": source + f"{method.epochs} epochs, seed {seed}, loss {trained.losses[-1]:.3f}",
            "licence": licence,
            "command": command,
            "sha256": digest_tensors(trained.state),
            "dropped_keys": (),
        }
    )
    save_encoder(out, trained.state, card, overwrite=overwrite)
    checkpoint.unlink(missing_ok=True)
    return card
