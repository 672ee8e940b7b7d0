from __future__ import annotations

import hashlib

import pytest
import torch

from foretaste.errors import DataError, ForetasteError
from foretaste.images import Images


def make(n: int = 5, classes: tuple[str, ...] = ("cat", "dog")) -> Images:
    pixels = (torch.arange(n * 3 * 4).view(n, 3, 2, 2) % 256).to(torch.uint8)
    return Images(pixels, torch.arange(n) % len(classes), classes, "toy")


def test_digest_is_the_sha256_of_the_content() -> None:
    images = make()
    head = f"torch.uint8 {[5, 3, 2, 2]} {['cat', 'dog']}".encode()
    expected = hashlib.sha256(head + images.pixels.numpy().tobytes() + images.labels.numpy().tobytes()).hexdigest()
    assert images.digest == expected


def test_digest_sees_pixels_labels_and_names_but_not_the_source() -> None:
    images = make()
    pixels = images.pixels.clone()
    pixels[4, 2, 1, 1] ^= 1
    others = [
        Images(pixels, images.labels, images.classes, "toy"),
        Images(images.pixels, 1 - images.labels, images.classes, "toy"),
        Images(images.pixels, images.labels, ("cat", "cow"), "toy"),
    ]
    assert len({one.digest for one in [images, *others]}) == 4
    assert Images(images.pixels, images.labels, images.classes, "elsewhere").digest == images.digest


def test_take_keeps_order_and_classes() -> None:
    images = make()
    taken = images.take(torch.tensor([3, 0]))
    assert torch.equal(taken.pixels, torch.stack([images.pixels[3], images.pixels[0]]))
    assert taken.labels.tolist() == [images.labels[3], images.labels[0]]
    assert taken.classes == images.classes


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), r"pixels uint8 .* got torch.float32"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\[2, 1, 4, 4\]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"labels int64 \[2\]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32), r"labels int64"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), r"labels in \[0, 1\]; got 0 to 2"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([-1, 0]), r"labels in \[0, 1\]; got -1 to 0"),
    ],
)
def test_what_breaks_the_contract_is_refused(pixels: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Images(pixels, labels, ("a", "b"), "toy")


def test_an_error_says_expected_got_and_do() -> None:
    assert str(ForetasteError("--x: one.", got="two", do="pass one")) == "--x: one; got two; pass one."
    assert issubclass(DataError, ForetasteError)
