"""An attack on a certified head: poison that moves the votes of the base learners that it reaches, all the same way.

A row that is added reaches few base learners, so no head gives way by itself: what counts is that votes go from the
class that wins to the one behind it, row by row. Poison of many labels pulls votes to many classes and none of them
wins; so all of it carries one label. That is chosen by a short ascent under each of the few labels with which the rows
do most damage where they start.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from foretaste.attacks.base import Progress, part, quiet
from foretaste.attacks.optimise.carriers import Carrier
from foretaste.attacks.optimise.projected_ascent import Ascent, Better, Evaluation, ascend
from foretaste.attacks.surrogates import VoteSurrogate
from foretaste.errors import AttackError
from foretaste.heads.scaler import Scaler

TRIED, TRIAL_STEPS = 4, 8
NEAR = 0.1
"""Where rows start, on the way from the mean of all rows to their base row: there no class holds them back."""


class VoteObjective:
    """The damage to a vote as an objective in standard units.

    Args:
        vote: of the certified head.
        scaler: standard units, in which attacks work, to the encoder's, in which the vote does.
    """

    better: ClassVar[Better] = "higher"

    def __init__(self, vote: VoteSurrogate, scaler: Scaler) -> None:
        self.vote, self.scaler = vote, scaler

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """Value and gradient at x float32 [m, d] (standard units) with labels y int64 [m]."""
        value, slope = self.vote.damage(self.scaler.undo(x), y, gradient=gradient)
        return Evaluation(value, None if slope is None else (slope * self.scaler.scale.to(slope)).to(x))


def planned_evaluations(steps: int, classes: int) -> float:
    """How often `ascend_vote` works out the damage to a vote, see `CarrierAttack.planned_votes`."""
    tried = min(TRIED, classes)
    return tried * TRIAL_STEPS + steps + (classes + tried + 1) / 2


def ascend_vote(
    vote: VoteSurrogate,
    scaler: Scaler,
    name: str,
    carrier: Carrier,
    classes: int,
    *,
    steps: int,
    rate: float,
    progress: Progress,
) -> Ascent:
    """As `ascend`, under the one label with which it gets furthest in a few steps.

    Args:
        vote: of the certified head.
        scaler: of the clean features.
        name: of the attack, for messages.
        carrier: of features in standard units.
        classes: C.
        steps: of the ascent after the trials.
        rate: of the optimiser.
        progress: over trials and ascent.

    Raises:
        AttackError: as `ascend`.
    """
    objective, first = VoteObjective(vote, scaler), NEAR * carrier.leaf
    carrier.leaf = first.clone()
    labels = [torch.full((len(first),), c) for c in range(classes)]
    starts = [objective.evaluate(carrier.features(), y, gradient=False).value for y in labels]
    tried = sorted(range(classes), key=lambda c: -starts[c])[:TRIED]
    furthest, best = -1.0, tried[0]
    for number, label in enumerate(tried):
        carrier.leaf = first.clone()
        try:
            trial = ascend(name, carrier, objective, labels[label], steps=TRIAL_STEPS, rate=rate, progress=quiet)
        except AttackError:
            continue  # the ascent below says so if there is no other
        progress((number + 1) * TRIAL_STEPS, TRIED * TRIAL_STEPS + steps)
        if max(trial.curve) > furthest:
            furthest, best = max(trial.curve), label
    carrier.leaf = first
    rest = part(progress, TRIED * TRIAL_STEPS / (TRIED * TRIAL_STEPS + steps), 1)
    return ascend(name, carrier, objective, labels[best], steps=steps, rate=rate, progress=rest)
