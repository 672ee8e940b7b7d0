"""The adaptive form of an attack by ascent: its objective less a penalty for poison that a known filter would see.

Koh, Steinhardt and Liang, "Stronger Data Poisoning Attacks Break Data Sanitization Defenses" (Machine Learning 2022),
keep poison inside the set that a filter accepts; Carlini et al., "On Evaluating Adversarial Robustness" (2019), ask for
an attack made against each defence. Filters with a projection are a constraint of the carrier (`constraints.Unseen`);
for all of them the objective J becomes

    J -/+ weight * scale * mean_j max(0, score_j - threshold),

with `scale` such that at the first rows above the threshold a weight of 1 pulls as hard as J does. The weight is
doubled, from the same start, until few poisons are above: a penalty method (Nocedal and Wright, section 17.1).
"""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import Tensor

from foretaste.attacks.base import Progress, part
from foretaste.attacks.optimise.carriers import Carrier
from foretaste.attacks.optimise.projected_ascent import Ascent, Better, Evaluation, Objective, ascend
from foretaste.attacks.surrogates import FilterSurrogate
from foretaste.errors import AttackError
from foretaste.heads.scaler import Scaler

TRIES = 6
MOST_SEEN = 0.05
"""Share of the poison that may lie above the threshold before the weight is doubled."""
UNDER = "share of the poison under the filter's threshold, by the attacker's own judgement"
BARE = "objective without the penalty"


class Penalised:
    """An objective with the penalty of a filter; remembers the bare objective at each evaluation.

    Args:
        objective: of the attack.
        surrogate: of the filter.
        scaler: standard units, in which the objective works, to the encoder's, in which the filter does.
        weight: of the penalty, > 0.
    """

    def __init__(self, objective: Objective, surrogate: FilterSurrogate, scaler: Scaler, weight: float) -> None:
        self.objective, self.surrogate, self.scaler, self.weight = objective, surrogate, scaler, weight
        self.values: list[float] = []
        self._scale: float | None = None

    @property
    def better(self) -> Better:
        """As the objective's."""
        return self.objective.better

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """Penalised value and gradient at x float32 [m, d] (standard units) with labels y int64 [m]."""
        bare = self.objective.evaluate(x, y, gradient=gradient)
        self.values.append(bare.value)
        excess, slope = self.surrogate.penalty(self.scaler.undo(x), y)
        slope = slope * self.scaler.scale.to(slope)
        if self._scale is None and excess > 0 and bare.gradient is not None:
            self._scale = float(bare.gradient.norm() / slope.norm().clamp(min=1e-30))
        factor = (-1 if self.better == "higher" else 1) * self.weight * (self._scale or 0.0)
        pull = None if bare.gradient is None else bare.gradient + factor * slope.to(bare.gradient)
        return Evaluation(bare.value + factor * excess, pull, bare.residuals)


def ascend_unseen(
    surrogate: FilterSurrogate,
    penalty: float,
    scaler: Scaler,
    name: str,
    carrier: Carrier,
    objective: Objective,
    y: Tensor,
    *,
    steps: int,
    rate: float,
    progress: Progress,
) -> Ascent:
    """As `ascend`, with the penalty; it ends at the try of which the filter would see least, the first such.

    Args:
        surrogate: of the filter.
        penalty: the first weight.
        scaler: of the clean features.
        name: this and what follows as of `ascend`.
        carrier: what is moved.
        objective: without the penalty.
        y: labels int64 [m] to start with.
        steps: of each try.
        rate: of the optimiser.
        progress: over all tries.

    Raises:
        AttackError: as `ascend`.
    """
    first = carrier.leaf.clone()
    best: Ascent | None = None
    least, best_leaf = 2.0, first
    for number in range(TRIES):
        carrier.leaf = first.clone()
        # A copy forgets where earlier tries left its follower.
        own = Penalised(copy.copy(objective), surrogate, scaler, penalty * 2**number)
        try:
            end = ascend(
                name,
                carrier,
                own,
                y,
                steps=steps,
                rate=rate,
                progress=part(progress, number / TRIES, (number + 1) / TRIES),
            )
        except AttackError:
            if best is None:
                raise
            break  # a penalty too heavy to move under: the tries before stand
        seen = float((surrogate.score(scaler.undo(carrier.features()), end.y) > surrogate.threshold).double().mean())
        if seen < least:
            pick = max if own.better == "higher" else min
            kept = own.values[end.curve.index(pick(end.curve))]
            figures = {UNDER: 1 - seen, BARE: kept, "weight of the penalty": own.weight}
            best, least, best_leaf = replace(end, figures=figures), seen, carrier.leaf
        if least <= MOST_SEEN:
            break
    carrier.leaf = best_leaf
    progress(1000, 1000)
    assert best is not None
    return best
