"""Scans of an encoder, each against an independent answer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis
from torch import Tensor, nn

from foretaste import defences
from foretaste.audits.scan_once import judged, look
from foretaste.defences.scans.base import Finding, Scan, Scene, prominence
from foretaste.defences.scans.changes import changed_tensors
from foretaste.defences.scans.cka import activations, linear_cka
from foretaste.defences.scans.decree import Decree, mean_cosine
from foretaste.defences.scans.drift import Drift
from foretaste.defences.scans.neighbours import Neighbours, disagreement
from foretaste.defences.scans.weight_statistics import WeightStatistics, tensor_statistics
from foretaste.encoders.base import Encoder
from foretaste.errors import DataError, EncoderError, SpecError
from foretaste.runtime import Runtime, digest_tensors, generator
from foretaste.statistics import false_alarm_rate
from foretaste.testing import check_scan
from tests.defences import scans_fixture as toy

SETTINGS: dict[str, dict[str, Any]] = {
    "drift": {"top": 3},
    "decree": {"steps": 4, "batch": 8},
    "neighbours": {"k": 5},
    "weight-statistics": {"top": 4},
}
SCANS = [defences.configure(name, fields, "scan") for name, fields in SETTINGS.items()]
every = pytest.mark.parametrize("scan", SCANS, ids=lambda scan: scan.name)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def full_scene(n: int = 60) -> Scene:
    reference = toy.small_encoder()
    return toy.scene(n, reference=reference, other=toy.small_encoder("deep"))


class Steered(nn.Module):
    """The same tensors as `plain`, and other features for one image: those of the class that it was sent to."""

    def __init__(self, plain: nn.Module, image: Tensor, goal: Tensor) -> None:
        super().__init__()
        self.conv, self.rest = plain[0], plain[1:]
        self.register_buffer("image", image, persistent=False)
        self.register_buffer("goal", goal, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        hit = (x - self.image).abs().amax((1, 2, 3)) < 1e-4
        return torch.where(hit[:, None], self.goal, self.rest(self.conv(x)))


def plain_twin(encoder: Encoder) -> Encoder:
    """The clean encoder behind the same names of tensors."""
    never = torch.full((3, 6, 6), 1e9)
    return Encoder(Steered(copy.deepcopy(encoder.body), never, torch.zeros(encoder.card.d)), encoder.card)


def steered(encoder: Encoder, scene: Scene, row: int, towards: int) -> Encoder:
    images = scene.images
    assert images is not None
    z = scene.features(encoder, "test")
    goal = z[images.labels == towards].mean(0)
    pixels = images.pixels[row].float() / 255
    assert encoder.mean is not None and encoder.std is not None
    image = ((pixels[None] - encoder.mean) / encoder.std)[0]
    return Encoder(Steered(copy.deepcopy(encoder.body), image, goal), encoder.card)


# What a caller may rely on, whatever the scan


def test_the_suite_covers_the_table() -> None:
    assert set(SETTINGS) == {name for name, entry in defences.DEFENCES.items() if entry.kind == "scan"}
    for name in SETTINGS:
        found = defences.find(name)
        assert issubclass(found, Scan) and found.name == name
        assert found() == found.configure(), "every field has a default"
        assert all(field.description for field in found.model_fields.values())


def test_filters_and_scans_are_not_mistaken_for_each_other() -> None:
    with pytest.raises(SpecError, match=r"filter: one of sphere, .*; got 'drift'"):
        defences.configure("drift", {}, "filter")
    with pytest.raises(SpecError, match=r"scan: one of drift, .*; got 'sphere'"):
        defences.configure("sphere", {}, "scan")


@every
def test_it_keeps_what_every_scan_promises(scan: Scan) -> None:
    check_scan(scan)


@every
def test_what_is_missing_is_named(scan: Scan) -> None:
    empty = Scene(Runtime())
    if scan.needs:
        with pytest.raises(DataError, match=f"{scan.name}: .*got none; do|{scan.name}: .*got none; pass --data"):
            scan.scan(toy.small_encoder(), empty)
    for need in set(scan.needs) - {"data"}:
        with pytest.raises(DataError, match=f"pass --{need}"):
            scan.scan(toy.small_encoder(), toy.scene(20))


# Calibration


def test_the_rate_is_the_rank_and_uniform_under_the_null() -> None:
    scores = generator(0, "scores").normal(size=8)
    rates = [false_alarm_rate(score, list(np.delete(scores, i))) for i, score in enumerate(scores)]
    assert sorted(rates) == [rank / 8 for rank in range(1, 9)]  # each rank once: uniform, exactly
    assert false_alarm_rate(5.0, [1.0, 5.0, 9.0]) == 0.75  # a tie counts against the suspect
    assert false_alarm_rate(1.0, []) is None


def test_a_pool_is_judged_alike_wherever_the_suspect_stands() -> None:
    """Under the null the suspect is one more clean encoder, so no scan may treat the first of a pool in its own way."""
    pool = [WeightStatistics().scan(toy.jittered(toy.small_encoder(), seed), Scene(Runtime())) for seed in range(5)]
    forward = [finding.score for finding in WeightStatistics().compare(pool)]
    backward = [finding.score for finding in WeightStatistics().compare(pool[::-1])]
    np.testing.assert_allclose(forward, backward[::-1], rtol=1e-9)


def test_prominence_is_a_robust_deviation() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 20.0])
    assert prominence(values, 1e-6) == pytest.approx((20 - 3) / (1.4826 * 1))
    assert prominence(torch.ones(5), 1e-6) == 0


# Drift


def test_the_one_tensor_that_changed_is_found_exactly() -> None:
    clean = toy.small_encoder()
    name = list(clean.body.state_dict())[1]
    edited = toy.jittered(clean, 0, only=name)
    one, two = (encoder.body.state_dict()[name].double().numpy() for encoder in (clean, edited))
    assert changed_tensors(clean.body, edited.body) == [
        (name, pytest.approx(np.sqrt(((two - one) ** 2).sum() / (one**2).sum())))
    ]
    assert changed_tensors(clean.body, copy.deepcopy(clean.body)) == []
    with pytest.raises(EncoderError, match="architecture"):
        changed_tensors(clean.body, toy.small_encoder("deep").body)


@pytest.mark.parametrize(("row", "towards"), [(7, 2), (24, 1)])
def test_the_image_that_was_sent_to_a_class_comes_first(row: int, towards: int) -> None:
    scene = toy.scene(60, reference=plain_twin(toy.small_encoder()))
    assert scene.reference is not None and scene.images is not None
    suspect = steered(toy.small_encoder(), scene, row, towards)
    null = [plain_twin(toy.jittered(toy.small_encoder(), seed)) for seed in range(3)]
    (pool,) = look([suspect, *null], 4, [Drift()], scene, 0)
    result = judged(Drift(), pool)
    first = result.evidence["top"][0]
    assert (first["index"], first["label"], first["towards"]) == (row, str(row % 3), str(towards))
    assert result.evidence["changed"] == []  # the tensors are those of the reference
    assert result.false_alarm_rate == 0.25 and result.score > 2 * max(result.null_scores)
    # The gain, once more by hand.
    z = [scene.features(encoder, "test").double().numpy() for encoder in (scene.reference, suspect)]
    cosines = []
    for features in z:
        x = (features - features.mean(0)) / features.std(0)
        mean = x[scene.images.labels.numpy() == towards].mean(0)
        cosines.append(x[row] @ mean / np.linalg.norm(x[row]) / np.linalg.norm(mean))
    assert first["gain"] == pytest.approx(cosines[1] - cosines[0], abs=1e-5)


def test_the_reference_itself_has_no_drift() -> None:
    found = Drift().scan(toy.small_encoder(), full_scene())
    assert found.score == 0 and found.evidence["changed"] == []
    assert all(value == pytest.approx(1) for value in found.evidence["cka"].values())
    one_class = toy.stripes(20, "scan")
    one_class = replace(one_class, labels=one_class.labels * 0)
    with pytest.raises(DataError, match="two classes"):
        Drift().scan(toy.small_encoder(), replace(full_scene(), images=one_class))


# CKA


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_cka_is_the_naive_formula_and_ignores_rotation_scale_and_shift(estimator: Any) -> None:
    random = generator(0, "cka")
    x = random.normal(size=(8, 5))
    y = x[:, :3] @ random.normal(size=(3, 4)) + 0.7 * random.normal(size=(8, 4)) + 2
    hsic = {
        pair: toy.naive_hsic(*pair_of, unbiased=estimator == "unbiased")
        for pair, pair_of in {"xy": (x, y), "xx": (x, x), "yy": (y, y)}.items()
    }
    expected = hsic["xy"] / np.sqrt(hsic["xx"] * hsic["yy"])
    assert linear_cka(torch.from_numpy(x), torch.from_numpy(y), estimator) == pytest.approx(expected)
    rotation, _ = np.linalg.qr(random.normal(size=(4, 4)))
    turned = torch.from_numpy(3 * y @ rotation + 5)
    assert linear_cka(torch.from_numpy(x), turned, estimator) == pytest.approx(expected)
    assert linear_cka(torch.from_numpy(y), turned, estimator) == pytest.approx(1)


def test_only_the_unbiased_one_sees_that_unrelated_activations_are_unrelated() -> None:
    random = generator(0, "unrelated")
    x, y = (torch.from_numpy(random.normal(size=(20, 400))) for _ in range(2))
    assert linear_cka(x, y, "biased") > 0.9
    assert abs(linear_cka(x, y)) < 0.3
    assert linear_cka(x, torch.ones(20, 3)) == 0
    with pytest.raises(DataError, match="4 at least"):
        linear_cka(x[:3], y[:3])


def test_activations_are_those_of_the_blocks_in_order() -> None:
    encoder, images = toy.small_encoder(), toy.stripes(10, "scan")
    found = activations(encoder, images.pixels, Runtime())
    assert list(found) == ["0", "3", "features"]
    with torch.no_grad():
        z = encoder(images.pixels.float() / 255)
    torch.testing.assert_close(found["features"], z)
    torch.testing.assert_close(found["3"], z)
    assert not encoder.body[0]._forward_hooks


# Neighbours


def test_disagreement_is_the_naive_one() -> None:
    random = generator(0, "neighbours")
    x, y = random.normal(size=(15, 4)), random.normal(size=(15, 6))
    scores, nearest = disagreement(torch.from_numpy(x), torch.from_numpy(y), 3)
    np.testing.assert_allclose(scores.numpy(), toy.naive_disagreement(x, y, 3))
    assert nearest.shape == (15, 3) and bool((nearest != torch.arange(15)[:, None]).all())
    same, _ = disagreement(torch.from_numpy(x), torch.from_numpy(2 * x + 1), 3)
    assert bool((same == 0).all())
    with pytest.raises(DataError, match="5 images at least"):
        disagreement(torch.ones(4, 2), torch.ones(4, 2), 3)


def test_one_row_that_was_moved_has_the_first_rank() -> None:
    random = generator(0, "moved")
    y = np.arange(120) % 4
    x = 4 * np.eye(4, 8)[y] + random.normal(size=(120, 8))
    other = x @ random.normal(size=(8, 8)) + 0.3 * random.normal(size=(120, 8))
    suspect = x.copy()
    suspect[17] = x[y == 3].mean(0)  # of class 1
    scores, _ = disagreement(torch.from_numpy(suspect), torch.from_numpy(other), 10)
    assert int(scores.argmax()) == 17


def test_the_scan_of_neighbours_names_the_class() -> None:
    scene = toy.scene(90, other=toy.small_encoder())
    suspect = steered(toy.small_encoder(), scene, 7, 2)
    found = Neighbours(k=5).scan(suspect, scene)
    assert found.inputs is not None and int(found.inputs.argmax()) == 7
    assert found.evidence["top"][0] == {"index": 7, "label": "1", "towards": "2", "score": float(found.inputs[7])}
    assert found.score == pytest.approx(prominence(found.inputs, 1e-6))


# Weights


def test_statistics_are_those_of_numpy_and_scipy() -> None:
    w = generator(0, "weights").normal(size=(6, 3, 3, 3))
    found = tensor_statistics({"conv.weight": torch.from_numpy(w), "steps": torch.tensor(3), "short": torch.ones(2)})
    flat = w.reshape(6, -1)
    rms = np.sqrt((w**2).mean())
    expected = {
        "rms": rms,
        "largest": np.abs(w).max() / rms,
        "kurtosis": kurtosis(w, axis=None, fisher=False),
        "spectral": np.linalg.svd(flat, compute_uv=False)[0] / rms / (np.sqrt(6) + np.sqrt(27)),
    }
    assert {name: np.exp(value) for name, value in found.items()} == pytest.approx(
        {f"conv.weight {name}": value for name, value in expected.items()}
    )


def test_one_planted_tensor_stands_out_among_clean_encoders() -> None:
    clean, scan = toy.small_encoder("deep"), WeightStatistics()
    name = [key for key, value in clean.body.state_dict().items() if value.ndim > 1][1]
    suspect = toy.jittered(clean, 99)
    with torch.no_grad():
        suspect.body.state_dict()[name].view(-1)[3] *= 40  # one entry
    null = [toy.jittered(clean, seed) for seed in range(6)]
    (pool,) = look([suspect, *null], 7, [scan], Scene(Runtime()), 0)
    result = judged(scan, pool)
    assert result.evidence["top"][0]["tensor"] == name
    assert result.false_alarm_rate == pytest.approx(1 / 7)
    values = np.array([list(finding.statistics.values()) for finding in pool])
    expected = (np.abs(values[0] - values[1:].mean(0)) / np.maximum(values[1:].std(0, ddof=1), 1e-4)).max()
    assert result.score == pytest.approx(expected)


def test_a_gross_outlier_is_seen_without_clean_encoders() -> None:
    suspect = toy.jittered(toy.small_encoder("deep"), 0)
    name = next(key for key, value in suspect.body.state_dict().items() if value.ndim > 1)
    with torch.no_grad():
        suspect.body.state_dict()[name].mul_(1e4)
    found = WeightStatistics().scan(suspect, Scene(Runtime()))
    first = found.evidence["top"][0]
    assert (first["tensor"], first["statistic"]) == (name, "rms")
    assert WeightStatistics().compare([found]) == [found]


def test_encoders_of_two_architectures_have_no_common_statistics() -> None:
    pool = [WeightStatistics().scan(toy.small_encoder(kind), Scene(Runtime())) for kind in ("linear", "deep")]
    with pytest.raises(EncoderError, match="one architecture"):
        WeightStatistics().compare(pool)


# DECREE


def test_mean_cosine_is_that_of_all_pairs() -> None:
    z = torch.from_numpy(generator(0, "cosine").normal(size=(7, 4)))
    units = z / z.norm(dim=1, keepdim=True)
    pairs = [float(units[i] @ units[j]) for i in range(7) for j in range(7) if i != j]
    assert float(mean_cosine(z)) == pytest.approx(np.mean(pairs))


def test_a_planted_trigger_gives_a_smaller_mask_than_the_clean_twin() -> None:
    """The corner of 2 x 2 of 6 x 6 pixels is a ninth of the mask."""
    scan, scene = Decree(steps=150, batch=16, lr=0.3, least=1e-4), toy.scene(60)
    clean = toy.centred(toy.small_encoder())
    (pool,) = look([toy.planted(clean), clean], 2, [scan], scene, 0)
    shortcut, plain = (finding.evidence["pl1"] for finding in pool)
    assert shortcut < 0.1 and shortcut < 0.5 * plain
    assert pool[0].evidence["box"] == [0, 0, 1, 1]
    assert pool[0].score == 1 - shortcut > pool[1].score


def test_the_smallest_mask_that_reached_the_similarity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """All masks and similarities of the run, written down beside it."""
    sizes, alike = list[float](), list[float]()

    class Recorded(torch.optim.Adam):
        def step(self, *_: Any) -> None:
            sizes.append(float((torch.tanh(self.param_groups[0]["params"][0].detach()) + 1).mean() / 2))
            super().step()

    def recorded(z: Tensor) -> Tensor:
        alike.append(float(mean_cosine(z).detach()))
        return mean_cosine(z)

    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    monkeypatch.setattr("foretaste.defences.scans.decree.mean_cosine", recorded)
    scan = Decree(steps=120, batch=16, lr=0.3, least=1e-4)
    found = scan.scan(toy.planted(toy.centred(toy.small_encoder())), toy.scene(60))
    reached = [size for size, cosine in zip(sizes, alike[:120], strict=True) if cosine >= 0.99]
    assert 0 < len(reached) < 120 and reached[-1] > min(reached)
    assert found.evidence["pl1"] == pytest.approx(min(reached))


def test_progress_and_order_of_what_is_looked_at() -> None:
    seen: list[tuple[int, int, str]] = []
    encoders = [toy.small_encoder(), toy.jittered(toy.small_encoder(), 1)]
    found = look(
        encoders, 2, [Decree(steps=2, batch=4), WeightStatistics()], toy.scene(10), 0, lambda *a: seen.append(a)
    )
    assert [len(pool) for pool in found] == [2, 2] and all(isinstance(one, Finding) for pool in found for one in pool)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1][0] == seen[-1][1] and seen[0][2].startswith("decree: ")
    assert digest_tensors(encoders[0].body.state_dict()) == toy.small_encoder().sha256()
