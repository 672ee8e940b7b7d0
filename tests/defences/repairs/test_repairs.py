"""Repairs of an encoder, each against an answer worked out another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from foretaste import defences
from foretaste.defences.repairs.average import Average
from foretaste.defences.repairs.base import Repair
from foretaste.defences.repairs.clp import CLP, channel_lipschitz
from foretaste.defences.repairs.distil import Distil
from foretaste.defences.repairs.fine_prune import FinePrune, mean_activity
from foretaste.defences.repairs.fine_tune import FineTune
from foretaste.defences.repairs.pairs import conv_norm_pairs
from foretaste.defences.repairs.student import fresh
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.card import Card
from foretaste.encoders.spec import EncoderSpec
from foretaste.encoders.weights import save_encoder
from foretaste.errors import DataError, EncoderError, SpecError, WeightsError
from foretaste.features.embed import embed
from foretaste.heads.fit import fit_head
from foretaste.runtime import Runtime, digest_tensors
from foretaste.testing import check_repair
from foretaste.testing import toy as testing_toy
from tests.attacks.weights_fixture import encoder_of, tinted

CPU = Runtime()
CLEAN, HELD_OUT = tinted(64, "owner"), tinted(60, "held out")
PLAIN = {"scale": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "grey": 0.0}
"""Views that are the image itself."""
SHAPE = CLEAN.pixels.shape


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkpoint of the tiny network."""
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    encoder = encoder_of()
    state = {key: value * 1.5 if value.is_floating_point() else value + 7 for key, value in state_of(encoder).items()}
    save_encoder(path, state, encoder.card)
    return path


def state_of(encoder: Encoder) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in encoder.body.state_dict().items()}


def features(encoder: Encoder) -> Tensor:
    return embed(encoder, HELD_OUT.pixels, CPU)


def mend(repair: Repair, encoder: Encoder, seed: int = 0) -> Encoder:
    return repair.mend(encoder, CLEAN, seed, CPU)


def settings(other: Path) -> list[Repair]:
    quick: dict[str, list[dict[str, Any]]] = {
        "fine-tune": [{"epochs": 2, "batch": 32}, {"epochs": 2, "batch": 32, "loss": "supervised"}],
        "distil": [{"epochs": 2, "batch": 32}, {"epochs": 1, "batch": 32, "student": "last-stage"}],
        "clp": [{"u": 1.0}],
        "fine-prune": [{"epochs": 1, "batch": 32, "layers": 2}, {"epochs": 0, "batch": 32}],
        "average": [{"with_weights": other}],
    }
    assert set(quick) == {name for name, entry in defences.DEFENCES.items() if entry.kind == "repair"}
    return [defences.configure(name, fields, "repair") for name, choices in quick.items() for fields in choices]


