"""What a guard of a deployed encoder learns from, and what it gives back: a score per input. It sets no threshold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from foretaste.encoders.base import Encoder
from foretaste.errors import DataError, EncoderError
from foretaste.features.embed import embed
from foretaste.heads.fit import LinearHead, fit_head
from foretaste.images import Images
from foretaste.method import Method
from foretaste.runtime import Runtime, digest_tensors


@dataclass(frozen=True, eq=False)
class GuardRows:
    """All that a guard may see before use: what is deployed, and the owner's clean labelled images.

    Attributes:
        encoder: the one in use, which may be poisoned; never changed.
        clean: the owner's own images; what is normal is learnt from them.
        runtime: where to compute.
        second: another encoder, of another origin, for the guards that compare two; of any width.
        head: the one in use; None: fitted to the clean images.
        ridge: L2 weight of that head, see `heads.objective`.
        seed: of the named stream `defence`.
        seen: features through `second`, by the digest of the images; give the same to all contexts with that encoder.

    Raises:
        DataError: no clean image.
    """

    encoder: Encoder
    clean: Images
    runtime: Runtime
    second: Encoder | None = None
    head: LinearHead | None = None
    ridge: float = 1e-3
    seed: int = 0
    seen: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.clean):
            raise DataError("guard: clean images of the owner's own", got="none", do="pass some that are not test rows")

    @cached_property
    def z(self) -> Tensor:
        """Features of the clean images, float32 [n, d]."""
        return self.features(self.clean.pixels)

    def features(self, pixels: Tensor) -> Tensor:
        """Features of images uint8 [n, 3, H, W] through the encoder in use, float32 [n, d]; once for all guards."""
        return self._once(self._own, self.encoder, pixels)

    def second_features(self, pixels: Tensor, name: str) -> Tensor:
        """The same through the second encoder, for the guard `name`, which cannot do without.

        Raises:
            EncoderError: there is none.
        """
        if self.second is None:
            raise EncoderError(
                f"{name}: a second encoder, of another origin", got="none", do="pass one, for instance a repaired one"
            )
        return self._once(self.seen, self.second, pixels)

    @cached_property
    def used_head(self) -> LinearHead:
        """The head in use, or one fitted to the clean images."""
        return self.head or fit_head(self.z, self.clean.labels, len(self.clean.classes), self.ridge)

    def enough(self, name: str, least: int) -> None:
        """Refuse too few clean images for the guard `name`.

        Raises:
            DataError: fewer than `least`.
        """
        if len(self.clean) < least:
            raise DataError(
                f"{name}: at least {least} clean images", got=str(len(self.clean)), do="pass more, or lower its fields"
            )

    @cached_property
    def _own(self) -> dict[str, Tensor]:
        return {}

    def _once(self, seen: dict[str, Tensor], encoder: Encoder, pixels: Tensor) -> Tensor:
        key = digest_tensors({"pixels": pixels})
        if key not in seen:
            seen[key] = embed(encoder, pixels, self.runtime)
        return seen[key]


class FittedGuard(ABC):
    """A guard that knows what is normal."""

    @abstractmethod
    def score(self, inputs: Tensor) -> Tensor:
        """How suspicious each input is: finite float64 [n] on the CPU, higher is more suspicious.

        Args:
            inputs: uint8 [n, 3, H, W] of the clean images' size; n may be 0.

        Raises:
            DataError: inputs of another shape or type.
        """


class Guard(Method):
    """A defence that scores inputs at use time, blind to the attack."""

    needs_second: ClassVar[bool] = False
    """Whether it compares with a second encoder."""

    def planned(self, inputs: int, clean: int) -> int:
        """About what fitting to clean images and scoring inputs costs, in images forward through an encoder."""
        return inputs + clean

    @abstractmethod
    def fit(self, context: GuardRows) -> FittedGuard:
        """Learn what is normal; the same context gives the same scores.

        Raises:
            DataError: too few clean images.
            EncoderError: a second encoder is needed and absent, or an encoder does not take the images.
        """


def check_inputs(inputs: Tensor, clean: Images) -> None:
    """Refuse inputs that are not like the clean images in type and size.

    Raises:
        DataError: as said.
    """
    wanted, found = list(clean.pixels.shape[1:]), list(inputs.shape[1:])
    if str(inputs.dtype) != "torch.uint8" or inputs.ndim != 4 or found != wanted:
        kind = str(inputs.dtype).removeprefix("torch.")
        raise DataError(f"guard: inputs uint8 [n, {', '.join(map(str, wanted))}]", got=f"{kind} {list(inputs.shape)}")
