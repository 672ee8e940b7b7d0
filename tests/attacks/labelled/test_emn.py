"""`emn`: its gradient, its noise, its bounds, and what a head learns from rows that carry it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.labelled.emn import EMN
from foretaste.attacks.optimise.error_minimising import ErrorMinimising
from foretaste.attacks.results import Poisoning
from foretaste.errors import AttackError, BudgetError, DataError, SpecError
from foretaste.heads.objective import Rows
from foretaste.heads.scaler import Scaler
from tests.attacks import attacks_fixture as toy
from tests.audits.audit_fixture import audit, command, feature_audit, image_audit
from tests.audits.test_trial import sklearn_accuracy

C, D, M = 3, 4, 5


def planted(n: int = 300, free: int = 30, name: str = "planted") -> tuple[Tensor, Tensor]:
    """Two features that tell three overlapping classes apart, and free ones that have nothing to do with them."""
    y = torch.arange(n) % 3
    centres = 2.2 * torch.tensor([[1.0, 0.0], [-0.5, 0.87], [-0.5, -0.87]])
    draws = toy.stream(0, name)
    return torch.cat([centres[y] + torch.randn(n, 2, generator=draws), torch.randn(n, free, generator=draws)], 1), y


def overlapping(n: int = 300) -> Knowledge:
    """Classes that no head can tell apart without errors."""
    z, y = toy.gaussians(n, "train", 8, 4, distance=0.5)
    return replace(toy.feature_knowledge(40), z=z, y=y)


def planted_knowledge() -> Knowledge:
    known = toy.feature_knowledge(30)
    z, y = planted()
    return replace(known, z=z, y=y, validation_z=z, validation_y=y, classes=3)


def replaced(known: Knowledge, made: Poisoning) -> Knowledge:
    """The victim's features with the poison in its place."""
    assert made.replaces and made.z is not None
    z = known.z.clone()
    z[made.base] = made.z
    return replace(known, z=z)


def noise_by_row(known: Knowledge, made: Poisoning) -> Tensor:
    return replaced(known, made).z - known.z


