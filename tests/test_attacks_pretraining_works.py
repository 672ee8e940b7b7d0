"""PoisonedEncoder on a real encoder: pre-training continued with the poison against the same without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from foretaste.attacks.pretraining.poisoned_encoder import PoisonedEncoder
from foretaste.data import load
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.pretrain.continued import continued
from foretaste.pretrain.simclr import SimCLR
from foretaste.runtime import Runtime, make_runtime, stream, training_runtime

PAIRS, REFERENCES, POOL, SHARE = 5, 20, 5000, 0.2
METHOD = SimCLR(epochs=4, batch=64, lr=0.1, warmup=0.1)


def closeness(encoder: Encoder, targets: Tensor, references: list[Images], pool: Images, runtime: Runtime) -> Tensor:
    """Mean cosine of each target to its references, [pairs], of features standardised by the pool's."""
    clean = embed(encoder, pool.pixels, runtime)
    z, *others = (
        normalize((embed(encoder, pixels, runtime) - clean.mean(0)) / clean.std(0), dim=1)
        for pixels in (targets, *(own.pixels for own in references))
    )
    return torch.stack([(own @ target).mean() for target, own in zip(z, others, strict=True)])


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.timeout(3600)
def test_targets_come_closer_to_their_references_than_without_the_poison(shared: Path) -> None:
    runtime = training_runtime(make_runtime("cpu"))
    weights = shared / "encoders" / "simclr_resnet18_w16_cifar10.safetensors"
    encoder = build(EncoderSpec(reference="resnet18-small", weights=weights))
    data = load(str(shared / "data" / "cifar10_jpeg_10k2k.npz"))
    pool, own = data.train.take(torch.arange(POOL)), data.train.take(torch.arange(POOL, 2 * POOL))
    rng = stream(0, "choice")
    rows = torch.randperm(len(data.test), generator=rng)[:PAIRS]
    wanted = (data.test.labels[rows] + torch.randint(1, 10, (PAIRS,), generator=rng)) % 10
    targets = data.test.pixels[rows]
    references = [own.take((own.labels == label).nonzero()[:REFERENCES, 0]) for label in wanted]

    made = PoisonedEncoder().poison(list(targets), references, pool, int(SHARE * POOL), 0)
    labels = torch.zeros(len(made.pixels), dtype=torch.int64)  # not used
    poisoned = Images(
        torch.cat([pool.pixels, made.pixels]), torch.cat([pool.labels, labels]), pool.classes, "with poison"
    )
    with_poison, without = (
        closeness(continued(encoder, images, METHOD, 0, runtime), targets, references, pool, runtime)
        for images in (poisoned, pool)
    )
    assert float((with_poison - without).mean()) > 0.1
    assert bool((with_poison > without).all())
