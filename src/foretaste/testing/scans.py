"""`check_scan`: what a scan of an encoder promises."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import torch

from foretaste.defences import find
from foretaste.defences.scans.base import Finding, Scan, Scene
from foretaste.encoders.base import Encoder
from foretaste.errors import ConformanceError, DataError
from foretaste.runtime import Runtime, stream
from foretaste.testing import toy
from foretaste.testing.method import configured
from foretaste.testing.promise import Steps, digest, done, keep, tensor_like

IMAGES = 60


def check_scan(scan: str | type[Scan] | Scan, /, **fields: Any) -> None:
    """Look at some tiny encoders and see that a scan keeps what its kind promises.

    Frozen, documented fields and an entry that makes it again; a finite score, evidence that JSON can keep, and a
    finite float64 score per image if it says so; the same bytes for the same arguments; the encoders and the process
    as they were; what is missing (`needs`) is refused with a DataError; `compare` judges an encoder alike wherever it
    stands among the others.

    Args:
        scan: its class, a configured value, or a name as on the command line. Choose settings that are quick.
        fields: of the scan, beside a class or a name.

    Raises:
        ConformanceError: a promise is broken; it says which.
    """
    value: Scan = configured(scan, fields, lambda name: find(name, "scan"), "scan")
    told = Steps()
    first, again = _found(value, 1, told), _found(value, 1, None)
    told.check(value.name)
    keep(_bytes(first) == _bytes(again), f"{value.name}: the same arguments give the same bytes", got="others")
    _missing(value)
    _alike(value)


def _scene() -> Scene:
    reference, other = toy.encoder(), toy.encoder("second")
    return Scene(Runtime(), toy.images(IMAGES, "scan"), reference=reference, other=other)


def _suspect(seed: int) -> Encoder:
    """The tiny encoder with each tensor moved a little: a clean fine-tune's stand-in."""
    own, draws = toy.encoder(), stream(seed, "testing/suspect")
    body = copy.deepcopy(own.body)
    with torch.no_grad():
        for name, tensor in body.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.02 * tensor.abs().mean() * torch.randn(tensor.shape, generator=draws))
                tensor.abs_() if name.endswith("running_var") else None
    return Encoder(body, own.card)


def _found(value: Scan, seed: int, told: Steps | None) -> Finding:
    """What it sees in one encoder, as it must be."""
    who, suspect, scene = value.name, _suspect(seed), _scene()
    assert scene.images is not None
    assert scene.reference is not None
    assert scene.other is not None
    encoders = (suspect, scene.reference, scene.other)
    before = digest(pixels=scene.images.pixels, labels=scene.images.labels)
    more = {} if told is None else {"progress": told}
    found = done(who, "scans an encoder", lambda: value.scan(suspect, scene, 3, **more))
    keep(isinstance(found, Finding), f"{who}: a Finding as its result", got=f"a {type(found).__name__}")
    keep(math.isfinite(found.score), f"{who}: a finite score", got=str(found.score))
    try:
        json.dumps(found.evidence, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConformanceError(f"{who}: evidence that JSON can keep", got=str(error), do="use plain numbers") from error
    keep(
        (found.inputs is not None) == value.scores_inputs,
        f"{who}: a score per image exactly if scores_inputs says so",
        got=f"scores_inputs = {value.scores_inputs}",
    )
    if found.inputs is not None:
        tensor_like(f"{who}: a score per image", found.inputs, torch.float64, [IMAGES])
    for encoder in encoders:
        same = encoder.sha256() == encoder.card.sha256 and not any(module.training for module in encoder.modules())
        same = same and not any(weight.requires_grad or weight.grad is not None for weight in encoder.parameters())
        keep(same, f"{who}: the encoders stay as they were", got="another", do="work on a copy")
    after = digest(pixels=scene.images.pixels, labels=scene.images.labels)
    keep(after == before, f"{who}: the images stay as they were", got="others", do="work on copies")
    return found


def _bytes(found: Finding) -> tuple[float, str, str]:
    return found.score, json.dumps(found.evidence), digest(inputs=found.inputs, towards=found.towards)


def _missing(value: Scan) -> None:
    if not value.needs:
        return
    try:
        value.scan(_suspect(1), Scene(Runtime()), 3)
    except DataError:
        return
    raise ConformanceError(
        f"{value.name}: a DataError where the scene lacks {' and '.join(value.needs)}",
        got="none",
        do="ask for it with scene.require_images or scene.require",
    )


def _alike(value: Scan) -> None:
    pool = [_found(value, seed, None) for seed in range(1, 5)]
    forward = [one.score for one in value.compare(pool)]
    backward = [one.score for one in value.compare(pool[::-1])][::-1]
    same = len(forward) == len(backward) == len(pool)
    same = same and all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in zip(forward, backward, strict=True))
    keep(
        same and all(map(math.isfinite, forward)),
        f"{value.name}: `compare` judges an encoder alike wherever it stands",
        got=f"{forward} and {backward}",
        do="treat no place of the pool in its own way",
    )
