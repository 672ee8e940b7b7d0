"""What an attack is given: knowledge of the victim's rows, or the problem of editing an encoder. Never test rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from foretaste.attacks.surrogates import FilterSurrogate, VoteSurrogate
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.images import Images
from foretaste.runtime import Runtime


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What the attacker knows: the victim's rows, own validation rows, the encoder, the head.

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
        filter_surrogate: of the filter that the attack was told to reckon with (its field `against`).
        vote_surrogate: of the certified head likewise.
        validation_images: the attacker's own images, aligned with `validation_z`; None likewise.
        pool: clean pre-training images, where an attack may add to them.
        shadow: images whose features attacks on the weights keep; None: those of `validation_images`.
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
    filter_surrogate: FilterSurrogate | None = None
    vote_surrogate: VoteSurrogate | None = None
    validation_images: Images | None = None
    pool: Images | None = None
    shadow: Images | None = None

    @property
    def kept(self) -> Images | None:
        """Images whose features attacks on the weights keep; None where the attacker has no images."""
        return self.validation_images if self.shadow is None else self.shadow


@dataclass(frozen=True, eq=False)
class EditProblem:
    """What an attack on the weights is given.

    Attributes:
        encoder: the victim's, never changed.
        targets: uint8 [3, H, W] each, the chosen images, at least one.
        references: for each target the attacker's images of the class that it shall get (all of one label), at least
            one.
        shadow: images whose features must stay; their labels are not used.
        seed: of the named stream `attack`.
        runtime: where to compute.

    Raises:
        SpecError: no target, or not as many sets of references as targets.
    """

    encoder: Encoder
    targets: tuple[Tensor, ...]
    references: tuple[Images, ...]
    shadow: Images
    seed: int
    runtime: Runtime

    def __post_init__(self) -> None:
        if not self.targets or len(self.targets) != len(self.references):
            raise SpecError(
                "targets and references: one set of references for each target, at least one",
                got=f"{len(self.targets)} targets and {len(self.references)} sets",
            )

    def single(self, name: str) -> tuple[Tensor, Images]:
        """The one target and its references, for the attack of that name, which edits for no more.

        Raises:
            SpecError: there are several targets.
        """
        if len(self.targets) > 1:
            raise SpecError(
                f"{name}: one target for each encoder",
                got=f"{len(self.targets)} together",
                do="edit one encoder for each, or use pacl",
            )
        return self.targets[0], self.references[0]
