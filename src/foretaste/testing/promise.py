"""How a check is made: a promise is kept or named, and the process is as it was, whatever a method does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from foretaste.errors import ConformanceError, DataError, ForetasteError
from foretaste.runtime import digest_tensors

T = TypeVar("T")


def keep(ok: bool, promise: str, *, got: str = "", do: str = "") -> None:
    """Raise unless a promise was kept.

    Args:
        ok: it was.
        promise: who promised what.
        got: what was found instead.
        do: the one thing to do about it.

    Raises:
        ConformanceError: it was not.
    """
    if not ok:
        raise ConformanceError(promise, got=" ".join(got.split()), do=do)


def call(who: str, doing: str, work: Callable[[], T], *, may_refuse: bool = False, do: str = "") -> T | None:
    """The result of a method's work, which must leave the process as it was.

    Args:
        who: the method's name.
        doing: what it does, for messages.
        work: does it.
        may_refuse: a DataError with a reason is an answer as well.
        do: about a failure.

    Returns:
        The result; None if it was refused.

    Raises:
        ConformanceError: it failed, or left something else than it found.
    """
    before = _process()
    promised = f"{who}: {doing}" + (", or refuses with a DataError" if may_refuse else " without an error")
    try:
        return work()
    except ConformanceError:
        raise
    except ForetasteError as error:
        if may_refuse and isinstance(error, DataError):
            return None
        raise ConformanceError(promised, got=f"{type(error).__name__}: {error}", do=do) from error
    except Exception as error:
        shown = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConformanceError(promised, got=shown[:300], do=do) from error
    finally:
        _unmoved(who, doing, before)


def done(who: str, doing: str, work: Callable[[], T], do: str = "") -> T:
    """`call` of what must not be refused."""
    return cast(T, call(who, doing, work, do=do))


@dataclass
class Steps:
    """A progress that remembers, and knows what it may be told."""

    seen: list[tuple[Any, ...]] = field(default_factory=list)

    def __call__(self, *told: Any) -> None:
        """Remember."""
        self.seen.append(told)

    def check(self, who: str, words: int = 2) -> None:
        """Every call is (steps done, steps in all), in order; none at all is fine too.

        Args:
            who: the method's name.
            words: how many arguments a call has; the first two count.

        Raises:
            ConformanceError: it was told something else.
        """
        counts = [told[:2] for told in self.seen]
        good = all(len(told) == words for told in self.seen) and all(
            isinstance(n, int) for count in counts for n in count
        )
        good = good and all(0 <= count[0] <= count[1] for count in counts)
        good = good and [count[0] for count in counts] == sorted(count[0] for count in counts)
        keep(
            good,
            f"{who}: progress is called with (steps done, steps in all), upwards",
            got=", ".join(map(str, self.seen[:5])),
            do="pass whole numbers, or do not call it",
        )


def digest(**tensors: Tensor | None) -> str:
    """One digest of named tensors; None is told from a tensor."""
    there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return digest_tensors(there) + "".join(sorted(there))


def shown(tensor: Any) -> str:
    """What a value is, in a message."""
    if not isinstance(tensor, Tensor):
        return f"a {type(tensor).__name__}"
    kind = str(tensor.dtype).removeprefix("torch.")
    place = "" if tensor.device.type == "cpu" else f" on {tensor.device}"
    return f"{kind} {list(tensor.shape)}{place}" + (" that requires a gradient" if tensor.requires_grad else "")


def tensor_like(
    promise: str, found: Any, dtype: torch.dtype, shape: Sequence[int], do: str = "", *, finite: bool = True
) -> None:
    """Raise unless a value is a tensor of that dtype and shape on the CPU, without a gradient, finite.

    Raises:
        ConformanceError: it is something else.
    """
    good = isinstance(found, Tensor) and found.dtype == dtype and list(found.shape) == list(shape)
    good = good and found.device.type == "cpu" and not found.requires_grad
    wanted = f"{str(dtype).removeprefix('torch.')} {list(shape)} on the CPU"
    keep(good, f"{promise}: {wanted}", got=shown(found), do=do)
    if finite:
        keep(bool(torch.isfinite(found).all()), f"{promise}: finite", got="NaN or infinity", do=do)


def _process() -> dict[str, Any]:
    state = np.random.get_state()  # noqa: NPY002
    return {
        "torch's global random state": torch.get_rng_state(),
        "numpy's global random state": state,
        "Python's global random state": random.getstate(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "numpy's treatment of errors": np.geterr(),
    }


RESTORE: dict[str, Callable[[Any], Any]] = {
    "torch's global random state": torch.set_rng_state,
    "numpy's global random state": np.random.set_state,
    "Python's global random state": random.setstate,
    "torch's number of threads": torch.set_num_threads,
    "torch's default dtype": torch.set_default_dtype,
    "torch's gradient mode": torch.set_grad_enabled,
    "torch's deterministic mode": torch.use_deterministic_algorithms,
    "numpy's treatment of errors": lambda errors: np.seterr(**errors),
}
"""What a method has to leave alone, and how it is put back if it did not."""


def _unmoved(who: str, doing: str, before: dict[str, Any]) -> None:
    after = _process()
    moved = [what for what in before if not _same(before[what], after[what])]
    for what in moved:
        RESTORE[what](before[what])
    random_state = any("random" in what for what in moved)
    keep(
        not moved,
        f"{who}: {doing} leaves {', '.join(moved)} alone",
        got="another one afterwards",
        do="draw from foretaste.runtime.stream(seed, name)" if random_state else "put it back, or never change it",
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple) and one and isinstance(one[0], str):  # numpy's, with an array inside
        return repr(one[2:]) == repr(other[2:]) and bool((one[1] == other[1]).all())
    return bool(one == other)
