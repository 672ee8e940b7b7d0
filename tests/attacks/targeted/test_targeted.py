"""The targeted attacks by labelled rows: gradients, planted optima, what a head learns, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from foretaste.attacks.knowledge import Knowledge
from foretaste.attacks.optimise.carriers import FeatureCarrier
from foretaste.attacks.optimise.constraints import Box
from foretaste.attacks.optimise.projected_ascent import Evaluation, Objective, ascend
from foretaste.attacks.results import Poisoning
from foretaste.attacks.targeted.bullseye import Bullseye, MeanDistance
from foretaste.attacks.targeted.clean_label import CleanLabel
from foretaste.attacks.targeted.feature_collision import Collision, FeatureCollision
from foretaste.attacks.targeted.gradient_matching import Alignment, GradientMatching, SignedAdam
from foretaste.errors import DataError, SpecError
from foretaste.heads.scaler import Scaler
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.runtime import stream
from tests.attacks import attacks_fixture as toy

C, D, M, WANTED = 4, 6, 5, 2


KINDS: tuple[type[CleanLabel], ...] = (GradientMatching, Bullseye, FeatureCollision)


each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def random_rows(name: str, m: int = M) -> Tensor:
    return torch.randn(m, D, generator=stream(0, name))


def other_image(known: Knowledge, wanted: int) -> Tensor:
    """An image of the class after the wanted one that is no training row."""
    own = toy.stripes(12, "target")
    return own.pixels[int((own.labels == (wanted + 1) % known.classes).nonzero()[0])]


def naive_alignment(head: Tensor, x: Tensor, y: Tensor, goal: Tensor, wanted: int) -> Tensor:
    """1 - cosine of the two losses' gradients as autograd takes them, differentiable in x: double backpropagation."""
    weight = head.clone().requires_grad_()
    losses = [
        torch.nn.functional.cross_entropy(toy.ones(rows) @ weight.T, labels, reduction="sum")
        for rows, labels in ((x, y), (goal, torch.tensor([wanted])))
    ]
    made, pull = (torch.autograd.grad(loss, weight, create_graph=True)[0].flatten() for loss in losses)
    return 1 - made @ pull / (made.norm() * pull.norm())


def test_alignment_is_that_of_double_backpropagation() -> None:
    head = torch.randn(C, D + 1, dtype=torch.float64, generator=stream(0, "head"))
    x, y, goal = random_rows("poison"), torch.full((M,), WANTED), random_rows("target", 1)
    now = Alignment(head, goal, WANTED).evaluate(x, y)
    leaf = x.double().requires_grad_()
    expected = naive_alignment(head, leaf, y, goal.double(), WANTED)
    expected.backward()
    assert now.value == pytest.approx(float(expected.detach()), abs=1e-12)
    assert now.gradient is not None and leaf.grad is not None
    torch.testing.assert_close(now.gradient.double(), leaf.grad, rtol=1e-4, atol=1e-7)


def test_the_target_itself_is_aligned() -> None:
    head = torch.randn(C, D + 1, dtype=torch.float64, generator=stream(0, "head"))
    goal = random_rows("target", 1)
    copies = Alignment(head, goal, WANTED).evaluate(goal.expand(M, -1), torch.full((M,), WANTED))
    assert copies.value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", ["bullseye", "collision", "alignment"])
def test_gradients_are_finite_differences(kind: str) -> None:
    known = toy.pixel_knowledge(30)
    assert known.images is not None and known.encoder is not None
    goal, x, y = random_rows("target", 1), random_rows("poison"), torch.full((M,), WANTED)
    head = torch.randn(C, D + 1, dtype=torch.float64, generator=stream(0, "head"))
    start = Bullseye().start(known, known.images.pixels[0], WANTED, M, 0)
    objectives: dict[str, Objective] = {
        "bullseye": MeanDistance(goal),
        "collision": Collision(goal, start.carrier, 3.0),
        "alignment": Alignment(head, goal, WANTED),
    }
    objective, h = objectives[kind], 1e-2
    found = objective.evaluate(x, y).gradient
    assert found is not None
    expected = torch.zeros(M, D)
    for place in np.ndindex(M, D):
        step = torch.zeros(M, D)
        step[place] = h
        ends = (objective.evaluate(at, y, gradient=False).value for at in (x + step, x - step))
        expected[place] = (next(ends) - next(ends)) / (2 * h)
    torch.testing.assert_close(found, expected, rtol=3e-3, atol=3e-4 * float(expected.abs().max()))


