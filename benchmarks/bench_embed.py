"""`embed` beside a bare torch loop with the same network, batch, dtype and memory format."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.features.embed import embed
from foretaste.runtime import Runtime, make_runtime, stream

GOALS = {"throughput_ratio_float32": (">=", 0.95), "throughput_ratio_bfloat16": (">=", 0.95)}
IMAGES, BATCH, ROUNDS = 2000, 256, 7


def bare(encoder: Encoder, pixels: Tensor, runtime: Runtime) -> Tensor:
    """What one would write by hand."""
    kind = torch.device(runtime.device).type
    mean, std = encoder.mean, encoder.std
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
    parts = []
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=runtime.precision == "bfloat16"):
        for start in range(0, len(pixels), BATCH):
            images = pixels[start : start + BATCH].to(runtime.device).float().div_(255).contiguous(memory_format=layout)
            parts.append(encoder.body((images - mean) / std).float())
    return torch.cat(parts).cpu()


def main() -> dict[str, float]:
    """Median over interleaved rounds of the bare loop's seconds / those of `embed`: 1 is equal, more is faster."""
    base = make_runtime()
    encoder = build(EncoderSpec(reference="resnet18-small", width=16)).to(base.device)
    pixels = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "bench"))
    results = {}
    for precision, channels_last in (("float32", False), ("bfloat16", True)):
        runtime = Runtime(base.device, precision, channels_last)
        loops = [lambda r=runtime: embed(encoder, pixels, r, BATCH), lambda r=runtime: bare(encoder, pixels, r)]
        if not torch.allclose(*(loop() for loop in loops), atol=1e-5):  # also warms up
            raise AssertionError("the two loops do not compute the same features")
        times: list[list[float]] = [[], []]
        for number in range(ROUNDS):
            for which in (0, 1) if number % 2 else (1, 0):
                start = perf_counter()
                loops[which]()
                times[which].append(perf_counter() - start)
        ratio = median(b / e for e, b in zip(*times, strict=True))
        results[f"throughput_ratio_{precision}"] = ratio
        results[f"images_per_second_{precision}"] = IMAGES / median(times[0])
    return results


if __name__ == "__main__":
    for key, value in main().items():
        print(f"{key} {value:.4g}")
