"""A step of BadEncoder beside the public formulation, which encodes the reference once per shadow image, twice over.

Same network, weights, shadow images, optimiser and precision; the gradients are equal, as the tests of the attack show.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from time import perf_counter

import torch
from torch.nn.functional import cosine_similarity

from foretaste.attacks.editing.shadow_cache import prepare_shadow
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.weights.bad_encoder import BadEncoder
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.images import Images
from foretaste.runtime import Runtime, make_runtime, stream

GOALS = {"speedup": (">=", 1.8)}
STEPS, ROUNDS, BATCH = 3, 3, 64


def attack_seconds(attack: BadEncoder, encoder: Encoder, shadow: Images, runtime: Runtime) -> list[float]:
    """Seconds between progress calls, which come once per step."""
    marks: list[float] = []
    target, references = shadow.pixels[0].clone(), shadow.take(torch.arange(1, 2))
    mark: Callable[[int, int], None] = lambda done, total: marks.append(perf_counter())  # noqa: E731
    attack.corrupt(EditProblem(encoder, (target,), (references,), shadow, 0, runtime), progress=mark)
    return [after - before for before, after in pairwise(marks)]


def public_seconds(encoder: Encoder, names: tuple[str, ...], shadow: Images, runtime: Runtime) -> list[float]:
    """The public formulation with one target, which is encoded once: only the copies of the reference are counted."""
    edited = copy.deepcopy(encoder)
    weights = [edited.body.get_parameter(name).requires_grad_(True) for name in names]
    optimizer = torch.optim.SGD(weights, lr=1e-3, momentum=0.9, weight_decay=5e-4)
    order = torch.randperm(len(shadow), generator=stream(0, "bench"))
    target, copies = shadow.pixels[:1], shadow.pixels[1].expand(BATCH, -1, -1, -1)
    seconds = []
    for rows in order.split(BATCH)[:STEPS]:
        start = perf_counter()
        images = runtime.images(shadow.pixels[rows])
        references = runtime.images(copies)
        with torch.no_grad():
            z_clean, r_clean = encoder(images), encoder(references)
        z, r, t = edited(images), edited(references), edited(runtime.images(target))
        loss = -cosine_similarity(t, r).mean() - cosine_similarity(r, r_clean).mean()
        loss = loss - cosine_similarity(z, z_clean).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(perf_counter() - start)
    return seconds[1:]


def main() -> dict[str, float]:
    """Median over interleaved rounds of the public step's seconds / ours; more is better."""
    runtime = Runtime(make_runtime().device)
    encoder = build(EncoderSpec(reference="resnet18-small", width=16)).to(runtime.device)
    count = BATCH * STEPS * 10 // 9 + 1  # of which a tenth is held out
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "bench"))
    shadow = Images(pixels, torch.zeros(count, dtype=torch.int64), ("a",), "noise")
    names = prepare_shadow(encoder, shadow, runtime, "all", False).names  # also warms up
    attack = BadEncoder(batch=BATCH, epochs=1)
    ratios, steps = [], []
    for _ in range(ROUNDS):
        public = median(public_seconds(encoder, names, shadow, runtime))
        ours = median(attack_seconds(attack, encoder, shadow, runtime))
        public = (public + median(public_seconds(encoder, names, shadow, runtime))) / 2
        ratios.append(public / ours)
        steps.append(ours)
    return {"speedup": median(ratios), "step_seconds": median(steps)}


if __name__ == "__main__":
    for key, value in main().items():
        print(f"{key} {value:.4g}")