def test_objectives_by_hand() -> None:
    x, y = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0])
    assert MeanDistance(torch.tensor([[0.0, 2.0]])).evaluate(x, y).value == pytest.approx((0.25 + 0.25) / 4)
    known = toy.pixel_knowledge(30)
    assert known.images is not None
    carrier = Bullseye(epsilon=None).start(known, known.images.pixels[0], 1, 2, 0).carrier
    objective = Collision(torch.tensor([[0.0, 2.0]]), carrier, 3.0)
    carrier.leaf = carrier.leaf + torch.tensor([0.1, -0.2]).view(2, 1, 1, 1)
    now = objective.evaluate(x, y)
    assert now.rows is not None
    assert now.rows.tolist() == pytest.approx([5 / 2 + 3 * 0.01, 1 / 2 + 3 * 0.04], rel=1e-4)
    assert now.value == pytest.approx(float(now.rows.mean()))


def test_bullseye_reaches_the_target_where_the_box_allows_it() -> None:
    """On features: the mean is the target exactly, though no poison need be there."""
    known = toy.feature_knowledge(200)
    scaler = Scaler.of([known.z])
    base, goal = known.z[known.y == 1][:6], scaler.apply(known.z[known.y == 2][:1])
    carrier = FeatureCarrier(base, scaler, Box(known.z.amin(0) - 9, known.z.amax(0) + 9))
    y = torch.ones(6, dtype=torch.int64)
    ascend("bullseye", carrier, MeanDistance(goal), y, steps=400, rate=0.02, progress=lambda done, total: None)
    torch.testing.assert_close(carrier.features().mean(0), goal[0], atol=5e-3, rtol=0)
    assert float((carrier.features() - goal).norm(dim=1).min()) > 0.5


def linear_problem(wanted: int, n: int = 240) -> tuple[Knowledge, Tensor]:
    known = toy.pixel_knowledge(n, "linear")
    return known, other_image(known, wanted)


def features_of(known: Knowledge, pixels: Tensor) -> Tensor:
    assert known.encoder is not None
    return toy.embedded(known.encoder, pixels)


def sklearn_class(known: Knowledge, made: Poisoning | None, target: Tensor) -> int:
    """What scikit-learn's head, with the poison added or in its place, says of the target."""
    z, y = known.z.clone(), known.y
    if made is not None:
        assert made.pixels is not None
        poison = features_of(known, made.pixels)
        if made.replaces:
            z[made.base] = poison
        else:
            z, y = torch.cat([z, poison]), torch.cat([y, made.y])
    scaler = StandardScaler().fit(z.double().numpy())
    head = LogisticRegression(C=1 / (known.ridge * len(z)), max_iter=1000)
    head.fit(scaler.transform(z.double().numpy()), y.numpy())
    return int(head.predict(scaler.transform(features_of(known, target[None]).double().numpy()))[0])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_retrained_head_gives_the_target_its_class(kind: type[CleanLabel]) -> None:
    known, _ = linear_problem(WANTED)
    target = toy.stripes(12, "target").pixels[1]
    made = kind.configure(epsilon=96).poison_for(known, target, WANTED, 60, 0)
    assert sklearn_class(known, None, target) == 1 != WANTED
    assert sklearn_class(known, made, target) == WANTED


