"""How the seconds of one step of each attack's objective grow with the rows, the features, the poison and the classes.

One of n (clean rows), d (features), m (poisoned rows) and C (classes) moves at a time, the others stay at the base. A
step is value and gradient at a poison that has moved a little since the last one, after a step that makes the warm
starts. Slopes are least squares on logarithms: 1 means that twice the size takes twice the time. Work per step, not
operations, is what is measured: iterations of inner solves differ from size to size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from foretaste.attacks.labelled.tgda import largest_eigenvalue
from foretaste.attacks.optimise.error_minimising import ErrorMinimising
from foretaste.attacks.optimise.gradient_residual import GradientResidual
from foretaste.attacks.optimise.projected_ascent import Objective
from foretaste.attacks.optimise.stackelberg import Stackelberg
from foretaste.attacks.optimise.unrolled import Unrolled
from foretaste.heads.fit import minimise
from foretaste.heads.objective import HeadObjective, Rows
from foretaste.runtime import make_runtime, stream

BASE = {"n": 5000, "d": 64, "m": 150, "C": 10}
SIZES = {"n": (5000, 10000, 20000, 40000), "d": (64, 128, 256, 512), "m": (150, 600, 2400, 4800), "C": (5, 10, 20, 40)}
VALIDATION, RIDGE, ROUNDS = 1000, 1e-3, 8
MOVE = 0.05
"""Standard units that each poison feature moves at random between two steps, about as far as late in an attack."""

Make = Callable[[Rows, Rows, Tensor, int, int], Objective]
"""Clean rows, validation rows, the head of the clean rows, C and m to an objective."""


def few_steps(clean: Rows, own: Rows, head: Tensor, classes: int, m: int) -> Unrolled:
    """As the attack `tgda` makes it."""
    problem = HeadObjective((clean,), classes, RIDGE)
    rate = 1 / largest_eigenvalue(problem.curvature(problem.zeros()), stream(0, "bench scaling/eigenvalue"))
    return Unrolled(clean, own, head, classes, RIDGE, "cross-entropy", 20, rate, 16)


OBJECTIVES: Mapping[str, Make] = {
    "exact": lambda clean, own, head, classes, m: Stackelberg(clean, own, classes, RIDGE, "margin"),
    "gradient-canceling": lambda clean, own, head, classes, m: GradientResidual(
        clean, 2 * head.flip(0), classes, RIDGE, m
    ),
    "tgda": few_steps,
    "emn": lambda clean, own, head, classes, m: ErrorMinimising(clean, classes, RIDGE),
}


def rows_of(count: int, d: int, classes: int, name: str) -> Rows:
    """Standardised Gaussian classes that overlap, behind a spectrum that a network's features might have."""
    draws = stream(0, f"bench scaling/{name}")
    centres = 0.32 * torch.randn(classes, d, generator=stream(0, "bench scaling"))
    y = torch.arange(count) % classes
    mix = torch.linalg.qr(torch.randn(d, d, generator=stream(0, "bench scaling/mix")))[0]
    x = (centres[y] + torch.randn(count, d, generator=draws)) * torch.arange(1, d + 1) ** -0.7 @ mix
    return Rows((x - x.mean(0)) / x.std(0), y)


def step_seconds(sizes: Mapping[str, int]) -> dict[str, float]:
    """Least seconds of a step of each objective at one size."""
    n, d, m, classes = (sizes[key] for key in ("n", "d", "m", "C"))
    clean, own = rows_of(n, d, classes, "clean"), rows_of(VALIDATION, d, classes, "validation")
    head = minimise(HeadObjective((clean,), classes, RIDGE)).weight
    found = {}
    for name, make in OBJECTIVES.items():
        objective = make(clean, own, head, classes, m)
        x, y = clean.x[:m].clone(), (clean.y[:m] + 1) % classes
        random, times = stream(0, "bench scaling/moves"), []
        for _ in range(ROUNDS + 1):
            start = perf_counter()
            objective.evaluate(x, y)
            times.append(perf_counter() - start)
            x += MOVE * torch.randn(x.shape, generator=random)
        found[name] = min(times[1:])
    return found


def slope(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Of log seconds over log size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main() -> dict[str, float]:
    """Seconds at the base and slopes, by objective."""
    make_runtime()
    base = step_seconds(BASE)
    results = {f"{name}_seconds": seconds for name, seconds in base.items()}
    for key, sizes in SIZES.items():
        steps = [base if size == BASE[key] else step_seconds({**BASE, key: size}) for size in sizes]
        for name in OBJECTIVES:
            results[f"{name}_slope_{key}"] = slope(sizes, [step[name] for step in steps])
    return results


if __name__ == "__main__":
    for key, value in main().items():
        print(f"{key} {value:.4g}")
