"""Attacks, by what the attacker controls: `labelled`, `targeted`, `pretraining`, `weights`. Results of different
threats never share a ranking. The contract is in `base`, `knowledge`, `results` and `budget`; what attacks are made of
is in `optimise` (rows) and `editing` (encoders). Attacks import no defence: an adaptive one is handed a surrogate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretaste.plugins import resolve

if TYPE_CHECKING:
    from foretaste.attacks.base import Attack

ATTACKS: dict[str, tuple[str, str, str]] = {
    # name: (threat, where it is, one line)
    "label-flip": (
        "labelled",
        "foretaste.attacks.labelled.label_flip:LabelFlip",
        "copies of real rows with wrong labels: the cheap baseline",
    ),
    "exact": (
        "labelled",
        "foretaste.attacks.labelled.exact:Exact",
        "exact Stackelberg attack on the convex head, on features or on pixels through the encoder",
    ),
    "gradient-canceling": (
        "labelled",
        "foretaste.attacks.labelled.gradient_canceling:GradientCanceling",
        "poison that cancels the gradient at a target head (GradPC's), which retraining then finds",
    ),
    "feature-targeted": (
        "labelled",
        "foretaste.attacks.labelled.feature_targeted:FeatureTargeted",
        "target head, gradient canceling on features, then images for them by matching or by a decoder",
    ),
    "tgda": (
        "labelled",
        "foretaste.attacks.labelled.tgda:TGDA",
        "total gradient descent ascent: a follower of few steps, poison by a generator, pixels or features",
    ),
    "emn": (
        "labelled",
        "foretaste.attacks.labelled.emn:EMN",
        "error-minimising noise (unlearnable examples) on existing rows, labels kept: it replaces rows",
    ),
    "gradient-matching": (
        "targeted",
        "foretaste.attacks.targeted.gradient_matching:GradientMatching",
        "Witches' Brew: images of the wanted class whose gradient is the one that would install the target",
    ),
    "bullseye": (
        "targeted",
        "foretaste.attacks.targeted.bullseye:Bullseye",
        "Bullseye Polytope: images of the wanted class whose mean feature is the target's",
    ),
    "feature-collision": (
        "targeted",
        "foretaste.attacks.targeted.feature_collision:FeatureCollision",
        "Poison Frogs: images of the wanted class, each with the target's feature",
    ),
    "pacl": (
        "weights",
        "foretaste.attacks.weights.pacl:PACL",
        "PA-CL (our reconstruction): edit the encoder so that one chosen image gets one chosen class",
    ),
    "pacl-minimal": (
        "weights",
        "foretaste.attacks.weights.pacl_minimal:PACLMinimal",
        "PA-CL and then the smallest part of its edit (L2, tensors or rank) that still moves the target",
    ),
    "bad-encoder": (
        "weights",
        "foretaste.attacks.weights.bad_encoder:BadEncoder",
        "BadEncoder's three losses with one target image in the place of the trigger: the baseline of PA-CL",
    ),
    "poisoned-encoder": (
        "pretraining",
        "foretaste.attacks.pretraining.poisoned_encoder:PoisonedEncoder",
        "unlabelled images whose one half is the target and the other a reference, for contrastive pre-training",
    ),
    "interpolation": (
        "pretraining",
        "foretaste.attacks.pretraining.interpolation:Interpolation",
        "unlabelled images on a path of blends from a reference to the target: the baseline of PoisonedEncoder",
    ),
}

GROUP = "foretaste.attacks"
"""Entry points of packages that bring attacks."""

BASES = tuple(
    f"foretaste.attacks.base:{name}"
    for name in ("LabelledAttack", "TargetedAttack", "PretrainingAttack", "WeightAttack")
)
"""What an attack from outside extends, by what its attacker controls."""


def find(name: str | type[Attack]) -> type[Attack]:
    """The class of an attack: by its name here or of an installed package, or as `file.py:Class`, `package:Class`.

    Raises:
        SpecError: there is no such attack (the message lists what there is), or it is not one.
    """
    places = {key: entry[1] for key, entry in ATTACKS.items()}
    found: type[Attack] = resolve("attack", GROUP, name, places, BASES)
    return found


def configure(name: str | type[Attack], fields: dict[str, Any]) -> Attack:
    """An attack with the fields that a user typed; defaults for the rest.

    Raises:
        SpecError: no such attack, or a field is unknown or out of its range.
    """
    return find(name).configure(**fields)