def test_collision_ends_at_the_closed_form_of_a_linear_encoder() -> None:
    """The objective is quadratic there: its optimum solves one linear system."""
    known, target = linear_problem(WANTED)
    assert known.images is not None
    # Grey images, so that the optimum is inside [0, 1].
    grey = known.images.pixels.float() * 0.3 + 90
    images = Images(grey.to(torch.uint8), known.images.labels, known.images.classes, "grey")
    known = replace(known, images=images, z=features_of(known, images.pixels))
    target, beta = (target.float() * 0.3 + 90).to(torch.uint8), 20.0
    attack = FeatureCollision(epsilon=None, beta=beta, steps=200)
    made = attack.poison_for(known, target, WANTED, M, 0)
    scale = known.z.double().std(0, correction=0)
    zero = torch.zeros(1, *target.shape)
    size = zero.numel()
    at_zero = features_of(known, zero.to(torch.uint8)).double()
    basis = torch.eye(size).view(size, *target.shape)
    assert known.encoder is not None
    with torch.no_grad():
        jacobian = ((known.encoder(basis).double() - at_zero) / scale).T  # [d, size]
    base = images.pixels[made.base].flatten(1).double() / 255
    gap = (features_of(known, images.pixels[made.base]).double() - features_of(known, target[None]).double()) / scale
    d = len(jacobian)
    normal = jacobian.T @ jacobian / d + beta / size * torch.eye(size, dtype=torch.float64)
    expected = base - torch.linalg.solve(normal, (gap @ jacobian / d).T).T
    assert 0 < float(expected.min()) < float(expected.max()) < 1
    assert float((expected - base).abs().max()) * 255 > 8, "the answer is not the start"
    assert made.pixels is not None
    found = made.pixels.flatten(1).double()
    assert float((found - expected * 255).abs().max()) <= 1.0, "within the rounding to grey levels"


def test_the_best_leaf_is_kept_poison_by_poison() -> None:
    class Apart:
        """Each row's distance to zero; steps of the first row are much too long for it."""

        better = "lower"

        def evaluate(self, x: Tensor, y: Tensor, *, gradient: bool = True) -> Evaluation:
            rows = x.square().sum(1)
            return Evaluation(float(rows.mean()), 2 * x * torch.tensor([[1.0], [1e-3]]), rows=rows)

    class Plain:
        def __init__(self, leaf: Tensor, rate: float) -> None:
            self.leaf, self.rate = leaf, rate

        def step(self, rows: Tensor | None = None) -> None:
            assert rows is not None and len(rows) == 2 and self.leaf.grad is not None
            self.leaf.add_(self.leaf.grad, alpha=self.rate)

    z = torch.tensor([[2.0], [2.0]])
    carrier = FeatureCarrier(z, Scaler(torch.zeros(1), torch.ones(1)), Box(-torch.ones(1) * 1e9, torch.ones(1) * 1e9))
    y = torch.zeros(2, dtype=torch.int64)
    end = ascend("t", carrier, Apart(), y, steps=9, rate=2.0, progress=lambda a, b: None, optimiser=Plain)
    assert end.curve[-1] > end.curve[0], "the mean got worse"
    assert carrier.leaf[0, 0] == 2.0 and 0 < float(carrier.leaf[1, 0]) < 1.97


def test_signed_adam_is_adam_on_signs_with_the_milestones_of_the_authors() -> None:
    """Written down again: Adam, whose step is divided by ten after 3/8, 5/8 and 7/8 of the steps."""
    start, pull = torch.tensor([0.5, -2.0, 3.0]), torch.tensor([1.0, 5.0, 0.1])
    leaf, u, first, second = start.clone(), start.double(), 0.0, 0.0
    mine = SignedAdam(leaf, -0.1, 40)
    for t in range(1, 41):
        leaf.grad = leaf * pull
        mine.step()
        sign = (u * pull).sign()
        first, second = 0.9 * first + 0.1 * sign, 0.999 * second + 0.001 * sign**2
        rate = 0.1 if t <= 15 else 0.01 if t <= 25 else 0.001 if t <= 35 else 0.0001
        u = u - rate * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)) ** 0.5 + 1e-8)
    torch.testing.assert_close(leaf.double(), u, rtol=1e-5, atol=1e-5)


