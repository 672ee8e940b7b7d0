"""Defences as an adaptive attack may know them, by name: differentiable stand-ins for the scores of filters and for the
votes of certified heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretaste.errors import SpecError
from foretaste.tables import look_up

if TYPE_CHECKING:
    from foretaste.defences.base import Filter, TrainingRows
    from foretaste.defences.certified.base import CertifiedHead
    from foretaste.defences.evasions.base import Surrogate
    from foretaste.defences.evasions.votes import Own, VoteSurrogate

EVASIONS: dict[str, str] = {
    "sphere": "foretaste.defences.evasions.distances:SphereSurrogate",
    "slab": "foretaste.defences.evasions.distances:SlabSurrogate",
    "norm": "foretaste.defences.evasions.distances:NormSurrogate",
    "spectral": "foretaste.defences.evasions.distances:SpectralSurrogate",
    "knn": "foretaste.defences.evasions.neighbours:NeighboursSurrogate",
    "label-quality": "foretaste.defences.evasions.heads:LabelQualitySurrogate",
    "trimmed": "foretaste.defences.evasions.heads:TrimmedSurrogate",
    "influence": "foretaste.defences.evasions.heads:InfluenceSurrogate",
}
VOTES: dict[str, str] = {
    "dpa": "foretaste.defences.evasions.partitions:PartitionsSurrogate",
    "bagging": "foretaste.defences.evasions.bags:BagsSurrogate",
}


def require_surrogate(defence: Filter) -> None:
    """Raise SpecError for a filter that nobody can follow downhill: its score is counts or clusters."""
    if defence.name not in EVASIONS:
        raise SpecError(
            f"against: a filter with a differentiable stand-in, one of {', '.join(EVASIONS)}",
            got=f"{defence.name}, which has none",
            do="name another filter; the plain attack still shows what this one finds",
        )


def surrogate(defence: Filter, rows: TrainingRows, quantile: float = 0.95) -> Surrogate[Any]:
    """The stand-in of a filter, made of clean rows.

    Args:
        defence: the filter, with its fields.
        rows: clean rows that the attacker holds; its `clean_z` stand for the defender's.
        quantile: share of `rows` whose score is at most the stand-in's threshold.

    Raises:
        SpecError: the filter has none.
    """
    require_surrogate(defence)
    found: Surrogate[Any] = look_up("against", EVASIONS, defence.name)(defence, rows, quantile)
    return found


def vote_surrogate(head: CertifiedHead, own: Own) -> VoteSurrogate[Any]:
    """The stand-in of a certified head, made of what the attacker holds.

    Args:
        head: with its fields; `dpa` with a number of partitions.
        own: the attacker's rows, and how many it adds.

    Raises:
        SpecError: there is none for this head.
        DataError: `clean` standardisation without clean rows.
    """
    found: VoteSurrogate[Any] = look_up("against", VOTES, head.name)(head, own)
    return found
