"""Probes: what a victim trains on features, and is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretaste.tables import look_up

if TYPE_CHECKING:
    from foretaste.probes.base import ImageProbe, Probe

PROBES: dict[str, tuple[str, str]] = {
    # name: (where it is, one line)
    "exact": (
        "foretaste.probes.exact:ExactProbe",
        "L2-regularised softmax regression solved to its optimum: the same head whatever the seed",
    ),
    "sgd": (
        "foretaste.probes.sgd:SGDProbe",
        "the linear probe of the papers: 100 epochs of momentum SGD with a cosine schedule",
    ),
    "knn": (
        "foretaste.probes.knn:KNNProbe",
        "majority of the k nearest training rows by cosine",
    ),
    "mlp": (
        "foretaste.probes.mlp:MLPProbe",
        "BadEncoder's downstream classifier: a ReLU network of 512 and 256 units on normalised features",
    ),
    "fine-tune": (
        "foretaste.probes.fine_tune:FineTuneProbe",
        "full fine-tuning of encoder and head on the training images; not the first, which is the headline",
    ),
}


def find(name: str) -> type[Probe | ImageProbe]:
    """The class of a probe.

    Raises:
        SpecError: there is no such probe; the message lists what there is.
    """
    found: type[Probe | ImageProbe] = look_up("probe", {key: entry[0] for key, entry in PROBES.items()}, name)
    return found


def configure(name: str, fields: dict[str, Any]) -> Probe | ImageProbe:
    """A probe with the fields that a user typed; defaults for the rest.

    Raises:
        SpecError: no such probe, or a field is unknown or out of its range.
    """
    return find(name).configure(**fields)
