"""A network's split against the network itself: features, gradients, whole attacks, and networks that have none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foretaste.attacks.editing import shadow_cache
from foretaste.attacks.editing.editable_encoder import EditableEncoder
from foretaste.attacks.editing.frozen_prefix import split_body
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.attacks.weights.bad_encoder import BadEncoder
from foretaste.attacks.weights.pacl import PACL
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.encoders.resnet_small import resnet18_small
from foretaste.runtime import Runtime, stream
from tests.attacks.weights_fixture import OWN, SHADOW, TARGET, encoder_of

IMAGES = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "images"))


class Attention(nn.Module):
    """A class token and one block whose code asks for sizes: what a vision transformer is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.token = nn.Parameter(torch.ones(1, 1, 8))
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        return self.out(x + y.transpose(1, 2).reshape(b, n, d))[:, 0]


class Curious(nn.Module):
    """Its code depends on values, so it has no graph; its blocks are a `Sequential` all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x if x.sum() > 0 else -x).mean((2, 3))


class Shortcut(nn.Module):
    """The images themselves are used again behind the trained layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.last(self.first(x)) + x).mean((2, 3))


def encoder(body: nn.Module, d: int) -> Encoder:
    return Encoder(body, Card(name="net", architecture="tests", d=d, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3)))


def resnet() -> Encoder:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        body = resnet18_small(4)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(0.1)  # type: ignore[union-attr]
            module.running_var.mul_(1.5)  # type: ignore[union-attr]
    return encoder(body, 32)


NETWORKS: list[tuple[Encoder, list[str], list[tuple[int, ...]]]] = [
    (resnet(), ["layer4.0.conv1.weight", "layer4.1.conv2.weight"], [(16, 8, 8), (32, 4, 4)]),
    (resnet(), ["layer4.1.conv2.weight"], [(32, 4, 4), (32, 4, 4)]),  # the input and the shortcut around it
    (resnet(), ["layer2.0.conv2.weight", "layer2.0.bn2.bias"], [(8, 16, 16), (8, 16, 16)]),
    (encoder(Attention(), 6), ["out.weight"], [(17, 8)]),
    (encoder(Attention(), 6), ["qkv.weight", "out.weight"], [(17, 8)]),
]


@pytest.mark.parametrize(("whole", "names", "shapes"), NETWORKS, ids=lambda case: str(case)[:40])
def test_both_parts_give_the_networks_features_and_gradients(
    whole: Encoder, names: list[str], shapes: list[tuple[int, ...]]
) -> None:
    split = split_body(whole, names, IMAGES[:2].float() / 255)
    assert split is not None
    parts, plain = EditableEncoder(whole, names, split, Runtime()), EditableEncoder(whole, names, None, Runtime())
    with torch.no_grad():
        for one in (*parts.weights, *plain.weights):  # an edit: the suffix must see it
            one.mul_(1.3)
    entered = parts.enter(IMAGES)
    assert sorted(tuple(part.shape[1:]) for part in entered) == sorted(shapes)
    assert not any(part.requires_grad for part in entered)
    again = parts.enter(IMAGES[:3])
    found, expected = parts.features(again, parts.enter(IMAGES[3:])), plain.features(plain.enter(IMAGES))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)
    v = torch.randn(found.shape, generator=stream(0, "v"))
    slopes = (torch.autograd.grad((z * v).sum(), e.weights) for z, e in ((found, parts), (expected, plain)))
    for a, b in zip(*slopes, strict=True):
        assert float(b.norm()) > 0 and torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("whole", "names"),
    [
        (resnet(), ["conv1.weight"]),
        (encoder(Curious(), 6), ["blocks.1.weight"]),
        (encoder(Shortcut(), 3), ["last.weight"]),
    ],
    ids=["nothing before", "no graph", "images used again"],
)
def test_networks_without_a_split_run_whole(whole: Encoder, names: list[str]) -> None:
    assert split_body(whole, names, IMAGES[:2].float() / 255) is None
    edited = EditableEncoder(whole, names, None, Runtime())
    assert torch.equal(edited.features(edited.enter(IMAGES)).detach(), whole(IMAGES.float() / 255))


