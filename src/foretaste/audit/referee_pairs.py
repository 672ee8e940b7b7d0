"""What the referee recomputes besides, of attacks on one chosen image: labels, targets, pre-training images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foretaste.attacks.results import Poisoning, PretrainingPoison
from foretaste.audit.pipeline import Pipeline
from foretaste.images import Images, digest_rows
from foretaste.record import Check


def judge_target(given: Tensor, target: Tensor, poisoning: Poisoning, wanted: int) -> list[Check]:
    """Every row carries the wanted label, and the target that the attack was given is as it was.

    Args:
        given: the copy that the attack had, uint8 [3, H, W].
        target: the referee's own.
        poisoning: its result.
        wanted: the class that the target is to get.
    """
    labels = sorted(set(poisoning.y.tolist()))
    return [
        Check(name="wanted label", ok=labels == [wanted], found=f"labels {labels[:5]}, {wanted} wanted"),
        _same("target untouched", torch.equal(given, target)),
    ]


def judge_pretraining(
    pipeline: Pipeline,
    given: Sequence[Tensor],
    targets: Sequence[Tensor],
    references: Sequence[Images],
    poison: PretrainingPoison,
    rows: int,
) -> list[Check]:
    """Budget, form, shares and ledger of pre-training poison, and that what the attack was given is as it was.

    Args:
        pipeline: has the pool, and in `loan` the copy that the attack worked on.
        given: target images that it was given.
        targets: the referee's own.
        references: images that it was given.
        poison: its result.
        rows: images that it may add.
    """
    assert pipeline.pool is not None
    assert pipeline.images is not None
    assert pipeline.loan.pool is not None
    pixels, pair, ledger = poison.pixels, poison.pair, poison.ledger
    size, m = list(pipeline.pool.images.pixels.shape[1:]), len(pixels)
    form = pixels.dtype == torch.uint8 and list(pixels.shape) == [m, *size]
    told = pair.dtype == torch.int64 and pair.shape == (m,)
    told = told and bool(((pair >= 0) & (pair < len(targets))).all())
    most = int(torch.bincount(pair).max()) if told and m else 0
    fair = math.ceil(rows / len(targets))
    kept = all(_digest(one) == one.digest for one in references)
    kept = kept and all(torch.equal(one, own) for one, own in zip(given, targets, strict=True))
    kept = kept and _digest(pipeline.loan.pool) == pipeline.pool.images.digest
    kept = kept and _digest(pipeline.loan.validation) == pipeline.images.validation.digest
    return [
        Check(name="budget", ok=0 < m <= rows, found=f"{m} images of at most {rows}"),
        Check(name="images", ok=form, found=f"{pixels.dtype} {list(pixels.shape)}, pre-training images {size}"),
        Check(
            name="shares",
            ok=told and most <= fair,
            found=f"at most {most} images for one pair of {len(targets)}, {fair} allowed"
            if told
            else f"pair {pair.dtype} {list(pair.shape)} is not {m} of {len(targets)} pairs",
        ),
        Check(
            name="ledger",
            ok=ledger.added == m and not ledger.changed and not ledger.replaced,
            found=f"{ledger.added} images declared, {m} added, {len(ledger.changed)} changed",
        ),
        _same("clean images untouched", kept),
    ]


def _same(name: str, same: bool) -> Check:
    return Check(name=name, ok=same, found="same digest" if same else "digest changed")


def _digest(images: Images) -> str:
    return digest_rows(images.pixels, images.labels, images.classes)
