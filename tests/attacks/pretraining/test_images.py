"""The images of the pre-training attacks against their definitions: PIL's resizing, blends by hand, the density."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.integrate import quad
from torch import Tensor

from foretaste.attacks.base import PretrainingAttack
from foretaste.attacks.pretraining.interpolation import Interpolation, path
from foretaste.attacks.pretraining.poisoned_encoder import LAYOUTS, PoisonedEncoder, join
from foretaste.attacks.results import PretrainingPoison
from foretaste.errors import BudgetError, SpecError
from foretaste.images import Images
from foretaste.runtime import stream

ATTACKS = (PoisonedEncoder(), Interpolation(references=3))
every = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def noise(n: int, name: str, side: int = 12) -> Images:
    pixels = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=stream(0, name))
    return Images(pixels, torch.zeros(n, dtype=torch.int64), ("a",), name)


POOL = noise(40, "pool", 8)
TARGETS = list(noise(3, "targets").pixels)
REFERENCES = [noise(n, f"references {n}") for n in (2, 5, 7)]


def made_by(attack: PretrainingAttack, rows: int = 50, seed: int = 0, **change: Any) -> PretrainingPoison:
    given = {"targets": TARGETS, "references": REFERENCES, "pool": POOL} | change
    return attack.poison(given["targets"], given["references"], given["pool"], rows, seed)


def pil(image: Tensor, height: int, width: int) -> NDArray[np.float64]:
    """Another library's bilinear resizing with an average: [3, height, width]."""
    small = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1).astype(float)


