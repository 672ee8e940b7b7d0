"""What an attack gives back: its result and a ledger of what it did. It never judges itself: the referee does.

Results take numpy arrays and torch tensors; arrays are copied and converted here, tensors are kept as they are, so that
the referee sees what the attack delivered. A ledger that is left out is made from the delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.errors import AttackError
from foretaste.record import Ledger

Rows = Tensor | NDArray[Any]
"""Rows, labels or places of them, as an attack may deliver them."""


@dataclass(frozen=True, eq=False, init=False)
class Poisoning:
    """Rows to add to the head's training data, or to put in the place of some of it.

    Attributes:
        y: int64 [m], the labels that the poison carries.
        base: int64 [m], the row of `Knowledge.z` (of the training set, where all of it is known) that each poison
            started from.
        ledger: what the attack did; left out it says what is delivered: the distinct bases, and m rows.
        z: float32 [m, d] when the attacker writes features; None when images are added.
        pixels: uint8 [m, 3, H, W] when the attacker writes images; None when features are added.
        constraint: name of the constraint that the attack promises to keep; the referee checks it: `none`, `box`
            (inside each feature's range), `ball` (round the class's centroid) or `pixels`. Left out: `pixels` where
            images are delivered, else `none`.
        limits: numbers that complete it, e.g. {"epsilon": 8.0} (L-inf, in 1/255), {"reach": 0.5} (L-inf, in standard
            deviations of each feature) or {"quantile": 0.95}.
        replaces: poison j stands in the place of training row base[j], under that row's own label, and each row is
            replaced once; else the m rows are added.

    Raises:
        AttackError: an array of numpy that torch has no type for.
    """

    y: Tensor
    base: Tensor
    ledger: Ledger
    z: Tensor | None
    pixels: Tensor | None
    constraint: str
    limits: dict[str, float] | None
    replaces: bool

    def __init__(
        self,
        y: Rows,
        base: Rows,
        ledger: Ledger | None = None,
        z: Rows | None = None,
        pixels: Rows | None = None,
        constraint: str | None = None,
        limits: dict[str, float] | None = None,
        replaces: bool = False,
    ) -> None:
        labels, places = _tensor("y", y), _tensor("base", base)
        if ledger is None:
            m = labels.numel()
            ledger = Ledger(changed=distinct(places), added=0 if replaces else m, replaced=m if replaces else 0)
        vars(self).update(
            y=labels,
            base=places,
            ledger=ledger,
            z=None if z is None else _tensor("z", z),
            pixels=None if pixels is None else _tensor("pixels", pixels),
            constraint=constraint or ("none" if pixels is None else "pixels"),
            limits=limits,
            replaces=replaces,
        )


@dataclass(frozen=True, eq=False, init=False)
class PretrainingPoison:
    """Unlabelled images to add to the pre-training data.

    Attributes:
        pixels: uint8 [m, 3, H, W].
        pair: int64 [m], the place in `targets` of the pair that each image is for.
        ledger: what the attack did; `changed` is empty, `added` is m. Left out it says just that.

    Raises:
        AttackError: an array of numpy that torch has no type for.
    """

    pixels: Tensor
    pair: Tensor
    ledger: Ledger

    def __init__(self, pixels: Rows, pair: Rows, ledger: Ledger | None = None) -> None:
        images, places = _tensor("pixels", pixels), _tensor("pair", pair)
        if ledger is None:
            ledger = Ledger(changed=[], added=len(images) if images.ndim else 0)
        vars(self).update(pixels=images, pair=places, ledger=ledger)


@dataclass(frozen=True, eq=False, init=False)
class Corruption:
    """A poisoned encoder: a complete state dict with the keys of the encoder it came from, and the ledger.

    Attributes:
        state: name -> tensor.
        ledger: what the attack did. Left out it names no tensor until `with_ledger` has compared the state with the
            clean one.
        told: the ledger is the attack's own.
    """

    state: dict[str, Tensor]
    ledger: Ledger
    told: bool = field(init=False)

    def __init__(self, state: dict[str, Tensor], ledger: Ledger | None = None) -> None:
        vars(self).update(state=state, ledger=ledger or Ledger(changed=[]), told=ledger is not None)

    def ledger_of(self, clean: Mapping[str, Tensor]) -> Ledger:
        """The attack's own ledger; of an attack that gave none, the names of the tensors that differ from `clean`."""
        if self.told:
            return self.ledger
        return Ledger(changed=[name for name, tensor in clean.items() if not _same(tensor, self.state.get(name))])

    def with_ledger(self, clean: Mapping[str, Tensor]) -> Corruption:
        """The corruption with its ledger written, see `ledger_of`.

        Args:
            clean: state dict of the encoder that it came from.
        """
        return self if self.told else Corruption(self.state, self.ledger_of(clean))


def _tensor(what: str, rows: Rows) -> Tensor:
    """A tensor as it is; an array as a tensor of its own, integers (but bytes) as int64 and floats as float32."""
    if isinstance(rows, Tensor):
        return rows
    array = np.asarray(rows)
    kind = {"i": np.int64, "u": np.int64, "f": np.float32}.get(array.dtype.kind, array.dtype)
    if array.dtype == np.uint8 and what == "pixels":
        kind = np.uint8
    try:
        return torch.from_numpy(np.array(array, dtype=kind, order="C"))
    except TypeError:
        raise AttackError(
            f"{what}: an array of numbers",
            got=f"{array.dtype} {list(array.shape)}",
            do="pass a numpy array or a torch tensor",
        ) from None


def distinct(base: Tensor) -> list[int]:
    """The places in ascending order; none of what are no places, which the referee refuses by its dtype."""
    if base.is_floating_point() or base.is_complex() or base.dtype == torch.bool:
        return []
    return [int(row) for row in base.unique().tolist()]


def _same(clean: Tensor, edited: Tensor | None) -> bool:
    if not isinstance(edited, Tensor) or edited.dtype != clean.dtype:
        return False
    return torch.equal(clean.cpu(), edited.cpu())