def test_what_every_repair_promises(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"  # of the network of the checks
    save_encoder(other, testing_toy.encoder("second").body.state_dict(), testing_toy.encoder("second").card)
    for repair in settings(other):
        check_repair(repair)


def test_what_every_repair_keeps(other: Path) -> None:
    """Weights of its own, and on the card what was done, without the folders of this machine."""
    for repair in settings(other):
        encoder = encoder_of()
        one = mend(repair, encoder, 3)
        assert one.sha256() == one.card.sha256 != encoder.sha256(), repr(repair)
        assert f"then {repair.name}" in one.card.source and str(other.parent) not in one.card.source
        assert features(one).shape == (60, 16) and one.card.mean == encoder.card.mean


def test_too_few_clean_images_are_refused(other: Path) -> None:
    none = CLEAN.take(torch.arange(0))
    for repair in settings(other):
        if not repair.least:
            assert repair.mend(encoder_of(), none, 0, CPU).sha256() == mend(repair, encoder_of()).sha256()
            continue
        for images in (none, CLEAN.take(torch.arange(31))):
            with pytest.raises(
                DataError, match=rf"{repair.name}: at least 32 clean .*; got {len(images)} in owner; pass"
            ):
                repair.mend(encoder_of(), images, 0, CPU)


def test_a_repair_is_no_filter() -> None:
    with pytest.raises(SpecError, match=r"filter: one of sphere, .*got 'clp'"):
        defences.configure("clp", {}, "filter")
    with pytest.raises(SpecError, match=r"repair: one of fine-tune, .*got 'sphere'"):
        defences.configure("sphere", {}, "repair")


def naive_constants(kernel: Tensor, norm: nn.BatchNorm2d) -> np.ndarray[Any, Any]:
    """u_k, channel by channel, by numpy's singular values of the folded kernel."""
    assert norm.running_var is not None
    weight, gamma = kernel.detach().double().numpy(), norm.weight.detach().double().numpy()
    std = np.sqrt(norm.running_var.double().numpy() + norm.eps)
    folded = [weight[k].reshape(weight.shape[1], -1) * abs(gamma[k] / std[k]) for k in range(len(weight))]
    return np.array([np.linalg.svd(matrix, compute_uv=False)[0] for matrix in folded])


def test_clp_by_the_definition() -> None:
    encoder = encoder_of()
    net = encoder.body.net
    found = {pair.name: pair for pair in conv_norm_pairs(encoder, encoder.body, SHAPE, "clp")}
    expected = state_of(encoder)
    for place, module in enumerate(net):
        if isinstance(module, nn.BatchNorm2d):
            u = naive_constants(net[place - 1].weight, module)
            np.testing.assert_allclose(channel_lipschitz(found.pop(f"net.{place}")), u, rtol=1e-10)
            for channel in np.flatnonzero(u > u.mean() + 1.5 * u.std(ddof=1)):
                expected[f"net.{place}.weight"][channel] = expected[f"net.{place}.bias"][channel] = 0
    assert not found, "every pair, and nothing else"
    repaired = mend(CLP(u=1.5), encoder)
    changed = sum(int((value != expected[key]).sum()) for key, value in encoder.body.state_dict().items())
    assert changed and digest_tensors(expected) == repaired.sha256()


def test_clp_counts_deviations_as_the_authors_do() -> None:
    """Of (0, 0, 0, 1) mean and deviation with n - 1 are 1/4 and 1/2: 1 is 1.5 deviations above, and not more."""
    constants = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    assert CLP(u=1.49).outstanding(constants).tolist() == [False, False, False, True]
    assert not CLP(u=1.51).outstanding(constants).any() and not CLP(u=0).outstanding(constants[3:]).any()


def test_clp_prunes_the_planted_channel_alone() -> None:
    encoder = encoder_of()
    encoder.body.net[3].weight.data[5] *= 50
    before = state_of(encoder)
    repaired = mend(CLP(), encoder).body.state_dict()
    for key, value in before.items():
        moved = (repaired[key] != value).flatten().nonzero()[:, 0].tolist()
        assert moved == ([5] if key in ("net.4.weight", "net.4.bias") else []), key
    assert repaired["net.4.weight"][5] == repaired["net.4.bias"][5] == 0


def test_pairs_of_a_residual_network() -> None:
    encoder = build(EncoderSpec(reference="resnet18-small", width=2))
    pairs = conv_norm_pairs(encoder, encoder.body, (32, 32), "clp")
    names = {module: name for name, module in encoder.body.named_modules()}
    found = {pair.name: names[pair.conv] for pair in pairs}
    norms = [name for name, module in encoder.body.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert found == {name: name.replace("bn", "conv").replace("downsample.1", "downsample.0") for name in norms}


@pytest.mark.parametrize("repair", [CLP(), FinePrune(batch=32)], ids=lambda repair: repair.name)
def test_pruning_needs_batch_norm(repair: Repair) -> None:
    with pytest.raises(EncoderError, match=rf"{repair.name}: an encoder with convolutions that are .*got tiny, which"):
        mend(repair, encoder_of(norm=False))


def test_average_is_the_arithmetic_mean(other: Path) -> None:
    encoder, second = encoder_of(), encoder_of()
    for weight in second.body.parameters():
        weight.data += 0.25
    repaired = Average(share=0.25).mend_with(encoder, second).body.state_dict()
    theirs = second.body.state_dict()
    for key, value in encoder.body.state_dict().items():
        mean = 0.75 * value.double().numpy() + 0.25 * theirs[key].double().numpy()
        np.testing.assert_allclose(repaired[key].double().numpy(), mean, rtol=1e-6, atol=1e-7)
    from_file = mend(Average(with_weights=other), encoder).body.state_dict()
    for key, value in encoder.body.state_dict().items():
        wanted = 1.25 * value if value.is_floating_point() else value
        torch.testing.assert_close(from_file[key], wanted)


def test_average_needs_the_same_architecture(other: Path, tmp_path: Path) -> None:
    small = build(EncoderSpec(reference="resnet18-small", width=2))
    with pytest.raises(WeightsError, match=r"average: other.safetensors: the .* keys of the network"):
        mend(Average(with_weights=other), small)
    with pytest.raises(WeightsError, match="tensors with the network's shapes"):
        Average().mend_with(small, build(EncoderSpec(reference="resnet18-small", width=3)), "wider")
    with pytest.raises(WeightsError, match="no such file"):
        mend(Average(with_weights=tmp_path / "none.safetensors"), encoder_of())
    with pytest.raises(SpecError, match=r"average: another checkpoint .*got none; pass --with-weights"):
        mend(Average(), encoder_of())


@pytest.mark.parametrize("centred", [True, False])
def test_a_student_comes_near_its_teacher_and_inherits_nothing(centred: bool) -> None:
    teacher = encoder_of()
    first = Encoder(fresh(teacher, 0), teacher.card)
    student = mend(Distil(epochs=30, batch=32, lr=5e-3, views=PLAIN, centred=centred), teacher)
    mean = embed(teacher, CLEAN.pixels, CPU).mean(0) if centred else 0
    wanted = features(teacher) - mean
    before, after = (float(cosine_similarity(features(one) - mean, wanted).mean()) for one in (first, student))
    assert before < 0.4 and after > (before + 0.1 if centred else 0.95), (before, after)
    theirs = dict(teacher.body.named_parameters())
    for name, weight in student.body.named_parameters():
        if weight.ndim > 1:
            assert not torch.isclose(weight, theirs[name], rtol=1e-3).float().mean() > 0.02, name
            likeness = cosine_similarity(weight.flatten(), theirs[name].flatten(), dim=0)
            assert abs(likeness) < 0.3, f"{name}: {likeness:.2f}"


def test_fresh_weights() -> None:
    for encoder in (encoder_of(), build(EncoderSpec(reference="resnet18-small", width=2))):
        own = state_of(encoder)
        all_new, again, last = (fresh(encoder, 1, last=last).state_dict() for last in (False, False, True))
        assert digest_tensors(all_new) == digest_tensors(again) != digest_tensors(own)
        matrices = [key for key, value in own.items() if value.ndim > 1]
        assert not any(torch.equal(all_new[key], own[key]) for key in matrices)
        kept = [torch.equal(last[key], own[key]) for key in matrices]
        count = int(0.75 * len(matrices))
        assert kept == [True] * count + [False] * (len(matrices) - count)


def test_a_network_that_cannot_start_anew_is_refused() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) @ self.table

    encoder = Encoder(Own(), Card(name="own", architecture="tests", d=4))
    with pytest.raises(EncoderError, match="own: a network whose layers can draw their weights again; got table as"):
        mend(Distil(epochs=1, batch=32), encoder)


def with_idle_channels() -> Encoder:
    """The tiny network; channels 1, 7 and 9 of its last convolution are below zero whatever the image."""
    encoder = encoder_of()
    norm = encoder.body.net[-2]
    norm.weight.data[[1, 7, 9]] = 0.01
    norm.bias.data[[1, 7, 9]] = -1.0
    return encoder


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize("loss", ["contrastive", "supervised"])
def test_fine_pruning_zeroes_the_idle_channels(epochs: int, loss: str) -> None:
    encoder = with_idle_channels()
    before, name = state_of(encoder), f"net.{len(encoder.body.net) - 2}"
    repair = FinePrune(share=0.2, epochs=epochs, batch=32, loss=loss)  # 0.2 * 16 = 3.2 channels
    repaired = mend(repair, encoder).body.state_dict()
    for part in ("weight", "bias"):
        assert (repaired[f"{name}.{part}"] == 0).nonzero()[:, 0].tolist() == [1, 7, 9]
    moved = {key for key, value in before.items() if not torch.equal(value, repaired[key])}
    assert moved == {f"{name}.weight", f"{name}.bias"} if epochs == 0 else moved > {"net.0.weight", f"{name}.weight"}


def test_activity_is_the_mean_after_the_relu() -> None:
    encoder = encoder_of()
    pairs = conv_norm_pairs(encoder, encoder.body, SHAPE, "fine-prune")[-1:]
    with torch.no_grad():
        images = (CLEAN.pixels.float() / 255 - 0.5) / 0.25
        expected = encoder.body.net(images).double().numpy().mean((0, 2, 3))  # the network ends in a ReLU
    np.testing.assert_allclose(mean_activity(encoder, pairs, CLEAN, CPU)[0], expected, rtol=1e-5)


def test_a_supervised_step_is_one_step_of_gradient_descent() -> None:
    encoder = encoder_of()
    repair = FineTune(loss="supervised", epochs=1, batch=len(CLEAN), lr=0.02, weight_decay=0.1, views=PLAIN)
    repaired = dict(mend(repair, encoder).body.named_parameters())
    body = fresh(encoder, 0)
    body.load_state_dict(state_of(encoder))
    head = fit_head(embed(encoder, CLEAN.pixels, CPU), CLEAN.labels, 3)
    z = body.train().requires_grad_(True)((CLEAN.pixels.float() / 255 - 0.5) / 0.25)
    cross_entropy(head.logits(z), CLEAN.labels).backward()
    for name, weight in body.named_parameters():
        assert weight.grad is not None
        decay = 0.1 * weight if weight.ndim > 1 else torch.zeros_like(weight)
        wanted = (weight - 0.02 * (weight.grad + decay)).detach()
        torch.testing.assert_close(repaired[name].data, wanted, rtol=1e-4, atol=1e-5)


def test_contrastive_tuning_reads_no_labels() -> None:
    repair = FineTune(epochs=1, batch=32)
    other = type(CLEAN)(CLEAN.pixels, CLEAN.labels * 0, CLEAN.classes, "others")
    assert not repair.supervised and FineTune(loss="supervised").supervised
    assert repair.mend(encoder_of(), other, 0, CPU).sha256() == mend(repair, encoder_of()).sha256()
    with pytest.raises(DataError, match="at least two classes"):
        FineTune(epochs=1, batch=32, loss="supervised").mend(encoder_of(), other, 0, CPU)


def test_an_edit_that_one_training_made_is_undone_by_another() -> None:
    """Planted damage: a suspect whose last BatchNorm was shifted; supervised tuning separates the classes again."""
    encoder = encoder_of()
    encoder.body.net[-2].bias.data -= 0.7
    repaired = mend(FineTune(loss="supervised", epochs=15, batch=32, lr=0.05, views=PLAIN), encoder)
    scores = []
    for one in (encoder, repaired):
        head = fit_head(embed(one, CLEAN.pixels, CPU), CLEAN.labels, 3)
        scores.append(float(cross_entropy(head.logits(features(one)), HELD_OUT.labels)))
    assert scores[1] < scores[0], scores
