"""Defences that do not know the attack. They never import one: the ground truth must not leak to them."""

from __future__ import annotations

from typing import Any

from foretaste.method import Method
from foretaste.plugins import resolve

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
    "fine-tune": (
        "repair",
        "foretaste.defences.repairs.fine_tune:FineTune",
        "train on with clean images, by SimCLR or with their labels",
    ),
    "distil": (
        "repair",
        "foretaste.defences.repairs.distil:Distil",
        "teach a fresh student the suspect's features of clean images",
    ),
    "clp": (
        "repair",
        "foretaste.defences.repairs.clp:CLP",
        "zero the channels with an outstanding Lipschitz constant; needs no data",
    ),
    "fine-prune": (
        "repair",
        "foretaste.defences.repairs.fine_prune:FinePrune",
        "zero the channels that clean images use least, then fine-tune",
    ),
    "average": (
        "repair",
        "foretaste.defences.repairs.average:Average",
        "mean of the weights and another checkpoint's; needs no data",
    ),
    "agreement": (
        "guard",
        "foretaste.defences.guards.agreement:Agreement",
        "how little a second encoder agrees on an input's neighbours among clean images",
    ),
    "views-vote": (
        "guard",
        "foretaste.defences.guards.views_vote:ViewsVote",
        "how far predictions of random crops and flips are from that of the plain input",
    ),
    "reconstruction": (
        "guard",
        "foretaste.defences.guards.reconstruction:Reconstruction",
        "how badly a decoder draws the input from its feature (after DeDe)",
    ),
}

GROUP = "foretaste.defences"
"""Entry points of packages that bring defences."""

BASES = {
    "filter": "foretaste.defences.base:Filter",
    "certified": "foretaste.defences.certified.base:CertifiedHead",
    "scan": "foretaste.defences.scans.base:Scan",
    "repair": "foretaste.defences.repairs.base:Repair",
    "guard": "foretaste.defences.guards.base:Guard",
}
"""What a defence from outside extends, by kind."""


def find(name: str | type[Method], *kinds: str) -> Any:
    """The class of a defence: a `Filter`, `CertifiedHead`, `Scan`, `Repair` or `Guard`, as its kind in the table says.

    Args:
        name: as in the table or of an installed package, or `file.py:Class`, `package.module:Class`.
        kinds: only a defence of one of these kinds will do; none: of any.

    Raises:
        SpecError: there is no such defence (the message lists what there is), or it is not one.
    """
    places = {key: place for key, (kind, place, _) in DEFENCES.items() if not kinds or kind in kinds}
    bases = [base for kind, base in BASES.items() if not kinds or kind in kinds]
    return resolve(" or ".join(kinds) or "defence", GROUP, name, places, bases, taken=DEFENCES)


def configure(name: str | type[Method], fields: dict[str, Any], *kinds: str) -> Any:
    """A defence with the fields that a user typed; defaults for the rest.

    Raises:
        SpecError: no such defence (of these kinds), or a field is unknown or out of its range.
    """
    return find(name, *kinds).configure(**fields)
