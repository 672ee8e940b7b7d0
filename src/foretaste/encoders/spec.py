"""`EncoderSpec`: what a command line or an audit file says about an encoder."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


def names_code(reference: str) -> bool:
    """Whether building what a reference names runs code of the user's: `file.py:make`, `package.module:make`."""
    return ":" in reference and not reference.startswith("timm:") and not reference.endswith(".safetensors")


class EncoderSpec(BaseModel):
    """Which encoder to build; `build.build` checks the values and turns them into an `Encoder`.

    The details that are None are taken from the weight file's card, or from what the architecture says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    reference: str = Field(
        description="one of the forms in `foretaste list`; a callable is the user's own code and is run, and nothing "
        "but this field can name one"
    )
    weights: Path | None = Field(
        default=None, description="checkpoint that replaces the weights; nothing in it is executed"
    )
    width: int | None = Field(default=None, description="width of resnet18-small; default: as in the weights, else 64")
    mean: tuple[float, float, float] | None = Field(
        default=None, description="three numbers r,g,b: mean of pixels in [0, 1]"
    )
    std: tuple[float, float, float] | None = Field(
        default=None, description="three numbers r,g,b: their standard deviation"
    )
    input_size: int | None = Field(
        default=None, description="side in pixels that images are resized to inside the encoder"
    )
