"""The Stackelberg attack on the head that a filter leaves: what the filter would drop does no harm, so it is not made.

A penalty for rows that a filter would see asks for less suspicious poison, whatever harm is left; here that harm is
the objective. With s_j the filter's score of poison j, t its threshold and w_j = sigmoid((t - s_j) / width), the
follower is fitted to the clean rows and to the poison weighted by w, and the leader's gradient has a second term:

    dL/dx_j = w_j * (as in `stackelberg`) + dL/dw_j * dw_j/dx_j,      dL/dw_j = -<U, g_j + ridge W*> / N,

with N all weights and g_j the gradient of row j's cross-entropy at W*. A filter that fits a head scores rows among the
poison: its stand-in is learnt anew at each step. Every few steps the filter itself is asked, and the leader's loss of
the head on what it leaves is the measure of a poison; the best one seen at any rate is handed over. Where the filter
drops most of that one, all rates are tried again from the same rows with their own labels, which filters pass: far
above a threshold the weights have no slope that leads under it.

Koh, Steinhardt and Liang, "Stronger Data Poisoning Attacks Break Data Sanitization Defenses" (Machine Learning 2022),
attack filters by constraints; Carlini et al., "On Evaluating Adversarial Robustness" (2019), ask for an attack made
against each defence.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from foretaste.attacks.base import Progress, part
from foretaste.attacks.optimise.carriers import Carrier
from foretaste.attacks.optimise.penalty import UNDER
from foretaste.attacks.optimise.projected_ascent import Ascent, Better, Evaluation, ascend
from foretaste.attacks.optimise.stackelberg import Stackelberg, poison_gradient
from foretaste.attacks.surrogates import FilterSurrogate
from foretaste.errors import AttackError
from foretaste.heads.objective import Rows, logits
from foretaste.heads.scaler import Scaler

SOFTNESS = 1.0
"""Of the weights, in units of `FilterSurrogate.left`; on SimCLR features of CIFAR-10 0.3 and 3 did less harm."""
RATES = (1.0, 1 / 3)
"""Shares of the rate that are tried: which one gets further differs from filter to filter."""
MOST = 0.5
"""Share of the poison that the filter drops, above which the attack starts again from labels that are true."""
LOOK = 10
"""Steps between two looks at what the filter itself would drop."""
LEFT = "objective on what the filter leaves, by the attacker's own judgement"


@dataclass(frozen=True, eq=False)
class Look:
    """A poison as the filter itself would have left it.

    Attributes:
        value: the leader's loss of the head on the rest.
        leaf: of the carrier.
        y: labels.
        dropped: share of the poison.
    """

    value: float
    leaf: Tensor
    y: Tensor
    dropped: float


@dataclass(eq=False)
class SoftFilter:
    """`Stackelberg` of the head on what a filter leaves, softly.

    Attributes:
        plain: the objective of the head on all rows.
        surrogate: of the filter, made of the clean rows.
        scaler: standard units, in which the objective works, to the encoder's, in which the filter does.
        carrier: what is moved.
        looks: what was seen so far.
    """

    plain: Stackelberg
    surrogate: FilterSurrogate
    scaler: Scaler
    carrier: Carrier
    looks: list[Look] = field(default_factory=list)
    better: ClassVar[Better] = "higher"
    _step: int = 0

    def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
        """Value and gradient at x float32 [m, d] (standard units) with labels y int64 [m]."""
        z = self.scaler.undo(x)
        if self._step % LOOK == 0 or not gradient:
            self._look(z, x, y)
        self._step += 1
        weight, slope = self.surrogate.among(z, y).left(z, y, SOFTNESS)  # [m], [m, d]
        found = self.plain.follow(Rows(x, y, weight.to(x)), gradient=gradient)
        if found.u is None:
            return Evaluation(found.value, None, found.residuals)
        pull = poison_gradient(found.weight, found.u, x, y) * weight[:, None].to(x)
        p = torch.softmax(logits(x, found.weight.float()), 1)
        p[torch.arange(len(y)), y] -= 1
        along = (p * logits(x, found.u.float())).sum(1).double()
        along += self.plain.ridge * float((found.u * found.weight).sum())  # <U, g_j + ridge W*>, [m]
        pull = pull.double() + along[:, None] * slope.double() * self.scaler.scale.double()
        return Evaluation(found.value, (-pull / found.total).to(x), found.residuals)

    def steepest_labels(self, x: Tensor) -> Tensor:
        """See `Stackelberg.steepest_labels`."""
        return self.plain.steepest_labels(x)

    def _look(self, z: Tensor, x: Tensor, y: Tensor) -> None:
        kept = ~self.surrogate.flagged(z, y)
        # A copy: the follower of the soft weights keeps its warm start.
        value = copy.copy(self.plain).follow(Rows(x[kept], y[kept]), gradient=False).value
        self.looks.append(Look(value, self.carrier.leaf.clone(), y, 1 - float(kept.double().mean())))


def ascend_left(
    surrogate: FilterSurrogate,
    scaler: Scaler,
    name: str,
    carrier: Carrier,
    objective: Stackelberg,
    y: Tensor,
    true: Tensor,
    *,
    steps: int,
    rate: float,
    progress: Progress,
    relabel: bool,
) -> Ascent:
    """As `ascend`, on what a filter leaves, from the same rows at each of `RATES`; it ends at the best look of all.

    Args:
        surrogate: of the filter, made of the clean rows.
        scaler: of the clean features.
        name: this and what follows as of `ascend`.
        carrier: what is moved.
        objective: of the head on all rows.
        y: labels int64 [m] to start with.
        true: labels int64 [m] that the rows have in the clean data, to start with where the filter drops most of y's.
        steps: of each try.
        rate: the highest that is tried.
        progress: over all tries.
        relabel: labels may move too.

    Raises:
        AttackError: as `ascend`, if every try fails.
    """
    first, best = carrier.leaf.clone(), None
    tries = list(itertools.product((y, true), RATES))
    for number, (labels, share) in enumerate(tries):
        if number == len(RATES) and best is not None and best[1].dropped <= MOST:
            break
        carrier.leaf = first.clone()
        # A copy forgets where the other try left its follower.
        own = SoftFilter(copy.copy(objective), surrogate, scaler, carrier)
        told, moving = part(progress, number / len(tries), (number + 1) / len(tries)), own if relabel else None
        try:
            end = ascend(name, carrier, own, labels, steps=steps, rate=share * rate, progress=told, relabel=moving)
        except AttackError:
            if best is None and number + 1 == len(tries):
                raise
            continue
        look = max(own.looks, key=lambda look: look.value)
        if best is None or look.value > best[1].value:
            best = end, look
    assert best is not None
    progress(1000, 1000)
    end, look = best
    carrier.leaf = look.leaf
    return replace(end, y=look.y, figures={LEFT: look.value, UNDER: 1 - look.dropped})