@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_half_is_the_target_and_the_other_a_reference(layout: str, size: tuple[int, int]) -> None:
    target, references = TARGETS[0], REFERENCES[1].pixels
    joined = join(target, references, layout, size)
    assert joined.dtype == torch.uint8 and joined.shape == (5, 3, *size)
    height, width = size
    for image, reference in zip(joined, references, strict=True):
        first, second = (target, reference) if layout in ("left-right", "top-bottom") else (reference, target)
        if layout in ("left-right", "right-left"):
            halves = [pil(first, height, width // 2), pil(second, height, width - width // 2)]
            expected = np.concatenate(halves, 2)
        else:
            halves = [pil(first, height // 2, width), pil(second, height - height // 2, width)]
            expected = np.concatenate(halves, 1)
        assert np.abs(image.numpy() - expected).max() <= 1  # PIL rounds after each axis


def test_every_combination_comes_once_before_any_comes_again() -> None:
    made = made_by(PoisonedEncoder(), 3 * 20)
    for pair, own in enumerate(REFERENCES):
        wanted = torch.cat([join(TARGETS[pair], own.pixels, layout, (8, 8)) for layout in LAYOUTS])
        rows = made.pixels[made.pair == pair]
        times = (rows[:, None] == wanted).flatten(2).all(2).sum(0)  # [combinations]
        assert int(times.sum()) == 20 and int(times.max() - times.min()) <= 1
    assert made.ledger.figures == {"distinct_combinations": 8 + 20 + 20}


def test_a_layout_and_a_number_of_references_can_be_asked_for() -> None:
    made = made_by(PoisonedEncoder(layout="bottom-top", references=2), 3 * 20)
    for pair, own in enumerate(REFERENCES):
        rows = made.pixels[made.pair == pair]
        assert len(rows.unique(dim=0)) == 2
        assert bool((rows[:, None, :, :4] == join(TARGETS[pair], own.pixels, "bottom-top", (8, 8))[None, :, :, :4])
                    .flatten(2).all(2).any(1).all())  # fmt: skip


def test_blends_are_the_papers_and_rounded() -> None:
    pool = noise(4, "pool", 12)  # no resizing: the blend alone
    made = made_by(Interpolation(), 3 * 9, pool=pool)
    for pair, own in enumerate(REFERENCES):
        rows, target = made.pixels[made.pair == pair].numpy(), TARGETS[pair].numpy().astype(float)
        a = path(9, 1.0).numpy().reshape(-1, 1, 1, 1)
        fits = [
            np.abs(rows - ((1 - a) * reference.numpy() + a * target)).max() <= 0.5 + 1e-4 for reference in own.pixels
        ]
        assert sum(fits) == 1
        assert np.array_equal(rows[-1], target)


def test_several_paths_share_a_targets_rows() -> None:
    made = made_by(Interpolation(references=3), 3 * 8, pool=noise(4, "pool", 12))
    rows = made.pixels[made.pair == 1]
    starts = (rows[:, None] == REFERENCES[1].pixels).flatten(2).all(2)  # [rows, references]
    ends = (rows == TARGETS[1]).flatten(1).all(1)
    assert int(starts.sum()) == int(starts.any(0).sum()) == int(ends.sum()) == 3
    few = made_by(Interpolation(references=3), 3 * 2, pool=noise(4, "pool", 12))  # two paths of one image each
    assert [int((few.pair == pair).sum()) for pair in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("skew", [-2.0, -1.0, 0.0, 0.3, 1.0, 2.0])
def test_points_of_a_path_have_the_density(skew: float) -> None:
    a = path(101, skew)
    assert bool((a.diff() > 0).all()) and (float(a[0]), float(a[-1])) == (0.0, pytest.approx(1.0))
    for place in (1, 20, 50, 90, 100):
        below, _ = quad(lambda t: 1 + skew * (0.5 - t), 0, float(a[place]))
        assert below == pytest.approx(place / 100, abs=1e-9)
    median, _ = quad(lambda t: 1 + skew * (0.5 - t), 0, float(path(1, skew)))
    assert median == pytest.approx(0.5)
    assert skew == 0 or bool(a[50] < 0.5) == (skew > 0), "the paper's density has more images near the reference"


@every
def test_all_rows_are_used_and_shared_evenly(attack: PretrainingAttack) -> None:
    for rows, counts in ((3, [1, 1, 1]), (50, [17, 17, 16])):
        made = made_by(attack, rows)
        assert made.pixels.dtype == torch.uint8 and made.pixels.shape == (rows, 3, 8, 8)
        assert made.pair.dtype == torch.int64 and [int((made.pair == pair).sum()) for pair in range(3)] == counts
        assert (made.ledger.changed, made.ledger.added) == ([], rows)


@every
def test_what_cannot_be_poisoned_is_a_clear_error(attack: PretrainingAttack) -> None:
    with pytest.raises(BudgetError, match=r"at least one for each of the 3 .* pairs; got 2; pass a larger budget"):
        made_by(attack, 2)
    empty = REFERENCES[0].take(torch.arange(0))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"targets": [], "references": []}, "at least one target.*0 targets and 0 sets"),
        ({"references": REFERENCES[:2]}, "3 targets and 2 sets"),
        ({"references": [empty, *REFERENCES[1:]]}, "target 0: at least one image of the desired class; got no image"),
        ({"targets": [TARGETS[0].float(), *TARGETS[1:]]}, r"target 0: uint8 \[3, H, W\]; got torch.float32"),
        ({"targets": [TARGETS[0], TARGETS[1][:1], TARGETS[2]]}, r"target 1: uint8 .* got torch.uint8 \[1, 12, 12\]"),
        ({"targets": [REFERENCES[0].pixels[1], *TARGETS[1:]]}, "target 0: an image that is not of the desired class"),
    ]
    for change, message in wrong:
        with pytest.raises(SpecError, match=message):
            made_by(attack, **change)


def test_fields_have_ranges_and_uses_have_names() -> None:
    for fields in ({"layout": "diagonal"}, {"references": 0}, {"together": 0}):
        with pytest.raises(SpecError, match="poisoned-encoder: fields"):
            PoisonedEncoder.configure(**fields)
    with pytest.raises(SpecError, match=r"skew = 3"):
        Interpolation.configure(skew=3)
    names = [attack.variant for attack in (PoisonedEncoder(), PoisonedEncoder(layout="right-left"))]
    assert names == ["", "layout right-left"]
    assert [Interpolation(skew=skew).variant for skew in (1, -1)] == ["", "skew -1"]
    assert all(PoisonedEncoder(layout=layout).layout == layout for layout in LAYOUTS)
