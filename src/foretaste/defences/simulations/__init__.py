"""Repairs, scans and guards of an encoder as an adaptive attack on its weights may know them, by the defence's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foretaste.errors import SpecError
from foretaste.tables import look_up

if TYPE_CHECKING:
    from foretaste.defences.simulations.base import Simulation
    from foretaste.encoders.base import Encoder
    from foretaste.images import Images
    from foretaste.method import Method
    from foretaste.runtime import Runtime

SIMULATIONS: dict[str, str] = {
    "average": "foretaste.defences.simulations.average:Averaging",
    "clp": "foretaste.defences.simulations.pruning:LipschitzPruning",
    "fine-prune": "foretaste.defences.simulations.pruning:IdlePruning",
    "fine-tune": "foretaste.defences.simulations.fine_tune:FineTuning",
    "distil": "foretaste.defences.simulations.distil:Distilling",
    "drift": "foretaste.defences.simulations.drift:Drifting",
    "neighbours": "foretaste.defences.simulations.neighbours:KeptNeighbours",
    "weight-statistics": "foretaste.defences.simulations.weight_statistics:KeptStatistics",
    "agreement": "foretaste.defences.simulations.neighbours:Agreeing",
    "views-vote": "foretaste.defences.simulations.views_vote:Voting",
}

REFUSED: dict[str, str] = {
    "decree": "decree, which looks for a trigger and sees no edit for one image: there is nothing to evade",
    "reconstruction": "reconstruction, which trains a decoder that the attacker would have to train as well",
}
"""Defences of the encoder that an attack cannot be made against, and why."""


def require_simulation(defence: Method) -> None:
    """Raise SpecError for a defence that no attack on the weights can reckon with."""
    if defence.name not in SIMULATIONS:
        raise SpecError(
            f"against: a defence of the encoder that can be simulated, one of {', '.join(SIMULATIONS)}",
            got=REFUSED.get(defence.name, f"{defence.name}, which cannot"),
            do="name another; the plain attack still shows what this one does",
        )


def simulation(defence: Method, encoder: Encoder, shadow: Images, runtime: Runtime) -> Simulation[Any]:
    """The defence as the attacker would play it through.

    Args:
        defence: with its fields.
        encoder: the clean one, which the attacker edits.
        shadow: images that the attacker holds; they stand for the defender's.
        runtime: where to compute.

    Raises:
        SpecError: an attack cannot reckon with it.
    """
    require_simulation(defence)
    found: Simulation[Any] = look_up("against", SIMULATIONS, defence.name)(defence, encoder, shadow, runtime)
    return found
