"""Attacks, by what the attacker controls. Results of different threats never share a ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretaste.tables import look_up

if TYPE_CHECKING:
    from foretaste.attacks.base import LabelledAttack, WeightAttack

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
}


def find(name: str) -> type[LabelledAttack] | type[WeightAttack]:
    """The class of an attack.

    Raises:
        SpecError: there is no such attack; the message lists what there is.
    """
    found: type[LabelledAttack] | type[WeightAttack] = look_up(
        "attack", {key: entry[1] for key, entry in ATTACKS.items()}, name
    )
    return found


def configure(name: str, fields: dict[str, Any]) -> LabelledAttack | WeightAttack:
    """An attack with the fields that a user typed; defaults for the rest.

    Raises:
        SpecError: no such attack, or a field is unknown or out of its range.
    """
    return find(name).configure(**fields)