def test_a_wrong_graph_is_not_believed() -> None:
    """A trace can freeze what depends on the batch; the trial finds it."""

    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.last(self.first(x).mean((2, 3)) * self.calls)

    assert split_body(encoder(Centred(), 3), ["last.weight"], IMAGES[:2].float() / 255) is None


CASES: list[tuple[Any, dict[str, Any]]] = [
    (PACL, {"batch": 64, "steps": 8, "enough": 1.0}),
    (PACL, {"batch": 64, "steps": 8, "trainable": "last-two-stages", "reference_side": "moving", "anchor": 1.0}),
    (PACL, {"batch": 64, "steps": 6, "views": 3, "noise": 4.0, "optimizer": "sgd", "step": 0.01, "utility": 1.0}),
    (BadEncoder, {"batch": 64, "epochs": 2, "step": 0.02, "trainable": "last-stage", "references": 5}),
]


@pytest.mark.parametrize(("attack", "fields"), CASES, ids=str)
@pytest.mark.parametrize("kept_bytes", [2**30, 100_000], ids=["all kept", "few kept"])
def test_edited_weights_are_those_of_the_whole_network(
    attack: Any, fields: dict[str, Any], kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> Corruption:
        shadow_cache._prepare.cache_clear()
        corruption: Corruption = attack(**fields).corrupt(
            EditProblem(encoder_of(), (TARGET,), (OWN,), SHADOW, 0, Runtime())
        )
        return corruption

    monkeypatch.setattr(shadow_cache, "KEPT_BYTES", kept_bytes)
    monkeypatch.setattr(shadow_cache, "ROWS_AT_ONCE", 64)
    split = made()
    monkeypatch.setattr(shadow_cache, "split_body", lambda *_: None)
    whole = made()
    shadow_cache._prepare.cache_clear()
    assert (split.ledger.figures["frozen_prefix"], whole.ledger.figures["frozen_prefix"]) == (1, 0)
    assert split.ledger.changed == whole.ledger.changed
    clean = encoder_of().body.state_dict()
    for key in split.ledger.changed:
        a, b = split.state[key] - clean[key], whole.state[key] - clean[key]
        assert bool(a.isfinite().all()) and float((a - b).norm()) < 0.01 * float(b.norm()), key


def test_only_as_much_is_kept_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    fields: Any = (SHADOW, Runtime(), "last-stage", False)
    shadow_cache._prepare.cache_clear()
    whole = shadow_cache.prepare_shadow(encoder_of(), *fields)
    monkeypatch.setattr(shadow_cache, "KEPT_BYTES", 100_000)
    monkeypatch.setattr(shadow_cache, "ROWS_AT_ONCE", 64)
    shadow_cache._prepare.cache_clear()
    few = shadow_cache.prepare_shadow(encoder_of(), *fields)
    shadow_cache._prepare.cache_clear()
    assert len(whole.kept[0]) == 400 and 64 <= len(few.kept[0]) < 400
    rows = torch.tensor([399, 3, 70, 390, 0])
    edited = few.copy_of(encoder_of(), Runtime())
    for a, b in zip(whole.entered(edited, rows), few.entered(edited, rows), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_activations_are_kept_in_the_precision_they_have() -> None:
    fields: Any = (SHADOW, Runtime("cpu", "bfloat16", True), "last-stage", False)
    cache = shadow_cache.prepare_shadow(encoder_of(), *fields)
    assert all(kept.dtype == torch.bfloat16 for kept in cache.kept)
    edited = cache.copy_of(encoder_of(), Runtime("cpu", "bfloat16", True))
    z = edited.features(cache.entered(edited, torch.arange(50))).detach()
    assert z.dtype == torch.float32 and torch.allclose(z, cache.z[:50], atol=0.05)
