"""Defences that do not know the attack, by what they look at: `filters` and `certified` (rows), `scans`, `repairs` and
`guards` (encoders). They never import an attack: the ground truth must not leak to them. `surrogates` is what an
adaptive attack is given of them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from foretaste.method import Method
from foretaste.plugins import resolve

Kind = Literal["filter", "certified", "scan", "repair", "guard"]


class Entry(NamedTuple):
    """A row of the table.

    Attributes:
        kind: what the defence looks at, which says who runs it.
        place: `package.module:Class` of the defence.
        surrogate: of what an adaptive attack is given of it; None: there is none.
        line: what it does.
    """

    kind: Kind
    place: str
    surrogate: str | None
    line: str


DEFENCES: dict[str, Entry] = {
    "sphere": Entry(
        "filter",
        "foretaste.defences.filters.sphere:Sphere",
        "foretaste.defences.surrogates.distances:SphereSurrogate",
        "distance of a row to the centroid of its label",
    ),
    "slab": Entry(
        "filter",
        "foretaste.defences.filters.slab:Slab",
        "foretaste.defences.surrogates.distances:SlabSurrogate",
        "distance to the centroid of its label along the axes between centroids",
    ),
    "norm": Entry(
        "filter",
        "foretaste.defences.filters.norm:Norm",
        "foretaste.defences.surrogates.distances:NormSurrogate",
        "how far the norm of a row is from the median norm; does not see the label",
    ),
    "knn": Entry(
        "filter",
        "foretaste.defences.filters.knn:DeepKNN",
        "foretaste.defences.surrogates.nearest_rows:NeighboursSurrogate",
        "deep k-NN: votes of the nearest rows against the label",
    ),
    "spectral": Entry(
        "filter",
        "foretaste.defences.filters.spectral:Spectral",
        "foretaste.defences.surrogates.distances:SpectralSurrogate",
        "spectral signatures: squared component along the top singular vector of the label's rows",
    ),
    "activation": Entry(
        "filter",
        "foretaste.defences.filters.activation:Activation",
        None,
        "activation clustering: two clusters per label, the smaller one is suspicious",
    ),
    "isolation-forest": Entry(
        "filter",
        "foretaste.defences.filters.isolation_forest:Forest",
        None,
        "how few random cuts separate a row from the others",
    ),
    "label-quality": Entry(
        "filter",
        "foretaste.defences.filters.label_quality:LabelQuality",
        "foretaste.defences.surrogates.heads:LabelQualitySurrogate",
        "how little a head that has not seen the row believes its label (confident learning's score)",
    ),
    "trimmed": Entry(
        "filter",
        "foretaste.defences.filters.trimmed:Trimmed",
        "foretaste.defences.surrogates.heads:TrimmedSurrogate",
        "loss of a row under a head fitted, again and again, to the rows with the least loss",
    ),
    "influence": Entry(
        "filter",
        "foretaste.defences.filters.influence:Influence",
        "foretaste.defences.surrogates.heads:InfluenceSurrogate",
        "what a row adds to the loss of the defender's own clean rows, by the head's inverse Hessian",
    ),
    "dpa": Entry(
        "certified",
        "foretaste.defences.certified.dpa:DPA",
        "foretaste.defences.surrogates.partitions:PartitionsSurrogate",
        "deep partition aggregation: a vote of heads on hash partitions, of which a row can move one",
    ),
    "bagging": Entry(
        "certified",
        "foretaste.defences.certified.bagging:Bagging",
        "foretaste.defences.surrogates.bags:BagsSurrogate",
        "a vote of heads on few rows drawn with replacement",
    ),
    "drift": Entry(
        "scan",
        "foretaste.defences.scans.drift:Drift",
        "foretaste.defences.surrogates.drift:Drifting",
        "against the original: changed tensors, CKA per block, the images that moved to another class",
    ),
    "decree": Entry(
        "scan",
        "foretaste.defences.scans.decree:Decree",
        None,
        "DECREE: the smallest patch that makes all images look alike to the encoder",
    ),
    "neighbours": Entry(
        "scan",
        "foretaste.defences.scans.neighbours:Neighbours",
        "foretaste.defences.surrogates.neighbourhoods:KeptNeighbours",
        "images whose nearest neighbours are not those under an independent encoder",
    ),
    "weight-statistics": Entry(
        "scan",
        "foretaste.defences.scans.weight_statistics:WeightStatistics",
        "foretaste.defences.surrogates.weight_statistics:KeptStatistics",
        "norms, largest entries, kurtosis and spectral norms of the tensors, against clean encoders",
    ),
    "fine-tune": Entry(
        "repair",
        "foretaste.defences.repairs.fine_tune:FineTune",
        "foretaste.defences.surrogates.fine_tune:FineTuning",
        "train on with clean images, by SimCLR or with their labels",
    ),
    "distil": Entry(
        "repair",
        "foretaste.defences.repairs.distil:Distil",
        "foretaste.defences.surrogates.distil:Distilling",
        "teach a fresh student the suspect's features of clean images",
    ),
    "clp": Entry(
        "repair",
        "foretaste.defences.repairs.clp:CLP",
        "foretaste.defences.surrogates.pruning:LipschitzPruning",
        "zero the channels with an outstanding Lipschitz constant; needs no data",
    ),
    "fine-prune": Entry(
        "repair",
        "foretaste.defences.repairs.fine_prune:FinePrune",
        "foretaste.defences.surrogates.pruning:IdlePruning",
        "zero the channels that clean images use least, then fine-tune",
    ),
    "average": Entry(
        "repair",
        "foretaste.defences.repairs.average:Average",
        "foretaste.defences.surrogates.average:Averaging",
        "mean of the weights and another checkpoint's; needs no data",
    ),
    "agreement": Entry(
        "guard",
        "foretaste.defences.guards.agreement:Agreement",
        "foretaste.defences.surrogates.neighbourhoods:Agreeing",
        "how little a second encoder agrees on an input's neighbours among clean images",
    ),
    "views-vote": Entry(
        "guard",
        "foretaste.defences.guards.views_vote:ViewsVote",
        "foretaste.defences.surrogates.views_vote:Voting",
        "how far predictions of random crops and flips are from that of the plain input",
    ),
    "reconstruction": Entry(
        "guard",
        "foretaste.defences.guards.reconstruction:Reconstruction",
        None,
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
    places = {key: entry.place for key, entry in DEFENCES.items() if not kinds or entry.kind in kinds}
    bases = [base for kind, base in BASES.items() if not kinds or kind in kinds]
    return resolve(" or ".join(kinds) or "defence", GROUP, name, places, bases, taken=DEFENCES)


def configure(name: str | type[Method], fields: dict[str, Any], *kinds: str) -> Any:
    """A defence with the fields that a user typed; defaults for the rest.

    Raises:
        SpecError: no such defence (of these kinds), or a field is unknown or out of its range.
    """
    return find(name, *kinds).configure(**fields)
