"""What a scan of an encoder is given and what it gives back: a score, and the evidence behind it. No threshold.

A score means something only beside the scores of clean encoders: `statistics.false_alarm_rate` turns it into a rate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from foretaste.encoders.base import Encoder
from foretaste.errors import DataError
from foretaste.features.cache import FeatureCache, cached_embed
from foretaste.heads.scaler import Scaler
from foretaste.images import Images
from foretaste.method import Method
from foretaste.runtime import Runtime

Need = Literal["data", "reference", "other"]
Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all); does nothing to the result."""


def quiet(done: int, total: int) -> None:
    """The default progress: say nothing."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What is at hand beside the encoder that is scanned; the same for the suspect and for every clean encoder.

    Attributes:
        runtime: where to compute.
        images: the user's own images with their labels, n rows; None: there are none.
        reference: the original that the suspect should be, of the same architecture; None: not at hand.
        other: an independent encoder of any architecture; None: not at hand.
        cache: keeps features, so that each encoder embeds the images once for all scans.
        evidence: whether anyone reads more than scores; a scan may save the work where nobody does.
    """

    runtime: Runtime
    images: Images | None = None
    reference: Encoder | None = None
    other: Encoder | None = None
    cache: FeatureCache | None = None
    evidence: bool = True

    def require_images(self, name: str) -> Images:
        """The images, for the scan `name`.

        Raises:
            DataError: there are none.
        """
        if self.images is None:
            raise DataError(f"{name}: images", got="none", do="pass --data")
        return self.images

    def require(self, name: str, part: Literal["reference", "other"]) -> Encoder:
        """The reference or the other encoder, for the scan `name`.

        Raises:
            DataError: there is none.
        """
        found: Encoder | None = getattr(self, part)
        if found is None:
            raise DataError(f"{name}: an encoder as `{part}`", got="none", do=f"pass --{part}")
        return found

    def features(self, encoder: Encoder, name: str) -> Tensor:
        """Features of the images, float32 [n, d] on the CPU."""
        return cached_embed(encoder, self.require_images(name), self.runtime, self.cache)


@dataclass(frozen=True, eq=False)
class Finding:
    """What a scan saw in one encoder.

    Attributes:
        score: finite, higher is more suspicious; comparable between encoders under the same scan, scene and seed.
        inputs: float64 [n], a score per image, higher is more suspicious; None where the scan has none.
        evidence: JSON values for the reader: what changed, which inputs, what the score is made of.
        statistics: named values that `Scan.compare` looks at across encoders; mostly none.
        towards: int64 [n], the class that each image went to; None where the scan does not say.
    """

    score: float
    inputs: Tensor | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, float] = field(default_factory=dict)
    towards: Tensor | None = None


class Scan(Method):
    """A defence that looks at an encoder, blind to the attack. It changes no encoder."""

    needs: ClassVar[tuple[Need, ...]] = ("data",)
    scores_inputs: ClassVar[bool] = False
    """Whether `Finding.inputs` is there."""

    def planned(self, images: int) -> int:
        """About what one encoder costs, in images forward through it."""
        return images if "data" in self.needs else 0

    @abstractmethod
    def scan(self, encoder: Encoder, scene: Scene, seed: int = 0, progress: Progress = quiet) -> Finding:
        """Look at one encoder. The same arguments give the same bytes.

        Args:
            encoder: the suspect, or a clean encoder of the null; stays as it is.
            scene: what is at hand beside it.
            seed: of the named stream `defence`, for the scans that draw.
            progress: called after each step of the scans that take long.

        Raises:
            DataError: the scene lacks what the scan needs.
        """

    def compare(self, pool: Sequence[Finding]) -> list[Finding]:
        """The findings of the suspect and of the clean encoders, with the scores they have beside each other.

        Here: as they are. A scan that scores an encoder against the others must look at each as at any other: only
        then are they exchangeable if the suspect is clean, and the false-alarm rate right.
        """
        return list(pool)


def standardised(z: Tensor) -> Tensor:
    """Features [n, d] in their own standard units, float64."""
    return Scaler.of([z]).apply(z.double())


def prominence(values: Tensor, floor: float) -> float:
    """How far the largest of values [n] stands above the median, in robust standard deviations (1.4826 MAD).

    Args:
        values: finite, float [n].
        floor: least standard deviation: differences below it are rounding.
    """
    centre = values.median()
    spread = 1.4826 * (values - centre).abs().median()
    return float((values.max() - centre) / spread.clamp(min=floor))
