"""What an attack is given and what it gives back. Attacks never see test rows, and never judge themselves."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol

from pydantic import Field
from torch import Tensor

from foretaste.encoders.base import Encoder
from foretaste.errors import BudgetError, SpecError
from foretaste.images import Images
from foretaste.method import Method
from foretaste.record import Ledger
from foretaste.runtime import Runtime

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all); does nothing to the result."""


def quiet(done: int, total: int) -> None:
    """The default progress: say nothing."""


def part(progress: Progress, first: float, last: float) -> Progress:
    """A stage of longer work, as a progress of its own: it fills the share from `first` to `last`, in thousandths."""
    return lambda done, total: progress(round(1000 * (first + (last - first) * done / max(total, 1))), 1000)


def share_of(budget: float, n: int) -> int:
    """floor(budget * n) in exact arithmetic: 0.29 of 100 is 29, not 28 as binary floats give; 0 for no real share."""
    return int(Fraction(str(budget)) * n) if 0 < budget < float("inf") else 0


def poisoned_rows(budget: float, n: int) -> int:
    """floor(budget * n) rows, at least one.

    Raises:
        BudgetError: the budget is not a positive number, or leaves no row.
    """
    rows = share_of(budget, n)
    if rows < 1:
        raise BudgetError(
            f"budget: a share of the {n} training rows that gives at least one row",
            got=f"{budget:g}",
            do=f"pass at least {math.ceil(10_000 / max(n, 1)) / 10_000:g}",  # rounded up: it must do
        )
    return rows


class Evasion(Protocol):
    """A filter of training rows as an adaptive attack is given it: a differentiable stand-in for its score.

    It is made of the attacker's own clean rows alone; features are in the encoder's units. Attacks import no defence:
    whoever joins the two passes one, in `Knowledge`.
    """

    def among(self, z: Tensor, y: Tensor) -> Evasion:
        """The stand-in of the filter that finds rows z float [m, d] with labels y int64 [m] among the clean ones.

        The same object where what the filter learns from rows is, for the attacker, that of the clean rows.
        """
        ...

    def flagged(self, z: Tensor, y: Tensor) -> Tensor:
        """Which of rows z [m, d] with labels y [m] the filter itself would drop were they added, bool [m]."""
        ...

    def left(self, z: Tensor, y: Tensor, softness: float) -> tuple[Tensor, Tensor]:
        """How far each row is let through, [m] in (0, 1), and the gradient of each in its own row, [m, d].

        A half at the threshold; `softness` is the way to about 3/4, in units of what lies between the clean rows'
        median score and the threshold.
        """
        ...

    @property
    def threshold(self) -> float:
        """The score that the poison is to stay at or below: a quantile of the attacker's own clean rows' scores."""
        ...

    def score(self, z: Tensor, y: Tensor) -> Tensor:
        """How suspicious rows z float [m, d] with labels y int64 [m] are, [m], higher for more."""
        ...

    def penalty(self, z: Tensor, y: Tensor) -> tuple[float, Tensor]:
        """Mean excess of the scores over the threshold, and its gradient with respect to z, [m, d]."""
        ...

    def project(self, z: Tensor, y: Tensor) -> Tensor:
        """The nearest rows [m, d] at or below the threshold where that has a closed form; else z as it is."""
        ...


