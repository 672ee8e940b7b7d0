from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from foretaste.encoders import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import EncoderError


class Contrary(nn.Module):
    """Flattens the images, and breaks the contract in the way its subclass says."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, 4)
        self.register_buffer("count", torch.zeros(1))


class Random(Contrary):
    def forward(self, images: Tensor) -> Tensor:
        return functional.dropout(self.linear(images.flatten(1)), training=True)


class Maps(Contrary):
    def forward(self, images: Tensor) -> Tensor:
        return images


class Tuple(Contrary):
    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images.flatten(1),)


class Whole(Contrary):
    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1)).argmax(1, keepdim=True)


class NotFinite(Contrary):
    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1)) / 0


class InPlace(Contrary):
    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.sub_(0.5).flatten(1))


class Counting(Contrary):
    def forward(self, images: Tensor) -> Tensor:
        self.count += 1
        return self.linear(images.flatten(1))


class Mixing(Contrary):
    def forward(self, images: Tensor) -> Tensor:
        return self.linear((images - images.mean(0)).flatten(1))


class Fails(Contrary):
    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images)


class OtherBatch(Contrary):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((0, 2, 3))[None]


class Extra(Random):
    def get_extra_state(self) -> object:
        return {"not": "a tensor"}

    def set_extra_state(self, state: object) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Random", "the same features in every pass"),
        ("Maps", r"forward returns float32 \[2, 3, 32, 32\]; pool or flatten"),
        ("Tuple", "forward returns a tuple"),
        ("Whole", r"forward returns int64 \[2, 1\]"),
        ("NotFinite", "NaN or infinite features"),
        ("InPlace", "the same features in every pass.*in place"),
        ("Counting", "changes its output, its input or its weights"),
        ("Mixing", "do not depend on the others in its batch"),
        ("Fails", "RuntimeError: .*mat1 and mat2"),
        ("OtherBatch", r"got float \[1, 3\]"),
        ("Extra", "a state dict of tensors; got others in _extra_state"),
    ],
)
def test_networks_that_break_the_contract(kind: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        build.build(EncoderSpec(reference=f"{__name__}:{kind}"))


def test_the_check_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    with pytest.raises(EncoderError, match="the same features in every pass"):
        build.build(EncoderSpec(reference=f"{__name__}:Random"))
    assert torch.equal(torch.get_rng_state(), before)
