"""What a repair of an encoder is given and what it gives back: a new encoder. Whether it helped is the referee's."""

from __future__ import annotations

import copy
from abc import abstractmethod
from pathlib import Path

from torch import nn

from foretaste.encoders.base import Encoder
from foretaste.errors import DataError
from foretaste.images import Images
from foretaste.method import Method
from foretaste.pretrain.simclr import Progress, quiet
from foretaste.runtime import Runtime


class Repair(Method):
    """A defence that makes a new encoder from a suspect one, blind to the attack."""

    @property
    def least(self) -> int:
        """The clean-data budget: the fewest clean images that it works with; 0: it looks at none."""
        return 0

    @property
    def supervised(self) -> bool:
        """Whether it reads the labels of the clean images."""
        return False

    @property
    def reads(self) -> Path | None:
        """A file of weights that it reads beside the suspect's, whose content an audit's trials depend on."""
        return None

    def planned(self, clean: int) -> int:
        """About what `mend` costs with so many clean images, in images forward through the encoder."""
        return 0

    @abstractmethod
    def mend(self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: Progress = quiet) -> Encoder:
        """A new encoder in eval mode; the same arguments give the same bytes on one kind of CPU.

        Args:
            encoder: the suspect; stays as it is.
            clean: the owner's own images, known to be clean; never test images. Where `least` is 0 there may be none.
            seed: of everything that is drawn.
            runtime: where to compute.
            progress: called after each step with (steps done, steps in all, loss).

        Returns:
            The repaired encoder. Its card is the given one's, with a line about the repair added to `source` and the
            digest of the new weights.

        Raises:
            DataError: fewer clean images than `least`.
            EncoderError: the encoder has not the parts that the repair works on, or a training diverged.
        """

    def check(self, clean: Images) -> None:
        """Refuse too few clean images before any work.

        Raises:
            DataError: fewer than `least`.
        """
        if len(clean) < self.least:
            raise DataError(
                f"{self.name}: at least {self.least} clean images of the owner's own",
                got=f"{len(clean)} in {clean.name}",
                do="pass more clean images" + (", or a smaller batch" if "batch" in type(self).model_fields else ""),
            )

    def settled(self, encoder: Encoder, body: nn.Module, told: str) -> Encoder:
        """The repaired encoder: `body` behind the suspect's normalisation, and on its card what was done."""
        fields = self.model_dump(exclude_defaults=True).items()
        # A file by its name alone: the card travels, folders of this machine do not.
        said = ", ".join(f"{key}={value.name if isinstance(value, Path) else value}" for key, value in fields)
        line = f"then {self.name}{f' ({said})' if said else ''}: {told}"
        source = f"{encoder.card.source}; {line}" if encoder.card.source else line
        card = encoder.card.model_copy(update={"source": source, "command": ""})
        return Encoder(body.cpu(), card)


def own_body(encoder: Encoder) -> nn.Module:
    """A copy of the suspect's network on the CPU, which a repair may change."""
    return copy.deepcopy(encoder.body).cpu()


def described(clean: Images) -> str:
    """The clean images as a card names them."""
    return f"{len(clean)} clean images of {clean.name} (sha256 {clean.digest[:12]})"
