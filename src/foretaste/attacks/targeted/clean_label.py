"""Fields and steps that the clean-label attacks share: images of the wanted class, moved a little, labels true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from foretaste.attacks.base import TargetedAttack
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.bases import spread
from foretaste.attacks.optimise.carriers import PixelCarrier
from foretaste.attacks.optimise.inversion import Inversion, standard_features, told
from foretaste.attacks.optimise.projected_ascent import Ascent, Objective
from foretaste.attacks.optimise.requirements import require_own_rows
from foretaste.attacks.results import Poisoning, distinct
from foretaste.encoders.base import Encoder
from foretaste.errors import DataError, SpecError
from foretaste.heads.scaler import Scaler
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.runtime import stream


@dataclass(frozen=True, eq=False)
class Start:
    """Where a clean-label attack starts.

    Attributes:
        base: int64 [m], known rows of the wanted class.
        y: int64 [m], all of them the wanted class.
        scaler: of the known clean features.
        goal: float32 [1, d], the target's features in standard units.
        images: the known rows' images.
        carrier: at the base images.
        random: the attack's stream, as the choice of the bases left it.
    """

    base: Tensor
    y: Tensor
    scaler: Scaler
    goal: Tensor
    images: Images
    carrier: PixelCarrier
    random: torch.Generator


class CleanLabel(TargetedAttack):
    """Poison is images of the wanted class under their own label. Subclasses add an objective and `poison_for`."""

    epsilon: float | None = Field(
        default=8, ge=1, le=255, description="L-inf ball round the base image, in 1/255; none: anywhere in [0, 1]"
    )
    bases: Literal["random", "nearest"] = Field(
        default="random", description="images of the wanted class to start from: any, or those most like the target"
    )

    @property
    def variant(self) -> str:
        """Ball, whether it replaces rows, and every other field that is not at its default."""
        ball = "[0, 1]" if self.epsilon is None else f"{self.epsilon:g}/255"
        how = ["replaces rows"] if self.replaces else []
        return ", ".join([ball, *how, *self.settings("epsilon")])

    def start(self, known: Knowledge, target: Tensor, wanted: int, rows: int, seed: int) -> Start:
        """Base rows and their carrier; as many rows as the class has, at most, if the attack replaces them.

        Raises:
            SpecError: no images or no encoder, a target of another form than the images, or no such class.
            DataError: no known row is of the wanted class, or rows to replace are not the victim's.
        """
        images, encoder = self._require(known, target, wanted)
        own = (known.y == wanted).nonzero()[:, 0]
        if not len(own):
            raise DataError(
                f"{self.name}: known rows of the wanted class {wanted}, to start from",
                got="none",
                do="give the attacker rows of that class",
            )
        if self.replaces:
            require_own_rows(self.name, known)
        scaler, random = Scaler.of([known.z]), stream(seed, "attack")
        goal = standard_features(encoder, target[None], scaler, known.runtime)
        m = min(rows, len(own)) if self.replaces else rows
        if self.bases == "random":
            base = own[spread(len(own), m, random)]
        else:
            near = (scaler.apply(known.z[own]) - goal).norm(dim=1).argsort(stable=True)
            base = own[near[torch.arange(m) % len(own)]]
        carrier = PixelCarrier(images.pixels[base], encoder, scaler, self.epsilon, known.runtime)
        return Start(base, torch.full((m,), wanted), scaler, goal, images, carrier, random)

    def deliver(self, known: Knowledge, start: Start, end: Ascent, objective: Objective, name: str) -> Poisoning:
        """The poison with its ledger, from where the carrier's leaf ended; judged as the uint8 images that it is.

        The ledger's figure `delivered` is the objective of those; the other figures and the numbers per row are those
        of `inversion.told`, with the target's features as the goal.
        """
        carrier = start.carrier
        pixels = carrier.deliver()
        carrier.leaf = pixels.float() / 255
        x = carrier.features()
        m, goal = len(x), start.goal.expand(len(x), -1)
        figures = {"delivered": objective.evaluate(x, start.y, gradient=False).value}
        made = Inversion(pixels, start.base, (x - goal).norm(dim=1), carrier.passes + 1, figures)
        numbers, per_row = told(made, goal, start.scaler.apply(known.z), start.images.pixels)
        ledger = Ledger(
            changed=distinct(start.base),
            added=0 if self.replaces else m,
            replaced=m if self.replaces else 0,
            objective=end.curve,
            objective_name=name,
            better=objective.better,
            figures=numbers,
            per_row=per_row,
            passes=made.passes,
        )
        return Poisoning(
            y=start.y,
            base=start.base,
            ledger=ledger,
            pixels=pixels,
            constraint="pixels",
            limits={} if self.epsilon is None else {"epsilon": float(int(self.epsilon))},
            replaces=self.replaces,
        )

    def _require(self, known: Knowledge, target: Tensor, wanted: int) -> tuple[Images, Encoder]:
        """What the attack needs, asked before any work."""
        if known.images is None or known.encoder is None:
            raise SpecError(
                f"{self.name}: images and an encoder", got="features from a file", do="pass --data and --encoder"
            )
        form = tuple(known.images.pixels.shape[1:])
        if target.dtype != torch.uint8 or tuple(target.shape) != form:
            raise SpecError(
                f"{self.name}: a target uint8 {list(form)}, like the training images",
                got=f"{target.dtype} {list(target.shape)}",
            )
        if not 0 <= wanted < known.classes:
            raise SpecError(f"{self.name}: a wanted class in [0, {known.classes - 1}]", got=str(wanted))
        return known.images, known.encoder