def check_ledger(ledger: Ledger) -> None:
    assert Ledger.model_validate_json(ledger.model_dump_json()) == ledger
    assert min(ledger.objective) < ledger.objective[0] and ledger.objective_name


@each
@pytest.mark.parametrize("epsilon", [8, 3.9, None])
def test_budget_ball_range_labels_and_ledger(kind: type[CleanLabel], epsilon: float | None) -> None:
    known = toy.pixel_knowledge(60)
    assert known.images is not None
    before, state, target = toy.fingerprint(known), torch.get_rng_state(), other_image(known, WANTED)
    kept = target.clone()
    made = kind.configure(epsilon=epsilon, steps=5).poison_for(known, target, WANTED, 7, 0)
    assert made.pixels is not None and made.z is None and made.pixels.dtype == torch.uint8
    assert len(made.pixels) == len(made.y) == len(made.base.unique()) == 7
    assert bool((made.y == WANTED).all()) and bool((known.y[made.base] == WANTED).all())
    away = (made.pixels.to(torch.int16) - known.images.pixels[made.base].to(torch.int16)).abs().amax()
    assert 0 < int(away) <= (255 if epsilon is None else int(epsilon))
    assert made.constraint == "pixels" and made.limits == ({} if epsilon is None else {"epsilon": int(epsilon)})
    assert made.replaces == kind.replaces and made.ledger.changed == sorted(made.base.tolist())
    assert (made.ledger.added, made.ledger.replaced) == ((0, 7) if made.replaces else (7, 0))
    check_ledger(made.ledger)
    assert toy.fingerprint(known) == before and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(target, kept) and torch.is_grad_enabled()


@each
def test_the_figures_are_those_of_the_delivered_images(kind: type[CleanLabel]) -> None:
    known = toy.pixel_knowledge(60)
    target = other_image(known, WANTED)
    made = kind.configure(steps=5).poison_for(known, target, WANTED, 7, 0)
    assert made.pixels is not None
    scale = known.z.double().std(0, correction=0)
    distance = ((features_of(known, made.pixels).double() - features_of(known, target[None])) / scale).norm(dim=1)
    assert made.ledger.per_row["feature_distance"] == pytest.approx(distance.tolist(), rel=2e-3)
    if kind is Bullseye:
        own = (known.z.double() - known.z.double().mean(0)) / scale
        goal = (features_of(known, target[None]).double() - known.z.double().mean(0)) / scale
        mean = ((features_of(known, made.pixels).double() - known.z.double().mean(0)) / scale).mean(0)
        assert made.ledger.figures["delivered"] == pytest.approx(
            float((mean - goal).square().sum() / goal.square().sum()), rel=1e-3
        )
        assert made.ledger.objective[0] == pytest.approx(
            float((own[made.base].mean(0) - goal).square().sum() / goal.square().sum()), rel=1e-3
        )


@each
def test_the_same_arguments_give_the_same_bytes(kind: type[CleanLabel]) -> None:
    def made(seed: int) -> str:
        known = toy.pixel_knowledge(60)
        return toy.fingerprint_of(
            kind.configure(steps=4).poison_for(known, other_image(known, WANTED), WANTED, 4, seed)
        )

    assert made(1) == made(1) != made(2)


@each
def test_more_rows_than_the_class_has(kind: type[CleanLabel]) -> None:
    """Whoever adds uses bases again; whoever replaces can do no more than all of the class, and says so."""
    known = toy.pixel_knowledge(30)
    made = kind.configure(steps=3).poison_for(known, other_image(known, WANTED), WANTED, 14, 0)
    assert len(made.y) == (10 if kind.replaces else 14) == made.ledger.added + made.ledger.replaced
    assert sorted(made.base.unique().tolist()) == (known.y == WANTED).nonzero()[:, 0].tolist()
    one = kind.configure(steps=3).poison_for(known, other_image(known, WANTED), WANTED, 1, 0)
    assert len(one.y) == 1


