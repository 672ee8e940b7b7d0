"""`EncoderSpec`: what a command line or an audit file says about an encoder."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class EncoderSpec(BaseModel):
    """Which encoder to build; `build.build` checks the values and turns them into an `Encoder`.

    Attributes:
        reference: one of the forms in `encoders.ARCHITECTURES`. A callable is the user's own code and is run; nothing
            but this field can name one.
        weights: checkpoint that replaces the weights; `.safetensors`, `.pth`, `.pt`, `.ckpt`, `.bin` or `.tar`.
        width: of `resnet18-small`; None: as in the weights, else 64.
        mean, std: per channel, of pixels in [0, 1]; None: as the card or the architecture says.
        input_size: side in pixels that images are resized to; None: as the card or the architecture says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    reference: str
    weights: Path | None = None
    width: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    input_size: int | None = None