@pytest.mark.parametrize("kept", [0, 40])
def test_gradient_is_the_finite_difference_of_the_refitted_training_loss(kept: int) -> None:
    z, y = toy.gaussians(60, "train", D, C)
    x = Scaler.of([z]).apply(z)
    others, moved, labels = Rows(x[:kept], y[:kept]), x[-M:].clone(), y[-M:]
    objective = ErrorMinimising(others, C, toy.RIDGE, tolerance=1e-10)
    objective.evaluate(moved + 1, labels)  # a warm start must not move the answer
    now = objective.evaluate(moved, labels)

    def refitted(at: Tensor) -> float:
        rows, all_labels = torch.cat([others.x.double(), at]), torch.cat([others.y, labels])
        head = toy.naive_head(rows, all_labels, C, objective.head)
        return float(toy.head_loss(head, rows, all_labels))

    start = moved.double()
    assert now.value == pytest.approx(refitted(start), rel=1e-9)
    expected, h = torch.zeros(M, D, dtype=torch.float64), 1e-4
    for place in np.ndindex(M, D):
        step = torch.zeros_like(start)
        step[place] = h
        expected[place] = (refitted(start + step) - refitted(start - step)) / (2 * h)
    assert now.gradient is not None
    torch.testing.assert_close(now.gradient.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_head_needs_a_fit_first() -> None:
    z, y = toy.gaussians(20, "train", D, C)
    with pytest.raises(ValueError, match="evaluate"):
        ErrorMinimising(Rows(z, y), C, toy.RIDGE).slope(z, y)


def test_noise_belongs_to_its_row() -> None:
    """The same rows in another order get the same noise, each its own."""
    known = toy.feature_knowledge(200)
    order = torch.randperm(200, generator=toy.stream(0, "order"))
    other = replace(known, z=known.z[order], y=known.y[order])
    first, second = (noise_by_row(k, EMN(rounds=2).poison(k, 200, 0)) for k in (known, other))
    torch.testing.assert_close(second, first[order], rtol=1e-4, atol=1e-4)
    assert float((first - first.roll(known.classes, 0)).abs().max()) > 0.1, "rows of one class differ"


def test_only_the_chosen_rows_move_and_they_keep_their_labels() -> None:
    known = toy.feature_knowledge(200)
    made = EMN().poison(known, 50, 0)
    moved = (noise_by_row(known, made) != 0).any(1)
    assert int(moved.sum()) == 50 == len(made.base.unique())
    assert torch.equal(made.y, known.y[made.base]) and torch.equal(moved.nonzero()[:, 0], made.base.sort().values)
    assert (made.ledger.added, made.ledger.replaced) == (0, 50)


def grey(known: Knowledge, low: int = 40, high: int = 215) -> Knowledge:
    """Images without black and white, where no noise of 8 levels is cut off."""
    assert known.images is not None and known.encoder is not None
    pixels = known.images.pixels.clamp(low, high)
    return replace(known, images=replace(known.images, pixels=pixels), z=toy.embedded(known.encoder, pixels))


@pytest.mark.parametrize(
    ("fields", "furthest"),
    [({"steps": 7}, 5), ({"epsilon": 2.5}, 2), ({"steps": 1, "step": 1.5}, 2)],  # 1.5 levels more than an odd one
    ids=str,
)
def test_noise_of_the_class_is_the_same_for_all_its_images(fields: dict[str, Any], furthest: int) -> None:
    known = grey(toy.pixel_knowledge(60))
    made = EMN(carrier="pixels", noise="class", rounds=1, **fields).poison(known, 45, 0)
    assert made.pixels is not None and known.images is not None
    noise = made.pixels.int() - known.images.pixels[made.base].int()
    shared = [noise[made.y == label].unique(dim=0) for label in range(3)]
    assert [len(rows) for rows in shared] == [1, 1, 1]
    assert not torch.equal(shared[0], shared[1]) and int(noise.abs().max()) >= furthest


def test_noise_of_the_class_on_features_is_the_same_where_the_box_does_not_cut() -> None:
    known = toy.feature_knowledge(200)
    made = EMN(noise="class").poison(known, 200, 0)
    assert made.z is not None
    x = noise_by_row(known, made) / Scaler.of([known.z]).scale.float()
    low, high = known.z.aminmax(dim=0)
    after = known.z + x * Scaler.of([known.z]).scale.float()
    free = (after > low + 1e-3) & (after < high - 1e-3)
    assert float(free.float().mean()) > 0.9
    for label in range(known.classes):
        for k in range(known.z.shape[1]):
            own = x[(known.y == label) & free[:, k], k]
            assert float(own.max() - own.min()) < 1e-4
    assert float(x.abs().max()) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("noise", ["sample", "class"])
def test_ball_is_kept_to_the_grey_level(noise: Any) -> None:
    known = toy.pixel_knowledge()
    for asked, limit in ((None, 8), (4.0, 4), (8.7, 8)):
        made = EMN(carrier="pixels", epsilon=asked, noise=noise, rounds=2).poison(known, 30, 0)
        assert made.pixels is not None and made.pixels.dtype == torch.uint8 and known.images is not None
        assert int((made.pixels.int() - known.images.pixels[made.base].int()).abs().max()) == limit
        assert made.limits == {"epsilon": limit} and made.constraint == "pixels"


@pytest.mark.parametrize("noise", ["sample", "class"])
def test_noise_on_features_stays_in_its_ball_and_in_the_box(noise: Any) -> None:
    known = toy.feature_knowledge(200)
    made = EMN(noise=noise, reach=0.3, stop=0).poison(known, 100, 0)
    assert made.z is not None and made.limits == {"reach": 0.3}
    away = (made.z - known.z[made.base]).abs().double() / known.z.double().std(0, unbiased=False)
    assert float(away.max()) == pytest.approx(0.3, rel=1e-5)
    assert bool((made.z >= known.z.amin(0)).all() and (made.z <= known.z.amax(0)).all())


def test_noise_persists_from_round_to_round() -> None:
    known = toy.feature_knowledge(200)
    scale = known.z.double().std(0, unbiased=False)
    for rounds in (1, 3):
        made = EMN(rounds=rounds, steps=2, step=0.05, stop=0).poison(known, 200, 0)
        assert float((noise_by_row(known, made).abs() / scale).max()) == pytest.approx(0.1 * rounds, rel=1e-3)


def test_the_curve_is_the_training_loss_of_the_victims_rows() -> None:
    """From the clean rows to those with the noise in their place, in the units of the clean ones."""
    known = overlapping(120)
    made = EMN(rounds=2, stop=0).poison(known, 80, 0)
    scaler = Scaler.of([known.z])
    for told, rows in zip(
        (made.ledger.objective[0], made.ledger.objective[-1]), (known, replaced(known, made)), strict=True
    ):
        x = scaler.apply(rows.z)
        assert told == pytest.approx(float(toy.head_loss(toy.naive_head(x, known.y, 4), x, known.y)), rel=1e-5)


@pytest.mark.parametrize("carrier", ["features", "pixels"])
def test_training_error_falls(carrier: Any) -> None:
    known = toy.pixel_knowledge() if carrier == "pixels" else overlapping()
    n = len(known.y)
    made = EMN(carrier=carrier, rounds=3).poison(known, n, 0)
    assert made.ledger.better == "lower" and made.ledger.objective[-1] < 0.8 * made.ledger.objective[0]
    if made.pixels is not None:
        assert known.encoder is not None
        made = replace(made, z=toy.embedded(known.encoder, made.pixels))
    before, after = (1 - toy.judge(k, None, None, (k.z, k.y)) for k in (known, replaced(known, made)))
    figures = made.ledger.figures
    assert before > 0.1 and after < 0.5 * before
    assert figures["clean training error"] == pytest.approx(before, abs=0.02)
    assert figures["training error"] == pytest.approx(after, abs=0.02)


@pytest.mark.parametrize("noise", ["sample", "class"])
def test_a_head_learns_the_noise_instead_of_the_class(noise: Any) -> None:
    """Free features can carry the label, but not on clean rows; random noise of the same size is harmless."""
    known, test = planted_knowledge(), planted(3000, name="test")
    made = EMN(noise=noise).poison(known, len(known.y), 0)
    assert made.z is not None
    clean, harmed = (toy.judge(k, None, None, test) for k in (known, replaced(known, made)))
    size = noise_by_row(known, made).abs()
    signs = torch.where(torch.rand(size.shape, generator=toy.stream(0, "signs")) < 0.5, -1.0, 1.0)
    random = toy.judge(replace(known, z=known.z + signs * size), None, None, test)
    assert clean > 0.8 and harmed < clean - 0.15 and random > clean - 0.03


def test_stop_ends_the_attack_after_a_round_that_is_good_enough() -> None:
    known = overlapping()

    def told(stop: float) -> dict[str, float]:
        return EMN(rounds=6, steps=1, step=0.05, stop=stop).poison(known, 300, 0).ledger.figures

    whole = [EMN(rounds=k, steps=1, step=0.05, stop=0).poison(known, 300, 0).ledger.figures for k in range(1, 7)]
    errors = [figures["training error"] for figures in whole]
    assert [figures["rounds"] for figures in whole] == [1, 2, 3, 4, 5, 6] and errors[0] > errors[2] > errors[-1]
    assert told(1.0)["rounds"] == 1, "never before the first round, however good the clean head is"
    stop = (errors[1] + errors[2]) / 2
    first = next(k for k, error in enumerate(errors, 1) if error < stop)
    assert told(stop) == whole[first - 1] and first < 6


def test_the_same_seed_gives_the_same_bytes() -> None:
    for known, attack in ((toy.feature_knowledge(200), EMN()), (toy.pixel_knowledge(60), EMN(carrier="pixels"))):
        first, second, other = (toy.fingerprint_of(attack.poison(known, 50, seed)) for seed in (3, 3, 4))
        assert first == second != other


def test_fields_that_do_not_go_together() -> None:
    assert (EMN().reach, EMN().epsilon) == (0.5, None)
    assert (EMN(carrier="pixels").reach, EMN(carrier="pixels").epsilon) == (None, 8)
    assert EMN(carrier="pixels").variant == "pixels, 8/255, replaces rows"
    assert EMN(noise="class").variant == "features, reach 0.5, replaces rows, noise class"
    with pytest.raises(SpecError, match="epsilon is a bound of carrier pixels"):
        EMN.configure(epsilon=8)
    with pytest.raises(SpecError, match="reach is a bound of carrier features"):
        EMN.configure(carrier="pixels", reach=1)


def test_what_it_cannot_do_is_said_before_any_work() -> None:
    known = toy.feature_knowledge(40)
    with pytest.raises(BudgetError, match="emn: at most the 40 training rows; got 41"):
        EMN().poison(known, 41, 0)
    with pytest.raises(DataError, match="emn: the 80 rows that the victim trains on"):
        EMN().poison(replace(known, victim_rows=80), 10, 0)
    with pytest.raises(SpecError, match="images and an encoder; got features from a file"):
        EMN(carrier="pixels").poison(known, 10, 0)
    with pytest.raises(AttackError, match="a training loss that falls"):
        EMN(reach=1e-9).poison(known, 10, 0)


def test_no_more_rows_are_replaced_than_there_are(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = "budget: at most 1 for emn, which replaces training rows; got 1.5; pass 1"
    source = ["--features", world / "F.npz", "--out"]
    for words in (
        ["attack", "emn", *source, tmp_path / "p.npz", "--budget", 1.5],
        ["audit", *source, tmp_path / "audit", "--attacks", "label-flip,emn", "--budgets", "0.1,1.5"],
    ):
        assert command(*words) == 2
        assert expected in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("budget", [0.4, 1.0])
def test_scores_are_those_of_scikit_learn_on_the_rows_with_the_poison_in_its_place(
    budget: float, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: dict(np.load(world / f"{name}.npz")) for name in "FT"}
    poison = tmp_path / "poison.npz"
    source = ["--features", world / "F.npz", "--validation", world / "V.npz"]
    assert command("attack", "emn", *source, "--budget", budget, "--reach", 1, "--out", poison) == 0
    m = round(90 * budget)
    assert f"{m} poisoned rows = floor({budget:g} x 90), each in the place of its base row" in capsys.readouterr().out
    made = dict(np.load(poison))
    assert bool(made["replaces"]) and made["replaces"].shape == () and len(made["y"]) == m
    outcome = audit(feature_audit(world, attacks=["emn:reach=1"], budgets=[budget]), tmp_path / "audit")
    clean, record = outcome.records
    assert record.status == "ok", record.error
    assert (record.ledger.added, record.ledger.replaced) == (0, m)
    assert "constraint box and L-inf ball" in [check.name for check in record.referee]

    z = files["F"]["z"].copy()
    z[made["base"]] = made["z"]
    np.testing.assert_array_equal(files["F"]["y"][made["base"]], made["y"])
    one_row = 1 / len(files["T"]["y"]) + 1e-9
    expected = sklearn_accuracy([{"z": z, "y": files["F"]["y"]}], files["T"])
    assert record.scores["exact"].poisoned.value == pytest.approx(expected, abs=one_row)
    assert record.scores["exact"].clean.value == clean.scores["exact"].clean.value
    assert len(record.projection.poison) == m
    assert command("report", tmp_path / "audit") == 0
    report = (tmp_path / "audit" / "report.md").read_text(encoding="utf-8")
    assert f"| 0 ({m} replaced) |" in report and "emn (features, reach 1, replaces rows)" in report


def test_images_are_replaced_in_an_audit_and_shown_beside_their_bases(world: Path, tmp_path: Path) -> None:
    spec = image_audit(world, attacks=["emn:carrier=pixels:rounds=2", "emn:carrier=pixels:noise=class"], budgets=[1.0])
    for record in audit(spec, tmp_path).records[1:]:
        assert record.status == "ok", record.error
        assert "range and L-inf ball" in [check.name for check in record.referee]
        assert len(record.exhibits) == 6 and "at most 8 of 255" in record.exhibits[0].caption
        assert all(shown.poison_label == shown.base_label for shown in record.exhibits)
        assert record.ledger.passes > 0 and len(record.projection.poison) == 60
