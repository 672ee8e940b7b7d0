"""From a suspect encoder's file to a repaired one: what `foretaste repair` does."""

from __future__ import annotations

from pathlib import Path

import torch

from foretaste.defences.repairs.base import Repair
from foretaste.encoders.build import build
from foretaste.encoders.card import Card
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import save_encoder
from foretaste.errors import SpecError
from foretaste.images import Images
from foretaste.pretrain.simclr import Progress, quiet
from foretaste.runtime import Runtime

NO_IMAGES = Images(torch.zeros(0, 3, 32, 32, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), (), "no images")
"""What a repair without data is given."""


def check_out(out: Path) -> None:
    """Refuse a place that cannot be written to, before any work.

    Raises:
        SpecError: another suffix, a file that exists, or no such folder.
    """
    if out.suffix != ".safetensors" or out.exists():
        found = "one that exists" if out.exists() else repr(out.name)
        raise SpecError(f"--out {out}: a new file that ends in .safetensors", got=found, do="choose another name")
    if not out.parent.is_dir():
        raise SpecError(f"--out {out}: a file in a folder that exists", got=f"no folder {out.parent}", do="make it")


def run(
    method: Repair,
    suspect: EncoderSpec,
    clean: Images,
    seed: int,
    runtime: Runtime,
    out: Path,
    progress: Progress = quiet,
    *,
    command: str = "",
) -> Card:
    """Repair an encoder and write it, with its card, to `out` and `out`.card.json.

    Args:
        method: the repair.
        suspect: the encoder, with its weights.
        clean: the owner's clean images; `NO_IMAGES` for a repair that looks at none. Never pass test rows.
        seed: of everything that is drawn.
        runtime: where to compute.
        out: a new file that ends in .safetensors.
        progress: called after each step with (steps done, steps in all, loss).
        command: for the card: makes the weights again.

    Returns:
        The card as written.

    Raises:
        SpecError: `out` cannot be written.
        DataError: too few clean images.
        EncoderError: the encoder cannot be built or repaired.
        WeightsError: a file cannot be read or written.
    """
    check_out(out)
    method.check(clean)
    encoder = build(suspect, (clean.pixels.shape[2], clean.pixels.shape[3]))
    repaired = method.mend(encoder, clean, seed, runtime, progress)
    card = repaired.card.model_copy(update={"name": out.stem, "command": command})
    save_encoder(out, repaired.body.state_dict(), card)
    return card
