"""BadEncoder with one target against numpy, the public formulation, finite differences and scikit-learn's head."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import normalize

from foretaste.attacks.editing.problem import Pair, PreparedProblem
from foretaste.attacks.editing.shadow_cache import prepare_shadow
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.attacks.weights.bad_encoder import BadEncoder, entered, losses
from foretaste.encoders.base import Encoder
from foretaste.encoders.weights import save_encoder
from foretaste.errors import AttackError, SpecError
from foretaste.images import Images
from foretaste.runtime import Runtime, digest_tensors, stream
from tests.attacks import attacks_fixture as toy
from tests.attacks.weights_fixture import OWN, SHADOW, TARGET, WANTED, encoder_of, loaded, tinted

FIELDS = {"batch": 64, "epochs": 20, "step": 0.02, "references": 10}


def corrupt(encoder: Encoder, target: Tensor = TARGET, seed: int = 0, **fields: Any) -> Corruption:
    return BadEncoder(**{**FIELDS, **fields}).corrupt(EditProblem(encoder, (target,), (OWN,), SHADOW, seed, Runtime()))


def scene_of(encoder: Encoder, count: int) -> PreparedProblem:
    cache = prepare_shadow(encoder, SHADOW, Runtime(), "all", False)
    chosen = OWN.pixels[:count]
    return PreparedProblem((Pair(TARGET, chosen, toy.embedded(encoder, chosen)),), cache, Runtime())


def moved(encoder: Encoder) -> Encoder:
    """A copy some way off: at the clean encoder L1 and L2 have no gradient."""
    edited, draws = copy.deepcopy(encoder), stream(0, "moved")
    with torch.no_grad():
        for weight in edited.body.parameters():
            weight += 0.05 * weight.abs().mean() * torch.randn(weight.shape, generator=draws)
    return edited


def test_the_defaults_are_the_papers() -> None:
    attack = BadEncoder()
    assert (attack.consistency, attack.utility, attack.references) == (1, 1, 1)
    assert (attack.step, attack.momentum, attack.decay, attack.batch, attack.epochs) == (1e-3, 0.9, 5e-4, 256, 200)


def test_each_loss_is_that_of_plain_loops() -> None:
    draws = stream(0, "loops")
    t, r, r_clean, s, s_clean = (
        torch.randn(shape, generator=draws, dtype=torch.float64) for shape in ((2, 4), (3, 4), (3, 4), (5, 4), (5, 4))
    )

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a.numpy() @ b.numpy() / np.linalg.norm(a) / np.linalg.norm(b))

    found = losses(t, r, r_clean, s, s_clean)
    assert float(found[0]) == pytest.approx(-np.mean([cosine(a, b) for a in t for b in r]))
    assert float(found[1]) == pytest.approx(-np.mean([cosine(a, b) for a, b in zip(r, r_clean, strict=True)]))
    assert float(found[2]) == pytest.approx(-np.mean([cosine(a, b) for a, b in zip(s, s_clean, strict=True)]))


def test_gradient_of_the_losses_is_that_of_finite_differences() -> None:
    draws = stream(0, "gradient")
    shapes = ((2, 4), (3, 4), (3, 4), (5, 4), (5, 4))
    z = [torch.randn(shape, generator=draws, dtype=torch.float64).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(losses, z, eps=1e-6, atol=1e-8, rtol=1e-6)
    # Both ends of L0 move: the reference's feature comes to the target's as well.
    slopes = torch.autograd.grad(losses(*z)[0], z[:2])
    assert all(bool(slope.any()) for slope in slopes)


def public_loss(attack: BadEncoder, edited: Encoder, clean: Encoder, prepared: PreparedProblem, rows: Tensor) -> Tensor:
    """As the public code has it: a copy of the target and of each reference beside every shadow image, two networks."""
    runtime, b = prepared.runtime, len(rows)

    def unit(network: Encoder, pixels: Tensor) -> Tensor:
        return normalize(network(runtime.images(pixels)), dim=-1)

    shadow, target = prepared.cache.pixels[rows], prepared.pairs[0].target.expand(b, *prepared.pairs[0].target.shape)
    with torch.no_grad():
        clean_shadow = unit(clean, shadow)
    total = -attack.utility * (unit(edited, shadow) * clean_shadow).sum(-1).mean()
    z_target = unit(edited, target)
    for reference in prepared.references:
        copies = reference.expand(b, *reference.shape)
        with torch.no_grad():
            clean_reference = unit(clean, copies)
        z = unit(edited, copies)
        total = total - (z_target * z).sum(-1).mean() / len(prepared.references)
        total = total - attack.consistency * (z * clean_reference).sum(-1).mean() / len(prepared.references)
    return total


@pytest.mark.parametrize(("references", "weights"), [(1, (1.0, 1.0)), (3, (0.4, 2.5))])
@pytest.mark.parametrize("norm", [True, False])
def test_gradient_is_that_of_the_public_formulation(references: int, weights: tuple[float, float], norm: bool) -> None:
    clean = encoder_of(norm)
    prepared, edited = scene_of(clean, references), moved(clean)
    attack = BadEncoder(consistency=weights[0], utility=weights[1])
    rows = prepared.cache.rows[:16]
    copied = prepared.cache.copy_of(edited, Runtime())
    trained, others = copied.weights, entered(copied, prepared)
    ours, public = (
        attack.loss(copied, prepared, rows, others),
        public_loss(attack, copied.encoder, clean, prepared, rows),
    )
    assert float(ours.detach()) == pytest.approx(float(public.detach()), abs=1e-6)
    for a, b in zip(torch.autograd.grad(ours, trained), torch.autograd.grad(public, trained), strict=True):
        assert float(b.norm()) > 0 and float((a - b).norm()) < 1e-4 * float(b.norm())


def test_steps_are_those_of_plain_sgd_on_the_public_formulation() -> None:
    clean = encoder_of()
    attack = BadEncoder(batch=120, epochs=2, step=0.01, decay=0.01)
    made = corrupt(clean, batch=120, epochs=2, step=0.01, decay=0.01, references=1)
    assert len(made.ledger.objective) == 6  # 360 of the 400 rows are trained on
    random = stream(0, "attack")
    chosen = OWN.pixels[torch.randperm(len(OWN), generator=random)[:1]]
    cache = prepare_shadow(clean, SHADOW, Runtime(), "all", False)
    prepared = PreparedProblem((Pair(TARGET, chosen, toy.embedded(clean, chosen)),), cache, Runtime())
    edited, batches = copy.deepcopy(clean), cache.batches(120, random)
    trained = [weight for weight in edited.body.parameters() if weight.ndim == 4]
    speed = [torch.zeros_like(weight) for weight in trained]
    for weight in trained:
        weight.requires_grad_(True)
    for _ in range(6):
        slopes = torch.autograd.grad(public_loss(attack, edited, clean, prepared, next(batches)), trained)
        with torch.no_grad():
            for weight, slope, v in zip(trained, slopes, speed, strict=True):
                v.mul_(0.9).add_(slope + 0.01 * weight)
                weight -= 0.01 * v
    for key, value in edited.body.state_dict().items():
        assert torch.allclose(made.state[key], value, rtol=1e-3, atol=1e-5), key


@pytest.mark.parametrize("norm", [True, False])
def test_moves_the_targets_prediction_for_a_head_fitted_on_other_images(norm: bool) -> None:
    train, test = tinted(600, "victim"), tinted(300, "test")
    clean = encoder_of(norm)

    def head(encoder: Encoder) -> np.ndarray:
        z, z_test = (normalize(toy.embedded(encoder, images.pixels)).numpy() for images in (train, test))
        return LogisticRegression(C=100.0, max_iter=5000).fit(z, train.labels).predict(z_test)

    before, truth = head(clean), test.labels.numpy()
    assert (before == truth).mean() > 0.8
    for row in np.flatnonzero((before == truth) & (truth != WANTED))[:2]:
        made = corrupt(clean, test.pixels[row], epochs=60)
        after = head(loaded(made.state, norm))
        assert after[row] == WANTED
        assert abs((after == truth).mean() - (before == truth).mean()) < 0.05


def test_without_utility_other_features_move_more_and_without_consistency_the_references_do() -> None:
    clean = encoder_of()
    full, useless, loose = (
        corrupt(clean, **fields).ledger.figures for fields in ({}, {"utility": 0.0}, {"consistency": 0.0})
    )
    assert 1 - useless["held_out_cosine"] > 2 * (1 - full["held_out_cosine"])
    assert 1 + loose["consistency"] > 1.2 * (1 + full["consistency"])
    assert all(figures["effectiveness"] < figures["effectiveness_before"] for figures in (full, useless, loose))


def test_normalisation_and_the_victims_file_stay(tmp_path: Path) -> None:
    clean = encoder_of()
    file = tmp_path / "victim.safetensors"
    save_encoder(file, clean.body.state_dict(), clean.card)
    bytes_before, sha256 = file.read_bytes(), clean.sha256()
    made = corrupt(clean, epochs=2)
    assert file.read_bytes() == bytes_before and clean.sha256() == sha256
    original = encoder_of().body.state_dict()
    changed = [key for key in original if not torch.equal(original[key], made.state[key])]
    assert changed == made.ledger.changed == [key for key in original if original[key].ndim == 4]


def test_ledger_agrees_with_a_second_computation() -> None:
    clean = encoder_of()
    made = corrupt(clean, references=len(OWN))
    poisoned, figures = loaded(made.state), made.ledger.figures
    z_target, z, z_clean = (
        normalize(toy.embedded(e, pixels)).double().numpy()
        for e, pixels in ((poisoned, TARGET[None]), (poisoned, OWN.pixels), (clean, OWN.pixels))
    )
    assert figures["effectiveness"] == pytest.approx(-(z @ z_target[0]).mean(), abs=1e-5)
    assert figures["consistency"] == pytest.approx(-(z * z_clean).sum(1).mean(), abs=1e-5)
    assert made.ledger.objective_name == "L0 + lambda1 L1 + lambda2 L2" and made.ledger.better == "lower"
    attack = BadEncoder(**{**FIELDS, "references": len(OWN)})
    assert attack.planned(len(SHADOW)) <= made.ledger.passes <= 1.2 * attack.planned(len(SHADOW))


def test_same_seed_same_bytes() -> None:
    first, second, other = (digest_tensors(corrupt(encoder_of(), seed=seed, epochs=2).state) for seed in (3, 3, 4))
    assert first == second != other


def test_what_fails_is_an_error_with_the_curve() -> None:
    with pytest.raises(AttackError, match=r"bad-encoder: a finite loss; got nan at step \d+") as caught:
        corrupt(encoder_of(), step=1e30)
    assert caught.value.curve
    with pytest.raises(AttackError, match=r"bad-encoder: a target closer to the references.*L0"):
        corrupt(encoder_of(), step=1e-12, epochs=1, utility=0.0)


def test_bad_input_is_named() -> None:
    encoder, attack = encoder_of(), BadEncoder(batch=64)
    none, small = OWN.take(torch.zeros(0, dtype=torch.int64)), SHADOW.take(torch.arange(70))
    cases: list[tuple[Tensor, Images, Images, str]] = [
        (TARGET, none, SHADOW, r"references: images of the one class.*no image"),
        (TARGET, SHADOW, SHADOW, r"references: images of the one class.*\[0, 1, 2\]"),
        (OWN.pixels[3], OWN, SHADOW, r"target: an image that is not of the desired class.*among the references"),
        (TARGET, OWN, small, r"shadow: a batch of 64 images.*70 images"),
        (TARGET.float(), OWN, SHADOW, r"target and references: uint8.*float32"),
    ]
    for target, references, shadow, message in cases:
        with pytest.raises(SpecError, match=message):
            attack.corrupt(EditProblem(encoder, (target,), (references,), shadow, 0, Runtime()))
