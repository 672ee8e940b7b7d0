"""Images to features: whole batches from the uint8 tensor, in the precision that this machine is fastest in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from foretaste.encoders.base import Encoder
from foretaste.errors import EncoderError
from foretaste.runtime import Runtime

Progress = Callable[[int, int], None]
"""Called with (images done, images in all); does nothing to the result."""

GROUP = 32
"""Batches that stay on the device before their features are fetched: a fetch per batch would stall an accelerator."""
ROUNDS = 3
CANDIDATES = (("bfloat16", True), ("bfloat16", False), ("float32", True))
"""(precision, channels_last), the most promising first: a slow encoder leaves no time for the last."""


def quiet(done: int, total: int) -> None:
    """The default progress: say nothing."""


def embed(encoder: Encoder, pixels: Tensor, runtime: Runtime, batch: int = 256, progress: Progress = quiet) -> Tensor:
    """Features of images; the same arguments give the same bytes.

    The encoder moves to the runtime's device if it is elsewhere; its weights keep their bytes and memory format
    (channels_last weights gain nothing over channels_last images: 0.244 s both, ResNet-18 at width 16, two cores).

    Args:
        encoder: d features per image.
        pixels: uint8 [N, 3, H, W].
        runtime: device, precision inside the encoder, memory format.
        batch: images per forward pass, at least 1.
        progress: called after each batch.

    Returns:
        float32 [N, d] on the CPU.

    Raises:
        EncoderError: the encoder fails on these images, gives another shape than [N, d], or NaN or infinity.
    """
    encoder.to(runtime.device)
    n = len(pixels)
    # Made outside inference mode, so that callers may use the features in autograd.
    z = torch.empty(n, encoder.card.d)
    with torch.inference_mode(), runtime.autocast():
        for first in range(0, n, GROUP * batch):
            parts: list[Tensor] = []
            for start in range(first, min(first + GROUP * batch, n), batch):
                parts.append(_forward(encoder, runtime.images(pixels[start : start + batch])))
                progress(min(start + batch, n), n)
            z[first : first + GROUP * batch] = torch.cat(parts)
    if n and not all(bool(bound.isfinite()) for bound in z.aminmax()):
        row = int((~z.isfinite().all(1)).nonzero()[0])
        raise EncoderError(
            f"encoder {encoder.card.name}: finite features",
            got=f"NaN or infinity for image {row} of {n} in {runtime.precision}",
            do="check the weights and the normalisation" + (", or use float32" * (runtime.precision != "float32")),
        )
    return z


def probe_precision(
    encoder: Encoder,
    sample: Tensor,
    runtime: Runtime,
    *,
    batch: int = 256,
    seconds: float = 1.2,
    gain: float = 1.2,
    likeness: float = 0.999,
) -> Runtime:
    """Time float32 against bfloat16 and channels_last on a few images, and pick what pays.

    Timings vary from run to run: keep the choice with the spec, so that an audit that is resumed uses the same.

    Args:
        encoder: to be probed.
        sample: uint8 [k, 3, H, W], a batch or so of the images to come.
        runtime: its device is kept.
        batch: images per forward pass, at most; fewer where they take long.
        seconds: time for the whole probe; an encoder of over 0.3 s an image takes longer, and gets fewer candidates.
        gain: least speed over float32 that a candidate must have to be picked.
        likeness: least mean cosine between a candidate's features and those of float32.

    Returns:
        The runtime with precision, memory format and the reason.

    Raises:
        EncoderError: the encoder fails in float32.
    """
    started = perf_counter()
    base = replace(runtime, precision="float32", channels_last=False)
    if not len(sample):
        return replace(base, reason="float32: no images to probe with")
    images = sample[: _rows_to_time(encoder, sample, base, batch, seconds)]
    features = {base: embed(encoder, images, base, batch)}
    for precision, channels_last in CANDIDATES:
        if len(features) > 1 and perf_counter() - started > seconds / 2:
            break
        candidate = replace(base, precision=precision, channels_last=channels_last)
        try:
            features[candidate] = embed(encoder, images, candidate, batch)
        except EncoderError:  # some modules call `view` on what channels_last has made non-contiguous
            continue
    times: dict[Runtime, list[float]] = {one: [] for one in features}
    while not times[base] or (len(times[base]) < ROUNDS and perf_counter() - started < seconds):
        for one, measured in times.items():
            measured.append(_seconds(encoder, images, one, batch))
    # Ratios within a round: a neighbour on the same cores slows all of a round alike.
    speed = {one: median(b / t for b, t in zip(times[base], times[one], strict=True)) for one in features}
    chosen, facts = base, []
    for one in sorted(features.keys() - {base}, key=lambda key: speed[key]):  # the fastest last, and so the chosen
        cosine = float(cosine_similarity(features[base], features[one]).mean())
        facts.append(f"{_label(one)} {speed[one]:.2f} times as fast, mean cosine {cosine:.5f}")
        if speed[one] >= gain and cosine >= likeness:
            chosen = one
    found = "; ".join(reversed(facts)) or "nothing else runs"
    scale = f"images per pass: {len(images)}, rounds: {len(times[base])}"
    return replace(chosen, reason=f"{_label(chosen)} chosen; against float32: {found} ({scale})")


def _forward(encoder: Encoder, images: Tensor) -> Tensor:
    name, expected = encoder.card.name, [len(images), encoder.card.d]
    try:
        z: Tensor = encoder(images)
    except RuntimeError as error:
        raise EncoderError(
            f"encoder {name}: features of images {list(images.shape)}",
            got=(str(error).splitlines() or [type(error).__name__])[0],
            do="check the input size; if memory ran out, use a smaller batch",
        ) from error
    if list(z.shape) != expected:
        raise EncoderError(f"encoder {name}: features {expected}", got=str(list(z.shape)))
    return z


def _rows_to_time(encoder: Encoder, sample: Tensor, base: Runtime, batch: int, seconds: float) -> int:
    """Images per timed pass: as many as keep all passes of the probe within its time."""
    most = min(len(sample), batch)
    share = seconds / (len(CANDIDATES) + 1) / (ROUNDS + 1)
    _seconds(encoder, sample[:1], base, batch)  # the first call sets up kernels
    rows, taken = 1, _seconds(encoder, sample[:1], base, batch)
    while rows < most and 4 * taken < share:
        rows = min(4 * rows, most)
        taken = _seconds(encoder, sample[:rows], base, batch)
    return max(1, min(most, int(rows * share / taken)))


def _seconds(encoder: Encoder, images: Tensor, runtime: Runtime, batch: int) -> float:
    started = perf_counter()
    embed(encoder, images, runtime, batch)
    return perf_counter() - started


def _label(runtime: Runtime) -> str:
    return runtime.precision + (" with channels_last" if runtime.channels_last else "")
