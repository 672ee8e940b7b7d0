"""The referee recomputes what an attack promised. It shares no code with the attacks, on purpose."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.attacks.base import Corruption, Poisoning
from foretaste.audit.pipeline import Pipeline
from foretaste.record import Check

SLACK = 1e-5  # relative, for float32 sums


def judge_poisoning(pipeline: Pipeline, poisoning: Poisoning, budget: float) -> list[Check]:
    """Budget, shape, range, constraint and ledger of added rows, and that the victim's own rows are untouched."""
    n, m = len(pipeline.train), len(poisoning.y)
    labels = poisoning.y
    checks = [
        Check(name="budget", ok=0 < m <= budget * n * (1 + 1e-9), found=f"{m} rows of at most {budget:g} x {n}"),
        Check(
            name="labels",
            ok=labels.dtype == torch.int64 and bool(((labels >= 0) & (labels < pipeline.classes)).all()),
            found=f"{int(labels.min())} to {int(labels.max())}",
        ),
        Check(
            name="ledger",
            ok=poisoning.ledger.added == m
            and poisoning.base.shape == labels.shape
            and set(poisoning.ledger.changed) == set(poisoning.base.tolist())
            and bool(((poisoning.base >= 0) & (poisoning.base < n)).all()),
            found=f"{poisoning.ledger.added} rows added, based on {len(poisoning.ledger.changed)} training rows",
        ),
        _one_carrier(poisoning, m),
    ]
    if poisoning.pixels is not None and pipeline.images is not None:
        checks.append(_pixels(pipeline.images.train.pixels, poisoning))
    elif poisoning.z is not None:
        checks.append(_features(pipeline.train.z, pipeline.train.y, poisoning))
    return [*checks, *untouched(pipeline)]


def judge_corruption(pipeline: Pipeline, corruption: Corruption) -> list[Check]:
    """Keys, shapes, finiteness and ledger of a poisoned encoder, and that the clean one is untouched."""
    assert pipeline.encoder is not None
    clean = pipeline.encoder.body.state_dict()
    state = corruption.state
    same_shape = state.keys() == clean.keys() and all(
        state[name].shape == tensor.shape and state[name].dtype == tensor.dtype for name, tensor in clean.items()
    )
    finite = all(bool(torch.isfinite(t).all()) for t in state.values() if t.is_floating_point())
    changed = (
        [name for name, tensor in clean.items() if not torch.equal(tensor.cpu(), state[name].cpu())]
        if same_shape
        else []
    )
    return [
        Check(name="keys and shapes", ok=same_shape, found=f"{len(state)} tensors"),
        Check(name="finite", ok=finite, found="all finite" if finite else "NaN or infinity"),
        Check(
            name="ledger",
            ok=sorted(changed) == sorted(str(name) for name in corruption.ledger.changed),
            found=f"{len(changed)} tensors changed, {len(corruption.ledger.changed)} declared",
        ),
        *untouched(pipeline),
    ]


def untouched(pipeline: Pipeline) -> list[Check]:
    """The victim's encoder and training rows are bit-identical to what they were before the attack."""
    from foretaste.images import digest_rows

    train = pipeline.train
    rows = digest_rows(train.z, train.y, train.classes) == train.digest
    if pipeline.images is not None:
        images = pipeline.images.train
        rows = rows and digest_rows(images.pixels, images.labels, images.classes) == images.digest
    checks = [Check(name="clean rows untouched", ok=rows, found="same digest" if rows else "digest changed")]
    if pipeline.encoder is not None:
        same = pipeline.encoder.sha256() == pipeline.encoder.card.sha256
        checks.append(Check(name="clean encoder untouched", ok=same, found="same sha256" if same else "sha256 changed"))
    return checks


def _one_carrier(poisoning: Poisoning, m: int) -> Check:
    given = [rows for rows in (poisoning.z, poisoning.pixels) if rows is not None]
    return Check(
        name="rows",
        ok=len(given) == 1 and len(given[0]) == m,
        found=", ".join(f"{rows.dtype} {list(rows.shape)}" for rows in given) or "nothing",
    )


def _pixels(clean: Tensor, poisoning: Poisoning) -> Check:
    """uint8 is inside [0, 1] by its type; what remains is the ball round the base image, in grey levels."""
    poison = poisoning.pixels
    assert poison is not None
    if poison.dtype != torch.uint8 or poison.shape[1:] != clean.shape[1:]:
        return Check(name="range", ok=False, found=f"{poison.dtype} {list(poison.shape)}")
    distance = (poison.to(torch.int16) - clean[poisoning.base].to(torch.int16)).abs()
    furthest = int(distance.max())
    limit = (poisoning.limits or {}).get("epsilon")
    return Check(
        name="range" if limit is None else "range and L-inf ball",
        ok=limit is None or furthest <= limit,
        found=f"uint8, at most {furthest} grey levels from the base image"
        + ("" if limit is None else f", {limit:g} allowed"),
    )


def _features(clean: Tensor, y: Tensor, poisoning: Poisoning) -> Check:
    poison = poisoning.z
    assert poison is not None
    if poison.shape[1:] != clean.shape[1:] or not bool(torch.isfinite(poison).all()):
        return Check(name="constraint", ok=False, found=f"{poison.dtype} {list(poison.shape)}, not all finite")
    if poisoning.constraint == "box":
        low, high = clean.min(0).values, clean.max(0).values
        outside = torch.maximum(low - poison, poison - high).max()
        return Check(
            name="constraint box", ok=float(outside) <= 0, found=f"{float(outside):.3g} beyond the clean range"
        )
    if poisoning.constraint == "ball":
        quantile = (poisoning.limits or {})["quantile"]
        worst = 0.0
        for c in poisoning.y.unique().tolist():
            rows = clean[y == c].double()
            centre = rows.mean(0)
            radius = torch.quantile((rows - centre).norm(dim=1), quantile)
            reach = (poison[poisoning.y == c].double() - centre).norm(dim=1).max()
            worst = max(worst, float(reach / radius))
        return Check(name="constraint ball", ok=worst <= 1 + SLACK, found=f"{worst:.6f} radii from the centroid")
    return Check(name="constraint none", ok=poisoning.constraint == "none", found="features anywhere")