class Vote(Protocol):
    """A certified head as an adaptive attack is given it: the harm to its vote that added rows do, to follow uphill.

    It is made for a number m of rows, of what the attacker holds alone; features are in the encoder's units.
    """

    def damage(self, z: Tensor, y: Tensor, *, gradient: bool = True) -> tuple[float, Tensor | None]:
        """Smooth share in [0, 1] of the attacker's validation rows that the vote gets wrong when rows z float [m, d]
        with labels y int64 [m] are added, and its gradient with respect to z, [m, d].
        """
        ...

    def settled(self, z: Tensor, y: Tensor) -> Tensor:
        """The rows with each in the base learner that it is meant for, which takes a change of a hair."""
        ...


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What the attacker of the labelled data knows: the victim's rows, own validation rows, the encoder, the head.

    Attributes:
        z: float32 [n, d], clean features of the victim's training rows, in the encoder's own units.
        y: int64 [n].
        validation_z, validation_y: the attacker's own rows, [k, d] and [k]; never the referee's test rows.
        classes: C.
        ridge: L2 weight of the victim's head, see `heads.objective`.
        images: the victim's training images, aligned with `z`; None when features come from a file.
        encoder: None when features come from a file.
        runtime: where to compute.
        victim_rows: how many rows the victim trains on, where the attacker holds fewer or others of the same kind.
        evasion: the filter that the attack was told to reckon with (its field `against`).
        vote: the certified head likewise.
    """

    z: Tensor
    y: Tensor
    validation_z: Tensor
    validation_y: Tensor
    classes: int
    ridge: float
    runtime: Runtime
    images: Images | None = None
    encoder: Encoder | None = None
    victim_rows: int | None = None
    evasion: Evasion | None = None
    vote: Vote | None = None


@dataclass(frozen=True, eq=False)
class Poisoning:
    """Rows to add to the head's training data, or to put in the place of some of it.

    Attributes:
        y: int64 [m], the labels that the poison carries.
        z: float32 [m, d] when the attacker writes features; None when images are added.
        pixels: uint8 [m, 3, H, W] when the attacker writes images; None when features are added.
        base: int64 [m], the row of `Knowledge.z` (of the training set, where all of it is known) that each poison
            started from.
        constraint: name of the constraint that the attack promises to keep; the referee checks it.
        limits: numbers that complete it, e.g. {"epsilon": 8.0} (L-inf, in 1/255), {"reach": 0.5} (L-inf, in standard
            deviations of each feature) or {"quantile": 0.95}.
        ledger: what the attack did.
        replaces: poison j stands in the place of training row base[j], under that row's own label, and each row is
            replaced once; else the m rows are added.
    """

    y: Tensor
    base: Tensor
    ledger: Ledger
    z: Tensor | None = None
    pixels: Tensor | None = None
    constraint: str = "none"
    limits: dict[str, float] | None = None
    replaces: bool = False


@dataclass(frozen=True, eq=False)
class Corruption:
    """A poisoned encoder: a complete state dict with the keys of the encoder it came from, and the ledger."""

    state: dict[str, Tensor]
    ledger: Ledger


class LabelledAttack(Method):
    """An attack that adds labelled rows to the head's training data, or replaces some (threat `labelled`).

    Attributes:
        replaces: what every `Poisoning` of the attack says of itself.
    """

    replaces: ClassVar[bool] = False

    @abstractmethod
    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        """Make `rows` poisoned rows. The same arguments give the same bytes."""

    def planned(self, rows: int) -> tuple[int, float]:
        """About what `poison` costs: (images forward and backward through the encoder, fits of the head)."""
        return 0, 0.0

    @property
    def variant(self) -> str:
        """What distinguishes this use of the attack in a table, e.g. `features, box`."""
        return ""


def require_replaceable(attack: LabelledAttack | TargetedAttack, budget: float) -> None:
    """There are only so many rows to replace; adding has no such end.

    Raises:
        BudgetError: the attack replaces rows, and the budget is above 1.
    """
    if attack.replaces and budget > 1:
        raise BudgetError(
            f"budget: at most 1 for {attack.name}, which replaces training rows",
            got=f"{budget:g}",
            do="pass 1 for all of them",
        )


class TargetedAttack(Method):
    """An attack that adds labelled rows, or replaces some, so that one image gets one class (threat `targeted`).

    Attributes:
        replaces: what every `Poisoning` of the attack says of itself.
    """

    replaces: ClassVar[bool] = False

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

    def planned(self, rows: int) -> tuple[int, float]:
        """About what `poison_for` costs: (images forward and backward through the encoder, fits of the head)."""
        return 0, 0.0

    @property
    def variant(self) -> str:
        """What distinguishes this use of the attack in a table: every field that is not at its default."""
        return ", ".join(self.settings())


@dataclass(frozen=True, eq=False)
class PretrainingPoison:
    """Unlabelled images to add to the pre-training data.

    Attributes:
        pixels: uint8 [m, 3, H, W].
        pair: int64 [m], the place in `targets` of the pair that each image is for.
        ledger: what the attack did; `changed` is empty, `added` is m.
    """

    pixels: Tensor
    pair: Tensor
    ledger: Ledger


class PretrainingAttack(Method):
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

    @property
    def variant(self) -> str:
        """What distinguishes this use of the attack in a table: every field that is not at its default."""
        return ", ".join(self.settings())


class WeightAttack(Method):
    """An attack that edits the encoder's weights (threat `weights`)."""

    @abstractmethod
    def corrupt(
        self,
        encoder: Encoder,
        target: Tensor,
        references: Images,
        shadow: Images,
        seed: int,
        runtime: Runtime,
        progress: Progress = quiet,
    ) -> Corruption:
        """Edit a copy of the encoder so that `target` gets the class of `references` downstream.

        Args:
            encoder: the victim's; never changed.
            target: uint8 [3, H, W], the one chosen image.
            references: the attacker's images of the desired class (all of one label), at least one.
            shadow: images whose features must stay; their labels are not used.
            seed: of the named stream `attack`.
            runtime: where to compute.
            progress: called with (steps done, steps in all).
        """

    def corrupt_together(
        self,
        encoder: Encoder,
        targets: Sequence[Tensor],
        references: Sequence[Images],
        shadow: Images,
        seed: int,
        runtime: Runtime,
        progress: Progress = quiet,
    ) -> Corruption:
        """Edit one copy of the encoder so that each target gets the class of its own references.

        Args:
            encoder: the victim's; never changed.
            targets: uint8 [3, H, W] each, the chosen images.
            references: for each target the attacker's images of its desired class, at least one.
            shadow: images whose features must stay; their labels are not used.
            seed: of the named stream `attack`.
            runtime: where to compute.
            progress: called with (steps done, steps in all).

        Raises:
            SpecError: the attack is one of a single target.
        """
        raise SpecError(
            f"{self.name}: one target for each encoder",
            got=f"{len(targets)} together",
            do="edit one encoder for each, or use pacl",
        )

    def stamped(self, pixels: Tensor) -> Tensor | None:
        """The images uint8 [n, 3, H, W] with the attack's trigger on them, a new tensor; None: it has no trigger.

        With one, every such image is to get the class of the references, and the referee scores the test rows so.
        """
        return None

    @abstractmethod
    def planned(self, shadow: int) -> int:
        """About what `corrupt` costs with so many shadow images: images forward and backward through the encoder."""

    @property
    def variant(self) -> str:
        """What distinguishes this use of the attack in a table: every field that is not at its default."""
        return ", ".join(self.settings())


Attack = LabelledAttack | TargetedAttack | PretrainingAttack | WeightAttack
"""An attack of any threat."""
