"""Probes: what a victim trains on features, and is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretaste.plugins import resolve

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

GROUP = "foretaste.probes"
"""Entry points of packages that bring probes."""

BASES = ("foretaste.probes.base:Probe", "foretaste.probes.base:ImageProbe")
"""What a probe from outside extends."""


def find(name: str | type[Probe | ImageProbe]) -> type[Probe | ImageProbe]:
    """The class of a probe: by its name here or of an installed package, or as `file.py:Class`, `package:Class`.

    Raises:
        SpecError: there is no such probe (the message lists what there is), or it is not one.
    """
    places = {key: entry[0] for key, entry in PROBES.items()}
    found: type[Probe | ImageProbe] = resolve("probe", GROUP, name, places, BASES)
    return found


def configure(name: str | type[Probe | ImageProbe], fields: dict[str, Any]) -> Probe | ImageProbe:
    """A probe with the fields that a user typed; defaults for the rest.

    Raises:
        SpecError: no such probe, or a field is unknown or out of its range.
    """
    return find(name).configure(**fields)
