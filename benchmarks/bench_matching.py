"""Feature matching beside bare passes of the same encoder, images, batch and precision, forward and back to pixels."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from foretaste.attacks.optimise.carriers import block_of
from foretaste.attacks.optimise.feature_matching import FeatureMatching
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.features.embed import embed
from foretaste.heads.scaler import Scaler
from foretaste.runtime import Runtime, make_runtime, stream

GOALS = {"ratio": ("<=", 1.15), "ratio_bfloat16": ("<=", 1.15)}
STEPS, ROUNDS = 16, 5


def matching_seconds(encoder: Encoder, pixels: Tensor, z: Tensor, scaler: Scaler, runtime: Runtime) -> float:
    """Seconds per step for one block of images; everything but the passes that judge is in it."""
    own = torch.arange(len(pixels))[:, None]
    marks: list[float] = []
    matching = FeatureMatching(bases=1, steps=STEPS, beta=0.1)
    matching.invert(encoder, z, pixels, own, scaler, runtime, lambda done, total: marks.append(perf_counter()))
    # Both halves look once more at where they end: those passes belong to the steps.
    return (marks[-1] - marks[0]) / STEPS


def bare_seconds(encoder: Encoder, pixels: Tensor, z: Tensor, runtime: Runtime) -> float:
    """What one would write by hand: forward, a square loss, backward to the pixels."""
    leaf = runtime.images(pixels).requires_grad_(True)
    wanted = z.to(runtime.device)
    start = perf_counter()
    for _ in range(STEPS):
        with runtime.autocast():
            found = encoder(leaf)
        leaf.grad = None
        (found - wanted).square().mean().backward()
    assert leaf.grad is not None
    leaf.grad.sum().item()  # an accelerator has finished only then
    return (perf_counter() - start) / STEPS


def main() -> dict[str, float]:
    """Median over interleaved rounds of matching's seconds per step / the bare ones; less is better."""
    base = make_runtime()
    encoder = build(EncoderSpec(reference="resnet18-small", width=16)).to(base.device)
    pixels = torch.randint(0, 256, (128, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "bench"))
    pixels = pixels[: block_of(encoder, pixels)]
    results = {}
    for key, precision, channels_last in (("ratio", "float32", False), ("ratio_bfloat16", "bfloat16", True)):
        runtime = Runtime(base.device, precision, channels_last)
        clean = embed(encoder, pixels, runtime)
        scaler, z = Scaler.of([clean]), clean.flip(0)
        bare_seconds(encoder, pixels, z, runtime)  # warms up
        ratios, steps = [], []
        for _ in range(ROUNDS):
            bare = bare_seconds(encoder, pixels, z, runtime)
            ours = matching_seconds(encoder, pixels, z, scaler, runtime)
            bare = (bare + bare_seconds(encoder, pixels, z, runtime)) / 2
            ratios.append(ours / bare)
            steps.append(ours)
        results[key] = median(ratios)
        results[key.replace("ratio", "step_seconds")] = median(steps)
    return results


if __name__ == "__main__":
    for key, value in main().items():
        print(f"{key} {value:.4g}")
