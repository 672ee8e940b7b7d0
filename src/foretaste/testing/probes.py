"""`check_probe`: what a victim's head promises, on features or on images."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foretaste.probes import find
from foretaste.probes.base import FittedProbe, ImageProbe, Probe
from foretaste.runtime import Runtime
from foretaste.testing import toy
from foretaste.testing.method import configured
from foretaste.testing.promise import call, digest, done, keep, tensor_like

Fit = Callable[[Tensor, Tensor, int, int], FittedProbe]
"""Rows, labels, classes and seed to the fitted probe."""


def check_probe(probe: str | type[Probe | ImageProbe] | Probe | ImageProbe, /, **fields: Any) -> None:
    """Fit a probe to small sets of rows and see that it keeps what its kind promises.

    Frozen, documented fields and an entry that makes it again; classes int64 [k] in range on the CPU, the same for the
    same rows and seed, and for a row alone as among others; what it was given as it was, an encoder too, and the
    process; a class without a row, a constant feature, rows of zeros and a single row are fitted, or refused with a
    DataError.

    Args:
        probe: its class, a configured value, or a name as on the command line. Choose settings that are quick.
        fields: of the probe, beside a class or a name.

    Raises:
        ConformanceError: a promise is broken; it says which.
    """
    value: Probe | ImageProbe = configured(probe, fields, find, "probe")
    runtime = Runtime()
    if isinstance(value, ImageProbe):
        encoder = toy.encoder()
        train, test = toy.images(48, "train"), toy.images(30, "test")
        _check(value.name, partial(_on_images, value, encoder, runtime), train.pixels, train.labels, test.pixels)
        same = encoder.sha256() == encoder.card.sha256 and not any(module.training for module in encoder.modules())
        same = same and not any(weight.requires_grad for weight in encoder.parameters())
        keep(same, f"{value.name}: the encoder stays as it was", got="another", do="train a copy of encoder.body")
        return
    own = toy.features(60, "train")
    _check(value.name, partial(_on_features, value, runtime), own.z, own.y, toy.features(45, "test").z)


def _on_features(value: Probe, runtime: Runtime, z: Tensor, y: Tensor, classes: int, seed: int) -> FittedProbe:
    return value.fit(z, y, classes, seed, runtime)


def _on_images(
    value: ImageProbe, encoder: Any, runtime: Runtime, pixels: Tensor, y: Tensor, classes: int, seed: int
) -> FittedProbe:
    return value.fit(encoder, pixels, y, classes, seed, runtime)


def _check(who: str, fit: Fit, x: Tensor, y: Tensor, new: Tensor) -> None:
    """Rows x [n, ...] with labels y int64 [n], and other rows."""
    first = _classes(who, fit, x, y, new)
    keep(
        torch.equal(first, _classes(who, fit, x, y, new)),
        f"{who}: the same rows and seed give the same classes",
        got="others",
        do="draw from the seed alone",
    )
    odd = x.clone()
    odd[5] = 0
    if odd.ndim == 2:
        odd[:, 2] = 0
    _classes(who, fit, odd, y.clamp(max=1), new, "rows with a class of none, a constant feature and a row of zeros")
    single = call(
        who,
        "fits a single row",
        lambda: fit(x[:1], y[:1], toy.CLASSES, 0),
        may_refuse=True,
    )
    if single is not None:
        found = done(who, "predicts after a single row", lambda: single.predict(new))
        _in_range(who, found, len(new))


def _classes(who: str, fit: Fit, x: Tensor, y: Tensor, new: Tensor, what: str = "rows") -> Tensor:
    before = digest(x=x, y=y, new=new)
    fitted = done(who, f"fits {what}", lambda: fit(x, y, toy.CLASSES, 3))
    keep(
        isinstance(fitted, FittedProbe),
        f"{who}: a FittedProbe as its result",
        got=f"a {type(fitted).__name__}",
        do="return ft.FittedProbe(predict=...)",
    )
    found = done(who, "predicts", lambda: fitted.predict(new))
    _in_range(who, found, len(new))
    alone = done(who, "predicts one row", lambda: fitted.predict(new[:1]))
    keep(
        torch.equal(alone, found[:1]),
        f"{who}: a row gets the same class alone as among others",
        got=f"{alone.tolist()} and {found[:1].tolist()}",
        do="use nothing of the rows that are predicted but each by itself",
    )
    keep(digest(x=x, y=y, new=new) == before, f"{who}: the rows stay as they were", got="others", do="work on copies")
    keep(
        all(math.isfinite(value) for value in fitted.figures.values()),
        f"{who}: finite figures",
        got=str(fitted.figures),
        do="leave out what has no value",
    )
    return found


def _in_range(who: str, found: Any, k: int) -> None:
    tensor_like(f"{who}: classes", found, torch.int64, [k], "return scores.argmax(1).cpu()")
    ends = f"{int(found.min())} to {int(found.max())}"
    inside = bool(((found >= 0) & (found < toy.CLASSES)).all())
    keep(inside, f"{who}: classes in [0, {toy.CLASSES - 1}]", got=ends)
