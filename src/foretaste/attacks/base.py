"""The four kinds of attack, by what the attacker controls: base classes of our own attacks and of everybody else's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from foretaste.attacks.knowledge import EditProblem, Knowledge
from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.attacks.surrogates import EncoderSurrogate
from foretaste.errors import SpecError
from foretaste.images import Images
from foretaste.method import Method

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all); does nothing to the result."""


def quiet(done: int, total: int) -> None:
    """The default progress: say nothing."""


def part(progress: Progress, first: float, last: float) -> Progress:
    """A stage of longer work, as a progress of its own: it fills the share from `first` to `last`, in thousandths."""
    return lambda done, total: progress(round(1000 * (first + (last - first) * done / max(total, 1))), 1000)


class Attack(Method):
    """An attack of any threat."""

    @property
    def variant(self) -> str:
        """What distinguishes this use of the attack in a table: every field that is not at its default."""
        return ", ".join(self.settings())


class RowAttack(Attack):
    """An attack that adds labelled rows to the head's training data, or replaces some.

    Attributes:
        replaces: what every `Poisoning` of the attack says of itself.
    """

    replaces: ClassVar[bool] = False

    def planned(self, rows: int) -> tuple[int, float]:
        """About what so many rows cost: (images forward and backward through the encoder, fits of the head)."""
        return 0, 0.0


class LabelledAttack(RowAttack):
    """An attack on the accuracy through labelled rows (threat `labelled`).

    Some fields, or class attributes, are read by others than the attack:

    - `carrier`: `features` or `pixels`, what it delivers. Without it an attack is taken to work on features, and may
      deliver images where `known.images` is there; one that cannot do without says
      `carrier: ClassVar[str] = "pixels"`.

    The referee holds an attack to what its fields promise, if it has them, and asks nothing of an attack that has
    none of them but what its result claims. The result has to name the same:

    - `epsilon`: a number, L-inf in grey levels of 255, of images: `limits={"epsilon": self.epsilon}`, or less.
    - `constraint`: of features: `constraint=self.constraint`. `none`, `box` or `ball`.
    - `quantile`: of the ball: `limits={"quantile": self.quantile}`, or less.
    - `reach`: L-inf in standard deviations, within the box: `limits={"reach": self.reach}`, or less.
    """

    @abstractmethod
    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        """Make `rows` poisoned rows. The same arguments give the same bytes.

        Args:
            known: what the attacker knows; copies, never test rows.
            rows: at least one.
            seed: of the named stream `attack`.
            progress: called with (steps done, steps in all).
        """

    @property
    def variant(self) -> str:
        """What distinguishes this use of the attack in a table, e.g. `features, box`."""
        return ""


class TargetedAttack(RowAttack):
    """An attack through labelled rows, so that one image gets one class (threat `targeted`)."""

    @abstractmethod
    def poison_for(
        self, known: Knowledge, target: Tensor, wanted: int, rows: int, seed: int, progress: Progress = quiet
    ) -> Poisoning:
        """Make at most `rows` poisoned images that carry the label `wanted`. The same arguments give the same bytes.

        Args:
            known: as for attacks on the accuracy; images and encoder are there.
            target: uint8 [3, H, W], the one chosen image, never among the rows.
            wanted: the class it is to get, in [0, C).
            rows: at least one.
            seed: of the named stream `attack`.
            progress: called with (steps done, steps in all).
        """


class PretrainingAttack(Attack):
    """An attack that adds unlabelled images to the encoder's pre-training data (threat `pretraining`).

    Attributes:
        together: pairs of a target and a class that share one poisoned pre-training run.
    """

    together: int = Field(10, ge=1, description="(target, class) pairs that share one poisoned pre-training run")

    @abstractmethod
    def poison(
        self, targets: Sequence[Tensor], references: Sequence[Images], pool: Images, rows: int, seed: int
    ) -> PretrainingPoison:
        """Make at most `rows` images in all, shared evenly among the pairs. The same arguments give the same bytes.

        Args:
            targets: uint8 [3, H, W] each, the chosen images.
            references: for each target the attacker's images of the desired class, at least one.
            pool: the clean pre-training images, whose size and form the poison has; labels are not used.
            rows: at least one per pair.
            seed: of the named stream `attack`.
        """


class WeightAttack(Attack):
    """An attack that edits the encoder's weights (threat `weights`)."""

    @abstractmethod
    def corrupt(
        self, problem: EditProblem, surrogate: EncoderSurrogate | None = None, progress: Progress = quiet
    ) -> Corruption:
        """Edit one copy of the encoder so that each target gets the class of its own references downstream.

        The same arguments give the same bytes.

        Args:
            problem: the encoder, the targets with their references, and the images whose features must stay.
            surrogate: of the defence that the attack reckons with; None: of none.
            progress: called with (steps done, steps in all).

        Raises:
            SpecError: several targets, or a surrogate, for an attack that edits for one, or takes none (see
                `EditProblem.single` and `takes_no_surrogate`).
            AttackError: the edit failed.
        """

    def takes_no_surrogate(self, surrogate: EncoderSurrogate | None) -> None:
        """For attacks that reckon with no defence of the encoder.

        Raises:
            SpecError: there is a surrogate of one.
        """
        if surrogate is not None:
            raise SpecError(
                f"{self.name}: no defence of the encoder, which it cannot reckon with",
                got=f"{type(surrogate).__name__}",
                do="use pacl",
            )

    def stamped(self, pixels: Tensor) -> Tensor | None:
        """The images uint8 [n, 3, H, W] with the attack's trigger on them, a new tensor; None: it has no trigger.

        With one, every such image is to get the class of the references, and the referee scores the test rows so.
        """
        return None

    def planned(self, shadow: int, surrogate: EncoderSurrogate | None = None) -> int:
        """About what `corrupt` costs with so many shadow images: images forward and backward through the encoder."""
        return 0
