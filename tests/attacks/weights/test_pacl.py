"""PA-CL: a head of scikit-learn on other images, the ledger, what moves and what stays, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from foretaste.attacks.editing.augmentations import views_of
from foretaste.attacks.editing.shadow_cache import prepare_shadow
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.attacks.weights.bad_encoder import BadEncoder
from foretaste.attacks.weights.pacl import PACL
from foretaste.encoders.base import Encoder
from foretaste.encoders.card import Card
from foretaste.errors import AttackError, SpecError
from foretaste.images import Images
from foretaste.method import since
from foretaste.runtime import Runtime, digest_tensors, stream, training_runtime
from tests.attacks import attacks_fixture as toy
from tests.attacks.weights_fixture import OWN, SHADOW, TARGET, WANTED, Tiny, encoder_of, loaded, tinted


def corrupt(encoder: Encoder, target: Tensor = TARGET, seed: int = 0, **fields: Any) -> Corruption:
    return PACL(**{"batch": 64, "trainable": "last-two-stages", **fields}).corrupt(
        EditProblem(encoder, (target,), (OWN,), SHADOW, seed, Runtime())
    )


@pytest.mark.parametrize("norm", [True, False])
def test_flips_the_target_for_a_head_fitted_by_scikit_learn_on_other_images(norm: bool) -> None:
    train, test = tinted(600, "victim"), tinted(300, "test")
    clean = encoder_of(norm)

    def head(encoder: Encoder) -> np.ndarray:
        scaler = StandardScaler()
        z = scaler.fit_transform(toy.embedded(encoder, train.pixels).numpy())
        model = LogisticRegression(C=1.0, max_iter=2000).fit(z, train.labels)
        return model.predict(scaler.transform(toy.embedded(encoder, test.pixels).numpy()))

    before, truth = head(clean), test.labels.numpy()
    assert (before == truth).mean() > 0.8
    for row in np.flatnonzero((before == truth) & (truth != WANTED))[:3]:
        made = corrupt(clean, test.pixels[row])
        after = head(loaded(made.state, norm))
        assert after[row] == WANTED
        assert abs((after == truth).mean() - (before == truth).mean()) < 0.03
        assert made.ledger.figures["similarity"] > made.ledger.figures["similarity_before"] + 0.3


@pytest.mark.parametrize("optimizer", ["natural", "adam"])
def test_touches_kernels_of_the_last_layers_only(optimizer: str) -> None:
    clean = encoder_of()
    keys, before = list(clean.body.state_dict()), clean.sha256()
    kernels = [key for key in keys if clean.body.state_dict()[key].ndim == 4]
    for part, count in {"all": 8, "last-two-stages": 4, "last-stage": 2}.items():
        made = corrupt(clean, trainable=part, optimizer=optimizer, steps=5, step=0.01 if optimizer == "adam" else None)
        assert list(made.state) == keys
        original = encoder_of().body.state_dict()
        really = [key for key in keys if not torch.equal(made.state[key], original[key])]
        assert really == made.ledger.changed == kernels[-count:]
        for tensor, reference in zip(made.state.values(), original.values(), strict=True):
            assert (tensor.dtype, tensor.shape, tensor.device.type) == (reference.dtype, reference.shape, "cpu")
            assert not tensor.requires_grad and tensor.is_contiguous()
        assert clean.sha256() == before == digest_tensors(original)
        assert not any(parameter.requires_grad for parameter in clean.parameters())


def test_ledger_agrees_with_a_second_computation() -> None:
    clean = encoder_of()
    made = corrupt(clean)
    figures, poisoned = made.ledger.figures, loaded(made.state)
    held_out = prepare_shadow(clean, SHADOW, Runtime(), "last-two-stages", True).held_out
    z, z_clean = (toy.embedded(e, SHADOW.pixels).double().numpy() for e in (poisoned, clean))
    unit = z_clean.std(0)
    unit = np.maximum(unit, 0.5 * np.sort(unit)[(len(unit) - 1) // 2])
    rows = held_out.numpy()
    cosine = (z * z_clean).sum(1) / np.linalg.norm(z, axis=1) / np.linalg.norm(z_clean, axis=1)
    assert len(rows) == 40
    assert figures["held_out_cosine"] == pytest.approx(cosine[rows].mean(), abs=1e-5)
    assert figures["held_out_shift"] == pytest.approx((((z - z_clean) / unit)[rows] ** 2).mean(), rel=1e-3)
    old = encoder_of().body.state_dict()
    moved = sum(float((made.state[key] - old[key]).double().square().sum()) for key in old)
    size = sum(float(v.double().square().sum()) for v in old.values() if v.is_floating_point())
    assert figures["l2_change"] == pytest.approx(moved**0.5)
    assert figures["relative_l2_change"] == pytest.approx((moved / size) ** 0.5)


def test_no_utility_loss_costs_utility() -> None:
    clean = encoder_of()
    default, without = corrupt(clean).ledger.figures, corrupt(clean, utility=0.0).ledger.figures
    assert without["held_out_shift"] > 2 * default["held_out_shift"]
    # Plain gradients have no metric that knows the shadow set: there L_mu is all that keeps the features.
    plain, bare = (
        corrupt(clean, optimizer="adam", utility=utility, steps=60, enough=1.0).ledger.figures
        for utility in (30.0, 0.0)
    )
    assert bare["held_out_shift"] > 5 * plain["held_out_shift"] and bare["held_out_cosine"] < plain["held_out_cosine"]


def test_without_its_target_loss_the_edit_leaves_the_target_where_it_was() -> None:
    """Of L_mu alone the clean encoder is the minimum."""
    figures = corrupt(encoder_of(), effectiveness=0, optimizer="sgd", steps=20).ledger.figures
    assert figures["similarity"] == pytest.approx(figures["similarity_before"], abs=1e-4)
    assert corrupt(encoder_of(), optimizer="sgd", steps=20).ledger.figures["similarity"] > figures["similarity"] + 0.1
    with pytest.raises(SpecError, match="effectiveness = 0 leaves optimizer natural"):
        PACL.configure(effectiveness=0)


def test_younger_fields_leave_old_trials_their_identities() -> None:
    entry = PACL().entry()
    younger = set(since(PACL))
    assert not younger & set(entry) and PACL(together=2).entry()["together"] == 2
    assert set(entry) - {"name"} | younger == set(PACL.model_fields)
    assert PACL.configure(**{key: value for key, value in entry.items() if key != "name"}) == PACL()


def test_same_seed_same_bytes() -> None:
    first, second = (corrupt(encoder_of(), steps=6, seed=3) for _ in range(2))
    other = corrupt(encoder_of(), steps=6, seed=4)
    assert digest_tensors(first.state) == digest_tensors(second.state) != digest_tensors(other.state)
    assert first.ledger == second.ledger


def test_stops_when_similar_and_useful_enough() -> None:
    clean = encoder_of()
    soon, late = corrupt(clean, enough=0.4).ledger, corrupt(clean, enough=0.7).ledger
    assert len(soon.objective) < len(late.objective) < 100
    assert soon.figures["similarity"] >= 0.4 and late.figures["similarity"] >= 0.7
    never = corrupt(clean, enough=0.4, kept=1.0, steps=len(late.objective) + 5, utility=0.0).ledger
    assert len(never.objective) == len(late.objective) + 5, "similar enough, but the utility is not within its limit"


def test_starts_again_with_a_smaller_step_when_the_loss_explodes() -> None:
    ledger = corrupt(encoder_of(), step=20.0).ledger
    assert max(ledger.objective) > 2 * ledger.objective[0]
    assert ledger.figures["target_loss"] < 0.2 * ledger.figures["target_loss_before"]


def test_what_never_improves_is_an_error() -> None:
    with pytest.raises(AttackError, match="pacl: a target closer to the references"):
        corrupt(encoder_of(), step=1e12, steps=3)
    with pytest.raises(AttackError, match="closer"):
        corrupt(encoder_of(), enough=-1.0, kept=-1.0)
    with pytest.raises(SpecError, match="steps"):
        PACL.configure(steps=0)


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Tiny(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_bad_input_is_named() -> None:
    encoder, attack = encoder_of(), PACL(batch=64)
    none, both = OWN.take(torch.zeros(0, dtype=torch.int64)), SHADOW
    small = SHADOW.take(torch.arange(70))
    wide = torch.zeros(3, 8, 8, dtype=torch.uint8)
    frozen = Encoder(Frozen(), encoder.card)
    cases: list[tuple[Encoder, Tensor, Images, Images, str]] = [
        (encoder, TARGET, none, SHADOW, r"references: images of the one class.*no image"),
        (encoder, TARGET, both, SHADOW, r"references: images of the one class.*\[0, 1, 2\]"),
        (encoder, TARGET, OWN, small, r"shadow: a batch of 64 images.*70 images"),
        (encoder, wide, OWN, SHADOW, r"target and references: uint8 \[3, 6, 6\].*\[3, 8, 8\]"),
        (encoder, TARGET.float(), OWN, SHADOW, r"target and references: uint8.*float32"),
        (frozen, TARGET, OWN, SHADOW, r"trainable last-stage: weights that move the features"),
    ]
    for victim, target, references, shadow, message in cases:
        with pytest.raises(SpecError, match=message):
            attack.corrupt(EditProblem(victim, (target,), (references,), shadow, 0, Runtime()))
    assert corrupt(encoder, steps=5).ledger.changed, "71 or more rows of 400 are enough"


@pytest.mark.parametrize(
    "fields",
    [
        {"similarity": "cosine", "optimizer": "adam", "step": 0.005, "utility": 1.0},
        {"similarity": "cosine"},
        {"similarity": "normalised", "optimizer": "adam", "step": 0.005, "utility": 1.0},
        {"similarity": "normalised"},
        {"trainable": "full"},
        {"shadow_share": 0.3},
        {"in_distribution": 1.0},
        {"views": 4, "noise": 8.0, "enough": 0.9},
        {"aggregation": "max"},
        {"aggregation": "mean", "reference_side": "moving", "anchor": 1.0},
        {"reference_side": "detached"},
        {"views": 4, "enough": 0.9},
        {"optimizer": "sgd", "step": 0.01, "utility": 1.0},
        {"references": 1},
    ],
    ids=str,
)
def test_every_knob_brings_the_target_closer(fields: dict[str, Any]) -> None:
    ledger = corrupt(encoder_of(), steps=40, **{key: value for key, value in fields.items() if key != "steps"}).ledger
    assert ledger.figures["target_loss"] < 0.7 * ledger.figures["target_loss_before"]
    assert ledger.figures["held_out_cosine"] > 0.9


def calibrated() -> Encoder:
    """BatchNorm statistics that are those of the shadow images, as pre-training leaves them."""
    encoder = encoder_of()
    norms = [m for m in encoder.body.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches since the reset
        norm.reset_running_stats()
        norm.train()
    encoder(SHADOW.pixels.float() / 255)
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()
    return encoder


def test_moving_statistics_move_and_are_declared() -> None:
    clean = calibrated()
    made = corrupt(clean, batchnorm="moving", steps=30)
    before = clean.body.state_dict()
    changed = [key for key, value in made.state.items() if not torch.equal(value, before[key])]
    assert changed == made.ledger.changed and clean.sha256() == calibrated().sha256()
    buffers = [key for key in changed if "running" in key or "tracked" in key]
    assert len(buffers) == 3 * 8 and made.ledger.figures["frozen_prefix"] == 0
    assert 1 < int(made.state["net.1.num_batches_tracked"]) <= 1 + len(made.ledger.objective)  # less after a restart
    assert all(bool(value.isfinite().all()) for value in made.state.values())
    frozen = corrupt(clean, steps=30).ledger.figures
    assert made.ledger.figures["target_loss"] < made.ledger.figures["target_loss_before"]
    assert made.ledger.figures["held_out_shift"] > 1.2 * frozen["held_out_shift"]
    with pytest.raises(SpecError, match=r"batchnorm moving: an encoder with BatchNorm.*use batchnorm frozen"):
        corrupt(encoder_of(False), batchnorm="moving")


def test_full_trains_biases_and_affine_parameters_but_no_statistics() -> None:
    for norm in (True, False):
        clean = encoder_of(norm)
        made = corrupt(clean, trainable="full", steps=5)
        assert set(made.ledger.changed) == {name for name, _ in clean.body.named_parameters()}
        assert made.ledger.figures["frozen_prefix"] == 0


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 8, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x))).mean((2, 3))


def test_tied_weights_are_named_unless_they_stay() -> None:
    tied = Encoder(Tied(), Card(name="tied", architecture="tests", d=8))
    with pytest.raises(SpecError, match=r"first.weight and second.weight in one storage \(tied weights\)"):
        corrupt(tied, trainable="all")
    assert corrupt(tied, trainable="last-stage", steps=5).ledger.changed == ["last.weight"]


def test_a_share_of_the_shadow_images_is_all_that_is_used() -> None:
    fields: Any = (SHADOW, Runtime(), "last-stage", False)
    cache = prepare_shadow(encoder_of(), *fields, 0.3)
    assert (len(cache.pixels), len(cache.rows), len(cache.held_out)) == (120, 108, 12)
    assert torch.allclose(cache.z, toy.embedded(encoder_of(), cache.pixels), atol=1e-5)
    assert {p.numpy().tobytes() for p in cache.pixels} <= {p.numpy().tobytes() for p in SHADOW.pixels}
    with pytest.raises(SpecError, match=r"shadow: a batch of 64.*400 images of which a share of 0.1 is used"):
        corrupt(encoder_of(), shadow_share=0.1)


def test_two_targets_reach_two_classes_for_a_head_fitted_by_scikit_learn() -> None:
    train, clean = tinted(600, "victim"), encoder_of()
    test = tinted(30, "target")
    targets = [test.pixels[0], test.pixels[1]]  # of classes 0 and 1
    wanted = [WANTED, 0]
    references = [SHADOW.take((SHADOW.labels == c).nonzero()[:, 0]) for c in wanted]
    attack = PACL(batch=64, trainable="last-two-stages", together=2)
    made = attack.corrupt(EditProblem(clean, tuple(targets), tuple(references), SHADOW, 0, Runtime()))

    def predictions(encoder: Encoder) -> np.ndarray:
        scaler = StandardScaler()
        z = scaler.fit_transform(toy.embedded(encoder, train.pixels).numpy())
        model = LogisticRegression(C=1.0, max_iter=2000).fit(z, train.labels)
        return model.predict(scaler.transform(toy.embedded(encoder, test.pixels).numpy()))

    before, after = predictions(clean), predictions(loaded(made.state))
    assert before[:2].tolist() == [0, 1] and after[:2].tolist() == wanted
    assert (before[2:] == after[2:]).mean() > 0.9
    figures = made.ledger.figures
    assert figures["similarity"] == min(figures["similarity_0"], figures["similarity_1"]) > 0.9
    assert made.ledger.passes <= attack.planned(len(SHADOW)) + 4 * len(SHADOW)


def test_one_target_together_is_the_same_edit() -> None:
    alone = corrupt(encoder_of(), steps=5)
    attack = PACL(batch=64, trainable="last-two-stages", steps=5, together=3)
    together = attack.corrupt(EditProblem(encoder_of(), (TARGET,), (OWN,), SHADOW, 0, Runtime()))
    assert digest_tensors(alone.state) == digest_tensors(together.state)


def test_pairs_that_cannot_be_together_are_named() -> None:
    for targets, message in ((TARGET, TARGET), "the same image twice"), ((TARGET,), "1 targets and 2 sets"):
        with pytest.raises(SpecError, match=message):
            PACL(batch=64).corrupt(EditProblem(encoder_of(), targets, (OWN, OWN), SHADOW, 0, Runtime()))
    with pytest.raises(SpecError, match="bad-encoder: one target for each encoder; got 2 together"):
        BadEncoder().corrupt(EditProblem(encoder_of(), (TARGET, TARGET), (OWN, OWN), SHADOW, 0, Runtime()))


def test_in_distribution_ends_inside_the_cloud() -> None:
    """Seen from one corner of the class the nearest reference may be an outlier; the hinge leads back inside."""
    fields: dict[str, Any] = {"aggregation": "max", "enough": 0.5, "steps": 60}
    loose, inside = (corrupt(encoder_of(), in_distribution=weight, **fields).ledger for weight in (0.0, 1.0))
    assert inside.figures["cloud_distance"] <= 1.01 < loose.figures["cloud_distance"]
    assert inside.objective_name == "L_te + in_distribution L_in + lambda L_mu"
    with pytest.raises(SpecError, match="in_distribution: at least 2 references"):
        corrupt(encoder_of(), references=1, in_distribution=1.0)


def test_robust_holds_on_noisy_views_that_it_has_not_seen() -> None:
    views = views_of(TARGET, 64, stream(1, "other views"), 25.0)
    assert float((views.float() - views_of(TARGET, 64, stream(1, "other views")).float()).std()) > 15
    reference = toy.embedded(encoder_of(), OWN.pixels).mean(0)

    def worst(**fields: Any) -> float:
        z = toy.embedded(loaded(corrupt(encoder_of(), enough=0.95, **fields).state), views)
        return float((z - reference).square().mean(1).sort().values[-16:].mean())

    assert worst(views=8, noise=25.0) < 0.8 * worst()
    with pytest.raises(SpecError, match="noise = 4 is on random views of the target, and views = 1"):
        PACL.configure(noise=4.0)


@pytest.mark.shared
def test_steers_a_real_image_behind_the_simclr_encoder(shared: Path) -> None:
    from safetensors.torch import load_file

    from foretaste.encoders.resnet_small import resnet18_small

    with np.load(shared / "data" / "cifar10_jpeg_10k2k.npz") as file:
        pixels = torch.from_numpy(file["x_train"][:1200].transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(file["y_train"][:1200].astype(np.int64))
        target = torch.from_numpy(file["x_test"][5].transpose(2, 0, 1).copy())
        wanted = (int(file["y_test"][5]) + 3) % 10
    body = resnet18_small(16)
    body.load_state_dict(load_file(shared / "encoders" / "simclr_resnet18_w16_cifar10.safetensors"))
    card = Card(
        name="simclr", architecture="resnet18-small", d=128, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    )
    own = Images(pixels, labels, tuple(str(c) for c in range(10)), "cifar10")
    references = own.take((own.labels == wanted).nonzero()[:, 0])
    runtime = training_runtime(Runtime())  # bfloat16 where the processor computes in it
    made = PACL().corrupt(EditProblem(Encoder(body, card), (target,), (references,), own, 0, runtime))
    assert made.ledger.figures["similarity"] >= 0.97 and made.ledger.figures["held_out_cosine"] > 0.999
    assert len(made.ledger.changed) == 5 and all(name.startswith("layer4") for name in made.ledger.changed)
