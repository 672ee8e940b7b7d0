"""`label-flip`: copies of real training rows with wrong labels, the cheap baseline that every attack must beat."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from foretaste.attacks.base import LabelledAttack, Progress, quiet
from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.bases import spread, wrong_labels
from foretaste.attacks.results import Poisoning
from foretaste.heads.fit import fit_head
from foretaste.runtime import stream


class LabelFlip(LabelledAttack):
    """Add copies of real rows under a wrong label (Biggio, Nelson, Laskov, ACML 2011, in its additive form)."""

    name: ClassVar[str] = "label-flip"
    labels: Literal["random", "least-likely"] = Field(
        default="random", description="any wrong label, or the one that the clean head thinks least likely"
    )

    @property
    def variant(self) -> str:
        """How the labels are chosen, unless by default."""
        return "" if self.labels == "random" else self.labels

    def poison(self, known: Knowledge, rows: int, seed: int, progress: Progress = quiet) -> Poisoning:
        """Draw rows and flip their labels; see `LabelledAttack.poison`."""
        random = stream(seed, "attack")
        base = spread(len(known.y), rows, random)
        y = wrong_labels(known.y[base], known.classes, random)
        if self.labels == "least-likely":
            scores = fit_head(known.z, known.y, known.classes, known.ridge).logits(known.z[base])
            scores[torch.arange(rows), known.y[base]] = torch.inf
            y = scores.argmin(1)
        progress(1, 1)
        if known.images is not None:
            return Poisoning(y=y, base=base, pixels=known.images.pixels[base], constraint="pixels")
        return Poisoning(y=y, base=base, z=known.z[base], constraint="box")
