"""The inverse-Hessian product behind an exact total gradient, beside TGDA's: seconds at an equal or smaller residual.

TGDA (Lu, Kamath, Yu, TMLR 2022; watml/TGDA-Attack) takes 16 steps of conjugate gradients on H^2 from zero, each with
two Hessian-vector products by double backpropagation. `heads.solve.solve` gets the same right side and stops as soon as
its residual is no larger than theirs; everything that it needs is counted (the curvature at W, a preconditioner where
there is one). Four ways, of which the goal is about the first, the solve as it stands in a step of the attack:

- kept: with a full preconditioner that is there already: the attack `exact` has it from its fit, for many steps.
- bare: without a preconditioner, from nothing.
- cheap: with one made for this solve, from the mean of H's diagonal blocks.
- full: with one made for this solve, from all of the blocks; what a fit makes.

And `at_1e-3`: the same to the attack's tolerance, judged in float64. The least of each side's times counts.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.bench_exact import features, normal_equations
from foretaste.attacks.optimise.stackelberg import leader_loss
from foretaste.heads.fit import minimise
from foretaste.heads.objective import HeadObjective, Rows
from foretaste.heads.solve import Preconditioner, solve
from foretaste.runtime import make_runtime

GOALS = {"speedup": (">=", 10.0), "residual_ratio": ("<=", 1.0)}
N, D, CLASSES, RIDGE, ROUNDS = 1000, 512, 10, 1e-3, 9
TIGHT = 1e-3


def theirs(rows: Rows, weight: Tensor, right: Tensor) -> Tensor:
    """V float64 [C, d + 1], computed in float32."""
    weight, right = weight.float().requires_grad_(), right.float()
    scores = rows.x @ weight[:, :-1].T + weight[:, -1]
    loss = cross_entropy(scores, rows.y) + RIDGE / 2 * weight.square().sum()
    (first,) = torch.autograd.grad(loss, weight, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        return torch.autograd.grad((first * vector).sum(), weight, retain_graph=True)[0]

    return normal_equations(product, right).double()


def main() -> dict[str, float]:
    """Least seconds of each way over interleaved rounds, and ||H V - B|| / ||B|| in float64."""
    make_runtime()
    z, y = features(N, "train", D)
    own, own_y = features(N, "validation", D)
    scale = z.std(0)
    rows, validation = Rows(z / scale, y), Rows(own / scale, own_y)
    problem = HeadObjective((rows,), CLASSES, RIDGE)
    weight = minimise(problem).weight
    _, right = leader_loss("cross-entropy", validation, weight, CLASSES)
    judge = problem.curvature(weight)

    def left(v: Tensor) -> float:
        return float((judge.product(v, exact=True) - right).norm() / right.norm())

    reached = left(theirs(rows, weight, right))
    kept = Preconditioner(judge)

    def ours(kind: str, tolerance: float) -> Tensor:
        curvature = problem.curvature(weight)
        makers: dict[str, Callable[[], Preconditioner | None]] = {
            "bare": lambda: None,
            "cheap": lambda: Preconditioner(curvature, cheap=True),
            "full": lambda: Preconditioner(curvature),
            "kept": lambda: kept,
        }
        return solve(curvature, right, makers[kind](), tolerance=tolerance, exact=tolerance <= TIGHT).value

    ways: dict[str, Callable[[], Tensor]] = {"theirs": lambda: theirs(rows, weight, right)}
    for kind in ("bare", "cheap", "full", "kept"):
        ways[kind] = lambda kind=kind: ours(kind, reached)  # type: ignore[misc]
        ways[f"{kind}_at_1e-3"] = lambda kind=kind: ours(kind, TIGHT)  # type: ignore[misc]
    seconds = dict.fromkeys(ways, float("inf"))
    residuals = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = perf_counter()
            found = way()
            seconds[name] = min(seconds[name], perf_counter() - start)
            residuals[name] = left(found)
    results = {
        "speedup": seconds["theirs"] / seconds["kept"],
        "residual_ratio": residuals["kept"] / residuals["theirs"],
    }
    for name in ways:
        results |= {f"{name}_seconds": seconds[name], f"{name}_residual": residuals[name]}
        if name not in ("theirs", "kept"):
            results[f"{name}_speedup"] = seconds["theirs"] / seconds[name]
    return results


if __name__ == "__main__":
    for key, value in main().items():
        print(f"{key} {value:.4g}")
