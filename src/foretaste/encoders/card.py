"""The card of an encoder: what it is, what it expects and where it came from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Card(BaseModel):
    """Facts that travel with an encoder, in its file's metadata and in every record.

    Attributes:
        name: short name for tables.
        architecture: what builds the network: `resnet18-small`, `timm:NAME`, `package.module:callable` or
            `file.py:callable`.
        options: what the architecture needs besides its name, e.g. {"width": 16}.
        d: features per image.
        input_size: side in pixels that images are resized to inside the encoder; None: as they come.
        mean, std: per channel, of pixels in [0, 1]; None: the network normalises by itself.
        source: training data, method, or where the weights are from.
        licence: of the weights.
        command: makes the weights again, where known.
        sha256: of the state dict (`runtime.digest_tensors`); empty until the encoder is built.
        dropped_keys: keys of the checkpoint that the encoder does not use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    architecture: str
    options: dict[str, int] = {}
    d: int
    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    source: str = ""
    licence: str = ""
    command: str = ""
    sha256: str = ""
    dropped_keys: tuple[str, ...] = ()
