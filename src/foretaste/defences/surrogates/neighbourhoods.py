"""Comparisons of neighbourhoods, simulated: the target goes just over the border and keeps neighbours of its own kind.

What the second encoder sees, the attacker does not know, but that it sees the target among its own kind: the fewer of
its neighbours are new, the less the two disagree.
"""

from __future__ import annotations

from foretaste.defences.guards.agreement import Agreement
from foretaste.defences.scans.neighbours import Neighbours
from foretaste.defences.surrogates.encoders import EncoderSurrogate

BORDER = 0.1


class KeptNeighbours(EncoderSurrogate[Neighbours]):
    """For the scan."""

    border = BORDER


class Agreeing(EncoderSurrogate[Agreement]):
    """For the guard."""

    border = BORDER
