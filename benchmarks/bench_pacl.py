"""A step of PA-CL beside a bare training step of the same network, weights, number of images and precision.

And beside PA-CL's own step where the whole network is trained: activations before the last stage are kept. Both parts
must bring the target as far, or the ratio would mean nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from foretaste.attacks.editing.shadow_cache import Part, prepare_shadow
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.weights.pacl import PACL
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.images import Images
from foretaste.runtime import Runtime, make_runtime, stream

GOALS = {
    "step_ratio_float32": ("<=", 1.15),
    "step_ratio_bfloat16": ("<=", 1.15),
    "whole_over_last_stage_float32": (">=", 3.0),
    "whole_over_last_stage_bfloat16": (">=", 3.0),
    "similarity_lost_to_whole": ("<=", 0.01),
}
STEPS, ROUNDS = 8, 5


def attack_seconds(attack: PACL, encoder: Encoder, shadow: Images, references: Images, runtime: Runtime) -> list[float]:
    """Seconds between progress calls, which come once per step."""
    marks: list[float] = []
    target = shadow.pixels[0].clone()
    mark: Callable[[int, int], None] = lambda done, total: marks.append(perf_counter())  # noqa: E731
    attack.corrupt(EditProblem(encoder, (target,), (references,), shadow, 0, runtime), progress=mark)
    return [after - before for before, after in pairwise(marks)]


def bare_seconds(encoder: Encoder, names: tuple[str, ...], pixels: Tensor, count: int, runtime: Runtime) -> list[float]:
    """What one would write by hand to train those weights: forward, backward, SGD with momentum."""
    network = copy.deepcopy(encoder)
    weights = [network.body.get_parameter(name).requires_grad_(True) for name in names]
    optimizer = torch.optim.SGD(weights, lr=1e-4, momentum=0.9)
    order = torch.randperm(len(pixels), generator=stream(0, "bench"))
    seconds = []
    for number in range(STEPS):
        start = perf_counter()
        rows = order[number * count % (len(order) - count) :][:count]
        with runtime.autocast():
            z = network(runtime.images(pixels[rows]))
        optimizer.zero_grad()
        z.square().mean().backward()
        optimizer.step()
        seconds.append(perf_counter() - start)
    return seconds[1:]


def main() -> dict[str, float]:
    """Median over interleaved rounds of PA-CL's seconds per step / the bare step's; less is better."""
    base = make_runtime()
    encoder = build(EncoderSpec(reference="resnet18-small", width=16)).to(base.device)
    pixels = torch.randint(0, 256, (1500, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "bench"))
    shadow = Images(pixels, torch.zeros(len(pixels), dtype=torch.int64), ("a", "b"), "noise")
    references = shadow.take(torch.arange(1, 51))
    attack = PACL(steps=STEPS, enough=1.0, kept=1.0)
    count = attack.batch + attack.views
    results = {}
    for precision, channels_last in (("float32", False), ("bfloat16", True)):
        runtime = Runtime(base.device, precision, channels_last)
        names = prepare_shadow(encoder, shadow, runtime, attack.trainable, True).names  # also warms up
        ratios, steps = [], []
        for _ in range(ROUNDS):
            bare = median(bare_seconds(encoder, names, pixels, count, runtime))
            ours = median(attack_seconds(attack, encoder, shadow, references, runtime))
            bare = (bare + median(bare_seconds(encoder, names, pixels, count, runtime))) / 2
            ratios.append(ours / bare)
            steps.append(ours)
        results[f"step_ratio_{precision}"] = median(ratios)
        results[f"step_seconds_{precision}"] = median(steps)
        last = median(attack_seconds(attack, encoder, shadow, references, runtime))
        whole = attack.model_copy(update={"trainable": "all"})  # one cache is kept: one change between the parts
        results[f"whole_over_last_stage_{precision}"] = (
            median(attack_seconds(whole, encoder, shadow, references, runtime)) / last
        )
    results["similarity_lost_to_whole"] = reached("all", encoder, shadow, references, runtime) - reached(
        "last-stage", encoder, shadow, references, runtime
    )
    return results


def reached(part: Part, encoder: Encoder, shadow: Images, references: Images, runtime: Runtime) -> float:
    """The target's similarity to its class, at most what is enough."""
    attack = PACL(trainable=part, steps=40)
    made = attack.corrupt(EditProblem(encoder, (shadow.pixels[0].clone(),), (references,), shadow, 0, runtime))
    return min(made.ledger.figures["similarity"], attack.enough)


if __name__ == "__main__":
    for key, value in main().items():
        print(f"{key} {value:.4g}")
