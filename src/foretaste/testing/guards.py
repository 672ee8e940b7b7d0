"""`check_guard`: what a guard of inputs promises."""

from __future__ import annotations

from typing import Any

import torch

from foretaste.defences import find
from foretaste.defences.guards.base import Guard, GuardRows
from foretaste.errors import ConformanceError, DataError
from foretaste.runtime import Runtime
from foretaste.testing import toy
from foretaste.testing.method import configured
from foretaste.testing.promise import digest, done, keep, tensor_like


def check_guard(guard: str | type[Guard] | Guard, /, **fields: Any) -> None:
    """Fit a guard to clean images, score some inputs and see that it keeps what its kind promises.

    Frozen, documented fields and an entry that makes it again; a finite float64 score per input on the CPU, of no
    input as well; the same bytes for the same context; encoders, clean images and inputs as they were, and the
    process; inputs of another shape or type are refused with a DataError.

    Args:
        guard: its class, a configured value, or a name as on the command line. Choose settings that are quick.
        fields: of the guard, beside a class or a name.

    Raises:
        ConformanceError: a promise is broken; it says which.
    """
    value: Guard = configured(guard, fields, lambda name: find(name, "guard"), "guard")
    who, inputs = value.name, toy.images(40, "test").pixels
    first, again = _scores(value, inputs), _scores(value, inputs)
    keep(torch.equal(first, again), f"{who}: the same context gives the same bytes", got="others", do="use its seed")
    fitted = value.fit(_context())
    none = done(who, "scores no input", lambda: fitted.score(inputs[:0]))
    tensor_like(f"{who}: a score per input", none, torch.float64, [0])
    for wrong in (inputs.float(), inputs[:, :, :4], inputs[0]):
        try:
            fitted.score(wrong)
        except DataError:
            continue
        raise ConformanceError(
            f"{who}: a DataError for inputs of another shape or type",
            got=f"none for {wrong.dtype} {list(wrong.shape)}",
            do="call check_inputs(inputs, clean)",
        )


def _context() -> GuardRows:
    return GuardRows(toy.encoder(), toy.images(120, "owner"), Runtime(), second=toy.encoder("second"), seed=2)


def _scores(value: Guard, inputs: torch.Tensor) -> torch.Tensor:
    who, context = value.name, _context()
    before = digest(inputs=inputs, clean=context.clean.pixels, labels=context.clean.labels)
    scores = done(who, "fits and scores 40 inputs", lambda: value.fit(context).score(inputs))
    tensor_like(f"{who}: a score per input", scores, torch.float64, [len(inputs)], "return scores.double().cpu()")
    after = digest(inputs=inputs, clean=context.clean.pixels, labels=context.clean.labels)
    keep(after == before, f"{who}: clean images and inputs stay as they were", got="others", do="work on copies")
    for encoder in (context.encoder, context.second):
        assert encoder is not None
        same = encoder.sha256() == encoder.card.sha256 and not any(module.training for module in encoder.modules())
        keep(same, f"{who}: the encoders stay as they were", got="another", do="work on a copy")
    return scores
