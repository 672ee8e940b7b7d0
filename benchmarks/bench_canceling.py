"""One gradient canceling iteration on features in closed form, beside the loop of double backpropagation.

The loop is that of the public code (watml/plim) at its simplest: each iteration takes the gradient of the loss over
clean and poisoned rows together, with its graph, and then the gradient of that gradient's square with respect to the
poison. Here it cancels weight and bias and counts the ridge, as Foretaste does, so that both sides have one objective.
The public code for a convolutional network keeps the clean rows' gradient from iteration to iteration; that milder loop
is measured too (`kept_loop`), without a goal: it does the same work as the closed form, in float32 where that sums in
float64, so the goal is about the work on clean rows that need not be done again. The least of each side's times counts,
as in `bench_head`.
"""

from __future__ import annotations

from time import perf_counter

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from foretaste.attacks.optimise.gradient_residual import GradientResidual
from foretaste.heads.objective import Rows
from foretaste.runtime import make_runtime, stream

GOALS = {"speedup": (">=", 10.0)}
N, D, CLASSES, POISONS, RIDGE, ROUNDS = 50_000, 512, 10, 1500, 1e-3, 9


def loop_step(
    rows: Rows, x: Tensor, y: Tensor, target: Tensor, scale: float, kept: Tensor | None = None
) -> tuple[float, Tensor]:
    """J and dJ/dx float32 [m, d] by double backpropagation; `kept` replaces all that the clean rows add to G."""
    x, weight = x.clone().requires_grad_(), target[:, :-1].float().requires_grad_()
    bias = target[:, -1].float().requires_grad_()
    if kept is None:
        every, labels = torch.cat([rows.x, x]), torch.cat([rows.y, y])
        ridge = len(labels) * RIDGE / 2 * (weight.square().sum() + bias.square().sum())
    else:
        every, labels, ridge = x, y, torch.zeros(())
    loss = cross_entropy(every @ weight.T + bias, labels, reduction="sum") + ridge
    of_weight, of_bias = torch.autograd.grad(loss, (weight, bias), create_graph=True)
    if kept is not None:
        of_weight, of_bias = of_weight + kept[:, :-1], of_bias + kept[:, -1]
    value = (of_weight.square().sum() + of_bias.square().sum()) / scale
    value.backward()
    assert x.grad is not None
    return float(value.detach()), x.grad


def apart(one: Tensor, other: Tensor) -> float:
    """||one - other|| / ||other||."""
    return float((one - other).norm() / other.norm())


def main() -> dict[str, float]:
    """Least seconds of an iteration of each side over interleaved rounds, and how far the two sides are apart."""
    make_runtime()
    random = stream(0, "bench canceling")
    centres = 0.1 * torch.randn(CLASSES, D, generator=random)
    y = torch.arange(N) % CLASSES
    clean = Rows(centres[y] + torch.randn(N, D, generator=random), y)
    x, labels = clean.x[:POISONS].clone(), y[:POISONS].flip(0)
    target = 0.05 * torch.randn(CLASSES, D + 1, generator=random).double()
    start = perf_counter()
    ours = GradientResidual(clean, target, CLASSES, RIDGE, POISONS)
    once = perf_counter() - start
    scale = float(ours.clean.square().sum())

    seconds: dict[str, list[float]] = {"closed_form": [], "loop": [], "kept_loop": []}
    for _ in range(ROUNDS):
        start = perf_counter()
        found = ours.evaluate(x, labels)
        seconds["closed_form"].append(perf_counter() - start)
        start = perf_counter()
        value, gradient = loop_step(clean, x, labels, target, scale)
        seconds["loop"].append(perf_counter() - start)
        start = perf_counter()
        loop_step(clean, x, labels, target, scale, ours.clean.float())
        seconds["kept_loop"].append(perf_counter() - start)
    assert found.gradient is not None
    objective_apart, gradient_apart = abs(found.value / value - 1), apart(found.gradient, gradient)
    assert objective_apart < 1e-5, f"two objectives: {found.value} and {value}"
    assert gradient_apart < 1e-4, f"two gradients, {gradient_apart} apart"
    least = {name: min(times) for name, times in seconds.items()}
    return {
        "clean_gradient_once_seconds": once,
        **{f"{name}_seconds": value for name, value in least.items()},
        "objective_apart": objective_apart,
        "gradient_apart": gradient_apart,
        "speedup": least["loop"] / least["closed_form"],
        "speedup_over_kept_loop": least["kept_loop"] / least["closed_form"],
    }


if __name__ == "__main__":
    for key, value in main().items():
        print(f"{key} {value:.4g}")
