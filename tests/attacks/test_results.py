"""What attacks give back: numpy and torch both, and a ledger that is made where none is given."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.errors import AttackError
from foretaste.record import Ledger

Y, BASE = np.array([1, 0, 2], dtype=np.int32), np.array([4, 2, 4], dtype=np.uint8)


def test_arrays_become_tensors_of_the_dtypes_that_the_referee_asks_for() -> None:
    z = np.arange(6, dtype=np.float64).reshape(3, 2)
    made = Poisoning(y=Y, base=BASE, z=z, constraint="box", limits={"reach": 1.0})
    assert made.y.dtype == made.base.dtype == torch.int64 and made.y.tolist() == [1, 0, 2]
    assert made.z is not None and made.z.dtype == torch.float32 and made.z.tolist() == z.tolist()
    assert made.pixels is None and made.constraint == "box" and made.limits == {"reach": 1.0} and not made.replaces
    pixels = np.zeros((3, 3, 2, 2), dtype=np.uint8)
    images, mirrored = (Poisoning(y=Y, base=BASE, pixels=given).pixels for given in (pixels, pixels[::-1]))
    assert images is not None and mirrored is not None and images.dtype == mirrored.dtype == torch.uint8
    pixels[:] = 7
    assert int(images.max()) == 0, "a copy: what the attack does with its array later changes nothing"


def test_tensors_and_numbers_of_another_kind_stay_for_the_referee_to_refuse() -> None:
    made = Poisoning(y=torch.tensor([1.0]), base=torch.tensor([0], dtype=torch.int32), z=torch.zeros(1, 2).double())
    assert (made.y.dtype, made.base.dtype) == (torch.float32, torch.int32)
    assert made.z is not None and made.z.dtype == torch.float64
    odd = Poisoning(y=np.array([0.5]), base=np.array([0.5]), pixels=np.zeros((1, 3, 2, 2)))
    assert odd.y.dtype == odd.base.dtype == torch.float32 and odd.ledger.changed == []
    assert odd.pixels is not None and odd.pixels.dtype == torch.float32
    with pytest.raises(AttackError, match=r"y: an array of numbers; got object \[1\]"):
        Poisoning(y=np.array(["cat"], dtype=object), base=BASE)


def test_a_ledger_that_is_left_out_says_what_is_delivered() -> None:
    added = Poisoning(y=Y, base=BASE, z=np.zeros((3, 2))).ledger
    assert added == Ledger(changed=[2, 4], added=3)
    replaced = Poisoning(y=Y, base=torch.tensor([7, 3, 5]), z=np.zeros((3, 2)), replaces=True).ledger
    assert replaced == Ledger(changed=[3, 5, 7], replaced=3)
    own = Ledger(changed=[1], added=9)
    assert Poisoning(y=Y, base=BASE, ledger=own).ledger is own
    assert replace(Poisoning(y=Y, base=BASE, ledger=own), replaces=True).ledger is own
    images = PretrainingPoison(np.zeros((2, 3, 4, 4), dtype=np.uint8), np.array([0, 1]))
    assert images.ledger == Ledger(changed=[], added=2) and images.pair.dtype == torch.int64
    assert images.pixels.dtype == torch.uint8
    assert PretrainingPoison(images.pixels, images.pair, own).ledger is own


def test_results_are_immutable() -> None:
    with pytest.raises(AttributeError):
        Poisoning(y=Y, base=BASE).y = torch.zeros(3)  # type: ignore[misc]


def test_a_corruption_without_a_ledger_is_compared_with_the_clean_state() -> None:
    clean = {"a": torch.zeros(2), "b": torch.ones(2), "c": torch.zeros(1)}
    made = Corruption({"a": torch.zeros(2), "b": torch.tensor([1.0, 2.0]), "c": torch.zeros(1).double()})
    assert made.ledger.changed == [] and not made.told
    assert made.ledger_of(clean).changed == ["b", "c"] == made.with_ledger(clean).ledger.changed
    assert Corruption({"a": torch.zeros(2)}).ledger_of(clean).changed == ["b", "c"], "what is missing is not the same"
    own = Corruption({"a": torch.ones(2)}, Ledger(changed=[], passes=3))
    assert own.told and own.with_ledger(clean) is own and own.ledger_of(clean).passes == 3
