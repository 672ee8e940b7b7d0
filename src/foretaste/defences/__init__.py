"""Defences that do not know the attack. They never import one: the ground truth must not leak to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretaste.tables import look_up

if TYPE_CHECKING:
    from foretaste.defences.base import Filter
    from foretaste.defences.certified.base import CertifiedHead

DEFENCES: dict[str, tuple[str, str, str]] = {
    # name: (kind, where it is, one line)
    "sphere": (
        "filter",
        "foretaste.defences.filters.sphere:Sphere",
        "distance of a row to the centroid of its label",
    ),
    "slab": (
        "filter",
        "foretaste.defences.filters.slab:Slab",
        "distance to the centroid of its label along the axes between centroids",
    ),
    "norm": (
        "filter",
        "foretaste.defences.filters.norm:Norm",
        "how far the norm of a row is from the median norm; does not see the label",
    ),
    "knn": (
        "filter",
        "foretaste.defences.filters.knn:DeepKNN",
        "deep k-NN: votes of the nearest rows against the label",
    ),
    "spectral": (
        "filter",
        "foretaste.defences.filters.spectral:Spectral",
        "spectral signatures: squared component along the top singular vector of the label's rows",
    ),
    "activation": (
        "filter",
        "foretaste.defences.filters.activation:Activation",
        "activation clustering: two clusters per label, the smaller one is suspicious",
    ),
    "isolation-forest": (
        "filter",
        "foretaste.defences.filters.isolation_forest:Forest",
        "how few random cuts separate a row from the others",
    ),
    "label-quality": (
        "filter",
        "foretaste.defences.filters.label_quality:LabelQuality",
        "how little a head that has not seen the row believes its label (confident learning's score)",
    ),
    "trimmed": (
        "filter",
        "foretaste.defences.filters.trimmed:Trimmed",
        "loss of a row under a head fitted, again and again, to the rows with the least loss",
    ),
    "influence": (
        "filter",
        "foretaste.defences.filters.influence:Influence",
        "what a row adds to the loss of the defender's own clean rows, by the head's inverse Hessian",
    ),
    "dpa": (
        "certified",
        "foretaste.defences.certified.dpa:DPA",
        "deep partition aggregation: a vote of heads on hash partitions, of which a row can move one",
    ),
    "bagging": (
        "certified",
        "foretaste.defences.certified.bagging:Bagging",
        "a vote of heads on few rows drawn with replacement",
    ),
}


def find(name: str) -> type[Filter] | type[CertifiedHead]:
    """The class of a defence.

    Raises:
        SpecError: there is no such defence; the message lists what there is.
    """
    found: type[Filter] | type[CertifiedHead] = look_up(
        "defence", {key: entry[1] for key, entry in DEFENCES.items()}, name
    )
    return found


def configure(name: str, fields: dict[str, Any]) -> Filter | CertifiedHead:
    """A defence with the fields that a user typed; defaults for the rest.

    Raises:
        SpecError: no such defence, or a field is unknown or out of its range.
    """
    return find(name).configure(**fields)
