"""Defences that do not know the attack. They never import one: the ground truth must not leak to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretaste.tables import look_up

if TYPE_CHECKING:
    from foretaste.defences.base import Filter
    from foretaste.defences.scans.base import Scan

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
    "drift": (
        "scan",
        "foretaste.defences.scans.drift:Drift",
        "against the original: changed tensors, CKA per block, the images that moved to another class",
    ),
    "decree": (
        "scan",
        "foretaste.defences.scans.decree:Decree",
        "DECREE: the smallest patch that makes all images look alike to the encoder",
    ),
    "neighbours": (
        "scan",
        "foretaste.defences.scans.neighbours:Neighbours",
        "images whose nearest neighbours are not those under an independent encoder",
    ),
    "weight-statistics": (
        "scan",
        "foretaste.defences.scans.weight_statistics:WeightStatistics",
        "norms, largest entries, kurtosis and spectral norms of the tensors, against clean encoders",
    ),
}


def find(name: str) -> type[Filter] | type[Scan]:
    """The class of a defence.

    Raises:
        SpecError: there is no such defence; the message lists what there is.
    """
    found: type[Filter] | type[Scan] = look_up("defence", {key: entry[1] for key, entry in DEFENCES.items()}, name)
    return found


def configure(name: str, fields: dict[str, Any]) -> Filter:
    """A filter with the fields that a user typed; defaults for the rest.

    Raises:
        SpecError: no such filter, or a field is unknown or out of its range.
    """
    found: type[Filter] = look_up("defence", _places("filter"), name)
    return found.configure(**fields)


def configure_scan(name: str, fields: dict[str, Any]) -> Scan:
    """A scan with the fields that a user typed; defaults for the rest.

    Raises:
        SpecError: no such scan, or a field is unknown or out of its range.
    """
    found: type[Scan] = look_up("scan", _places("scan"), name)
    return found.configure(**fields)


def _places(kind: str) -> dict[str, str]:
    return {name: place for name, (found, place, _) in DEFENCES.items() if found == kind}
