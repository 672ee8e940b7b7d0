"""`feature-targeted`: target head, poisoned features, and images for them: the three stages as one attack."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from foretaste.attacks.labelled.gradient_canceling import GradientCanceling


class FeatureTargeted(GradientCanceling):
    """The feature-targeted attack (Lu, Yang, Kamath, Yu, SaTML 2024, arXiv 2402.12626), all three stages.

    One: a target head by GradPC. Two: gradient canceling on features. Three, with carrier pixels: an inversion, which
    is where the attack loses its strength; the ledger says how near the images come to their features. Carrier
    features stops after stage two, the upper limit of what an inversion could deliver.
    """

    name: ClassVar[str] = "feature-targeted"
    inversion: Literal["matching", "decoder"] = Field(
        default="matching", description="carrier pixels: images by feature matching, or by a decoder"
    )
