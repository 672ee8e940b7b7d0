"""Weight averaging: the suspect and another encoder of the same origin, halfway between their weights.

Model soups (Wortsman et al., ICML 2022, arXiv 2203.05482) average fine-tunes of one start, which lie in one basin of
the loss. What only one of them has, such as an edit for a single image, is scaled down. It looks at no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.defences.repairs.base import Repair, own_body
from foretaste.encoders.base import Encoder
from foretaste.encoders.keys import fit_keys
from foretaste.encoders.weights import read_state_dict
from foretaste.errors import SpecError
from foretaste.images import Images
from foretaste.pretrain.simclr import Progress, quiet
from foretaste.runtime import Runtime


class Average(Repair):
    """The mean of the encoder's weights and another checkpoint's; both must stem from one pre-training."""

    name: ClassVar[str] = "average"
    with_weights: Path | None = Field(
        default=None, description="the other checkpoint, of the same architecture; nothing in it is executed"
    )
    share: float = Field(default=0.5, ge=0, le=1, description="weight of the other checkpoint; 0: the suspect alone")

    @property
    def reads(self) -> Path | None:
        """The other checkpoint."""
        return None if self.with_weights is None else self.with_weights.expanduser()

    def check(self, clean: Images) -> None:
        """Refuse to begin without another checkpoint.

        Raises:
            SpecError: `with_weights` is not given.
        """
        if self.with_weights is None:
            raise SpecError(
                f"{self.name}: another checkpoint of the same architecture", got="none", do="pass --with-weights FILE"
            )

    def mend(self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: Progress = quiet) -> Encoder:
        """Average with `with_weights`; `clean` and `seed` are not used. See `Repair.mend`.

        Raises:
            SpecError: `with_weights` is not given.
            WeightsError: it cannot be read safely, or is of another architecture.
        """
        self.check(clean)
        assert self.reads is not None
        return self.mend_with(encoder, read_state_dict(self.reads).tensors, self.reads.name)

    def mend_with(self, encoder: Encoder, other: Encoder | Mapping[str, Tensor], name: str = "") -> Encoder:
        """Average with an encoder, or with a checkpoint's tensors, in memory.

        Args:
            encoder: the suspect; stays as it is.
            other: of the same architecture; stays as it is.
            name: of the other, for the card and for messages; default: an encoder's own.

        Raises:
            WeightsError: keys or shapes are not the suspect's.
        """
        if isinstance(other, Encoder):
            name, other = name or other.card.name, other.body.state_dict()
        body = own_body(encoder)
        state = body.state_dict()
        fitted, _ = fit_keys({key: tensor.cpu() for key, tensor in other.items()}, state, f"{self.name}: {name}")
        body.load_state_dict({key: self._mean(own, fitted[key]) for key, own in state.items()})
        return self.settled(
            encoder, body, f"{self.share:g} of {name or 'another encoder'} in every tensor, without data"
        )

    def _mean(self, own: Tensor, other: Tensor) -> Tensor:
        """The weighted mean, rounded once to the tensor's type; counters stay the suspect's."""
        if not own.is_floating_point():
            return own
        return torch.lerp(own.double(), other.double(), self.share).to(own.dtype)
