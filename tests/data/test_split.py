"""The split: disjoint, stratified, the same for the same seed, against naive counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from foretaste.data import Dataset, SplitSpec, load, split, whole
from foretaste.data.split import divide
from foretaste.errors import DataError
from foretaste.images import Images

PARTS = ("train", "validation", "clean", "test")


def numbered(counts: list[int], seed: int = 0, name: str = "rows") -> Images:
    """counts[c] rows of class c in a random order; the first three pixels of a row spell its number."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    pixels = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
    for row in range(len(labels)):
        pixels[row, :, 0, 0] = torch.tensor([row // 65536, row // 256 % 256, row % 256], dtype=torch.uint8)
    return Images(pixels, torch.from_numpy(labels), tuple(map(str, range(len(counts)))), name)


def rows(images: Images) -> list[int]:
    return [(a * 256 + b) * 256 + c for a, b, c in images.pixels[:, :, 0, 0].tolist()]


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(
    counts=st.lists(st.integers(5, 60), min_size=2, max_size=6),
    shares=st.sampled_from([(0.5, 0.4, 0.1), (0.3, 0.3, 0.3), (0.6, 0.25, 0.15), (0.1, 0.7, 0.2)]),
    seed=st.integers(0, 10**6),
    own_test=st.booleans(),
)
def test_parts_are_disjoint_stratified_and_in_order(
    counts: list[int], shares: tuple[float, float, float], seed: int, own_test: bool
) -> None:
    images = numbered(counts)
    dataset = Dataset(images, numbered(counts, seed=1) if own_test else None)
    spec = SplitSpec(train=shares[0], validation=shares[1], clean=shares[2], seed=seed)
    try:
        parts = split(dataset, spec)
    except DataError as error:
        assert "a row for the part" in str(error)
        assert max(counts) * min(shares) < 2  # only where every class is so small that a part may round to nothing
        return
    taken: list[int] = []
    for name in PARTS[: 3 if own_test else 4]:
        part = getattr(parts, name)
        assert rows(part) == sorted(rows(part))
        assert part.labels.tolist() == [int(images.labels[row]) for row in rows(part)]
        taken += rows(part)
    assert len(taken) == len(set(taken))
    rest, test = whole(dataset, spec)
    assert test.digest == parts.test.digest
    if own_test:
        assert parts.test is dataset.test
        assert rest is images
    else:
        assert sorted(rows(rest) + rows(test)) == list(range(len(images)))
    for label, n in enumerate(counts):
        left = rest.labels.tolist().count(label)
        if not own_test:
            assert abs(n - left - 0.2 * n) < 1
        for share, name in zip(shares, PARTS, strict=False):
            found = getattr(parts, name).labels.tolist().count(label)
            owed = shares[0] * left < 1  # so small a class may have to give a row to the victim
            assert abs(found - share * left) <= 1 + owed + 1e-9
        assert label in parts.train.labels


def test_balanced_data_give_exact_shares() -> None:
    parts = split(Dataset(numbered([100] * 4), numbered([10] * 4)), SplitSpec(seed=3))
    for name, per_class in zip(PARTS, (50, 40, 10, 10), strict=True):
        assert torch.bincount(getattr(parts, name).labels).tolist() == [per_class] * 4


def test_same_seed_same_rows_other_seed_other_rows() -> None:
    dataset = Dataset(numbered([50, 70, 30]))
    first, again, other = (split(dataset, SplitSpec(seed=seed)) for seed in (5, 5, 6))
    for name in PARTS:
        assert getattr(first, name).digest == getattr(again, name).digest
        assert getattr(first, name).digest != getattr(other, name).digest


def test_a_row_is_as_likely_in_each_part_as_its_share_says() -> None:
    """Over 400 seeds each row of a class of 7 lands in the victim's part 3.5 times in 7."""
    dataset = Dataset(numbered([7, 20]), numbered([2, 2]))
    hits = np.zeros(27)
    for seed in range(400):
        hits[rows(split(dataset, SplitSpec(seed=seed)).train)] += 1
    assert abs(hits / 400 - 0.5).max() < 4.5 * np.sqrt(0.25 / 400)


def test_rows_without_images_are_divided_by_the_same_rule() -> None:
    images, spec = numbered([50, 70, 30]), SplitSpec(seed=8)
    for held_out in (True, False):
        parts = split(Dataset(images, None if held_out else images), spec)
        found = divide(images.labels, images.classes, spec, "rows", test=held_out)
        assert list(found) == list(PARTS[: 4 if held_out else 3])
        for name, chosen in found.items():
            assert chosen.tolist() == rows(getattr(parts, name))
    with pytest.raises(DataError, match="few: a test row"):
        divide(images.labels[:1], images.classes, spec, "few", test=True)


def test_shares_that_leave_rows_unused() -> None:
    dataset = Dataset(numbered([100, 100]))
    parts = split(dataset, SplitSpec(train=0.1, validation=0.1, clean=0.0, test=0.5))
    assert [len(getattr(parts, name)) for name in PARTS] == [10, 10, 0, 100]
    assert len(whole(dataset, SplitSpec(test=0.5))[0]) == 100


def test_rare_classes_stay_with_the_victim() -> None:
    parts = split(Dataset(numbered([1, 2, 300])), SplitSpec(train=0.1, validation=0.5))
    assert set(parts.train.labels.tolist()) == {0, 1, 2}
    limited = split(Dataset(numbered([1, 2, 300])), SplitSpec(limit=20))
    assert len(limited.train) + len(limited.validation) + len(limited.clean) == 20
    assert set(limited.train.labels.tolist()) == {0, 1, 2}


def test_limit_keeps_exactly_so_many_rows_stratified_and_in_order() -> None:
    dataset = Dataset(numbered([400, 200, 100]), numbered([40, 20, 10], seed=1))
    spec = SplitSpec(limit=35)
    rest, test = whole(dataset, spec)
    for images, source in ((rest, dataset.train), (test, dataset.test)):
        assert source is not None
        assert len(images) == 35
        assert rows(images) == sorted(rows(images))
        for label, expected in enumerate((20, 10, 5)):
            assert abs(images.labels.tolist().count(label) - expected) <= 1
    assert split(dataset, spec).test.digest == test.digest
    assert whole(dataset, SplitSpec(limit=10**6)) == (dataset.train, dataset.test)


def test_impossible_splits_say_so() -> None:
    gap = Images(torch.zeros(20, 3, 1, 1, dtype=torch.uint8), torch.arange(20) % 2, ("a", "b", "gone"), "gap")
    with pytest.raises(DataError, match="gap: a training row of each of the 3 classes; got no row of gone in 16 rows"):
        split(Dataset(gap), SplitSpec())
    with pytest.raises(DataError, match=r"no row of .* in 2 rows"):
        split(Dataset(numbered([9, 9, 9])), SplitSpec(limit=2, clean=0, validation=0))
    with pytest.raises(DataError, match=r"a row for the part `clean`, a share of 0\.001; got 16 rows"):
        split(Dataset(numbered([10, 10])), SplitSpec(clean=0.001))
    with pytest.raises(DataError, match=r"a test row, a share of 0\.01; got 2 rows"):
        split(Dataset(numbered([1, 1])), SplitSpec(test=0.01))


@pytest.mark.parametrize(
    "fields",
    [{"train": 0.6}, {"train": 0}, {"test": 0}, {"test": 1}, {"clean": -0.1}, {"limit": 0}, {"seed": -1}, {"seeds": 1}],
)
def test_spec_refuses(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SplitSpec(**fields)


def test_spec_is_a_value() -> None:
    spec = SplitSpec(train=0.2, limit=7)
    assert SplitSpec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValidationError):
        spec.train = 0.3  # type: ignore[misc]


def test_digits_split_is_what_it_was() -> None:
    """Records name these digests: a change here makes old records impossible to reproduce."""
    parts = split(load("digits"), SplitSpec())
    assert [len(getattr(parts, name)) for name in PARTS] == [720, 575, 142, 360]
    assert [getattr(parts, name).digest[:12] for name in PARTS] == [
        "0df6418e44ce",
        "4d8ba8128c6d",
        "3170f2650a1f",
        "99336d9110ce",
    ]
