"""Defences as an adaptive attack may know them, in three families: differentiable stand-ins for the scores of filters
(`filters`) and for the votes of certified heads (`votes`), and defences of an encoder played through (`encoders`). All
are made of what the attacker holds. Which defence has which is in the table `DEFENCES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretaste.defences import DEFENCES
from foretaste.errors import SpecError
from foretaste.tables import look_up

if TYPE_CHECKING:
    from foretaste.defences.base import Filter, TrainingRows
    from foretaste.defences.certified.base import CertifiedHead
    from foretaste.defences.surrogates.encoders import EncoderSurrogate
    from foretaste.defences.surrogates.filters import FilterSurrogate
    from foretaste.defences.surrogates.votes import AttackerRows, VoteSurrogate
    from foretaste.encoders.base import Encoder
    from foretaste.images import Images
    from foretaste.method import Method
    from foretaste.runtime import Runtime

ROWS, ENCODER = ("filter", "certified"), ("repair", "scan", "guard")
"""Kinds of defence that attacks on rows and on the encoder meet."""
REASONS: dict[str, str] = {
    "decree": "which looks for a trigger and sees no edit for one image: there is nothing to evade",
    "reconstruction": "which trains a decoder that the attacker would have to train as well",
}
"""Why an attack cannot be made against some defences."""


def surrogates(*kinds: str) -> dict[str, str]:
    """Name -> place of the surrogate, of every defence of those kinds that has one."""
    return {name: entry.surrogate for name, entry in DEFENCES.items() if entry.kind in kinds and entry.surrogate}


def require_surrogate(defence: Method, *kinds: str) -> None:
    """For a defence that an attack is to reckon with.

    Raises:
        SpecError: no attack on what those kinds protect can: it is none of them, or its score is counts or clusters.
    """
    found = surrogates(*kinds)
    if defence.name not in found:
        what = (
            "a filter with a differentiable stand-in"
            if "filter" in kinds
            else "a defence of the encoder that can be simulated"
        )
        raise SpecError(
            f"against: {what}, one of {', '.join(found)}",
            got=f"{defence.name}, {REASONS.get(defence.name, 'which has none')}",
            do="name another; the plain attack still shows what this one does",
        )


def filter_surrogate(defence: Filter, rows: TrainingRows, quantile: float = 0.95) -> FilterSurrogate[Any]:
    """The stand-in of a filter, made of clean rows.

    Args:
        defence: the filter, with its fields.
        rows: clean rows that the attacker holds; its `clean_z` stand for the defender's.
        quantile: share of `rows` whose score is at most the stand-in's threshold.

    Raises:
        SpecError: the filter has none.
    """
    require_surrogate(defence, "filter")
    found: FilterSurrogate[Any] = _look_up(defence)(defence, rows, quantile)
    return found


def vote_surrogate(head: CertifiedHead, own: AttackerRows) -> VoteSurrogate[Any]:
    """The stand-in of a certified head, made of what the attacker holds.

    Args:
        head: with its fields; `dpa` with a number of partitions.
        own: the attacker's rows, and how many it adds.

    Raises:
        SpecError: there is none for this head.
        DataError: `clean` standardisation without clean rows.
    """
    found: VoteSurrogate[Any] = _look_up(head)(head, own)
    return found


def encoder_surrogate(defence: Method, encoder: Encoder, shadow: Images, runtime: Runtime) -> EncoderSurrogate[Any]:
    """A defence of the encoder as the attacker would play it through.

    Args:
        defence: with its fields.
        encoder: the clean one, which the attacker edits.
        shadow: images that the attacker holds; they stand for the defender's.
        runtime: where to compute.

    Raises:
        SpecError: an attack cannot reckon with it.
    """
    require_surrogate(defence, *ENCODER)
    found: EncoderSurrogate[Any] = _look_up(defence)(defence, encoder, shadow, runtime)
    return found


def _look_up(defence: Method) -> Any:
    return look_up("against", surrogates(*ROWS, *ENCODER), defence.name)