@each
def test_nearest_bases(kind: type[CleanLabel]) -> None:
    known = toy.pixel_knowledge(60)
    target = other_image(known, WANTED)
    made = kind.configure(steps=3, bases="nearest").poison_for(known, target, WANTED, 4, 0)
    x = StandardScaler().fit_transform(torch.cat([known.z]).double().numpy())
    scaler = StandardScaler().fit(known.z.double().numpy())
    away = np.linalg.norm(x - scaler.transform(features_of(known, target[None]).double().numpy()), axis=1)
    away[(known.y != WANTED).numpy()] = np.inf
    assert made.base.tolist() == np.argsort(away)[:4].tolist()


def test_a_watermark_is_what_the_poison_stays_near_to() -> None:
    """With an enormous beta nothing but the blend is left, inside the ball."""
    known = toy.pixel_knowledge(60)
    assert known.images is not None
    target = other_image(known, WANTED)
    for epsilon in (None, 16):
        attack = FeatureCollision(beta=1e7, watermark=0.3, steps=3, epsilon=epsilon)
        made = attack.poison_for(known, target, WANTED, 4, 0)
        base = known.images.pixels[made.base].float()
        blend = 0.7 * base + 0.3 * target.float()
        if epsilon is not None:
            blend = torch.maximum(torch.minimum(blend, base + epsilon), base - epsilon)
        assert made.pixels is not None
        assert float((made.pixels.float() - blend).abs().max()) <= 1.0


def test_the_best_restart_is_delivered() -> None:
    known = toy.pixel_knowledge(60)
    target = other_image(known, WANTED)
    several, one = (
        GradientMatching(steps=4, restarts=k).poison_for(known, target, WANTED, 4, 0).ledger for k in (4, 1)
    )
    assert min(several.objective) <= min(one.objective) and several.passes > 3 * one.passes
    assert several.figures["delivered"] == pytest.approx(min(several.objective), abs=0.05)


@each
def test_plans_what_it_does_and_tells_progress(kind: type[CleanLabel]) -> None:
    known, attack = toy.pixel_knowledge(60), kind.configure(steps=4)
    seen: list[tuple[int, int]] = []
    made = attack.poison_for(
        known, other_image(known, WANTED), WANTED, 9, 0, lambda done, total: seen.append((done, total))
    )
    passes, fits = attack.planned(9)
    assert passes <= made.ledger.passes <= 2 * passes and fits >= 0
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] > 0


@each
def test_what_cannot_work_is_refused(kind: type[CleanLabel]) -> None:
    known, attack = toy.pixel_knowledge(30), kind()
    target = other_image(known, WANTED)
    with pytest.raises(SpecError, match=rf"{kind.name}: images and an encoder; got features from a file"):
        attack.poison_for(replace(known, images=None), target, WANTED, 3, 0)
    with pytest.raises(SpecError, match=r"a target uint8 \[3, 6, 6\].*got torch.float32 \[3, 6, 6\]"):
        attack.poison_for(known, target / 255, WANTED, 3, 0)
    with pytest.raises(SpecError, match=r"wanted class in \[0, 2\]; got 3"):
        attack.poison_for(known, target, 3, 3, 0)
    with pytest.raises(DataError, match="known rows of the wanted class 2, to start from; got none"):
        attack.poison_for(replace(known, y=known.y % 2), target, WANTED, 3, 0)
    with pytest.raises(SpecError, match=r"epsilon = 0\.5"):
        kind.configure(epsilon=0.5)
    if kind.replaces:
        with pytest.raises(DataError, match="the 300 rows that the victim trains on"):
            attack.poison_for(replace(known, victim_rows=300), target, WANTED, 3, 0)
    else:
        some = kind.configure(steps=3).poison_for(replace(known, victim_rows=300), target, WANTED, 3, 0)
        assert len(some.y) == 3


@each
def test_a_variant_names_the_ball_and_what_is_not_default(kind: type[CleanLabel]) -> None:
    replaces = ", replaces rows" if kind.replaces else ""
    assert kind().variant == f"8/255{replaces}"
    assert kind.configure(epsilon=None, bases="nearest").variant == f"[0, 1]{replaces}, bases nearest"
