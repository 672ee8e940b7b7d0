"""What works on encoders and breaks a promise is told which one: edits, repairs, guards, scans; certified heads too."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

import foretaste as ft
from foretaste.defences.certified.dpa import DPA
from foretaste.defences.guards.agreement import Agreement
from foretaste.defences.repairs.clp import CLP
from foretaste.defences.scans.drift import Drift
from foretaste.testing import (
    ConformanceError,
    check_attack,
    check_certified_head,
    check_guard,
    check_repair,
    check_scan,
)

COUNT = itertools.count(1)


class Nudge(ft.WeightAttack):
    """The last tensor, a little longer."""

    name: ClassVar[str] = "nudge"

    def corrupt(self, problem: Any, surrogate: Any = None, progress: Any = None) -> Any:
        state = {name: tensor.clone() for name, tensor in problem.encoder.body.state_dict().items()}
        state["net.10.weight"] = state["net.10.weight"] * self.by(problem)
        return ft.Corruption(self.spoil(problem, state))

    def by(self, problem: Any) -> float:
        return 1.5

    def spoil(self, problem: Any, state: Any) -> Any:
        return state


class Copy(ft.TargetedAttack):
    """Copies of the target under the wanted label."""

    name: ClassVar[str] = "copy"

    def poison_for(self, known: Any, target: Any, wanted: int, rows: int, seed: int, progress: Any = None) -> Any:
        pixels, base = target.expand(rows, -1, -1, -1).clone(), torch.arange(rows)
        return self.spoil(target, ft.Poisoning(y=torch.full((rows,), wanted), base=base, pixels=pixels))

    def spoil(self, target: Any, made: Any) -> Any:
        return made


class Blend(ft.PretrainingAttack):
    """Copies of the targets."""

    name: ClassVar[str] = "blend"

    def poison(self, targets: Any, references: Any, pool: Any, rows: int, seed: int) -> Any:
        pair = torch.arange(rows) % len(targets)
        return self.spoil(targets, pool, ft.PretrainingPoison(torch.stack([targets[p] for p in pair.tolist()]), pair))

    def spoil(self, targets: Any, pool: Any, made: Any) -> Any:
        return made


def sinner(base: type, **more: Any) -> type:
    return type("Sinner", (base,), {"__module__": __name__, "name": "sinner", **more})


def touching(value: Any, work: Any) -> Any:
    work()
    return value


ATTACKS: dict[str, tuple[type, dict[str, Any], str]] = {
    "keys": (Nudge, {"spoil": lambda s, p, state: {"a": torch.ones(1)}}, "a complete state dict .*; got 1 tensors of "),
    "half": (
        Nudge,
        {"spoil": lambda s, p, state: {**state, "net.10.bias": state["net.10.bias"].half()}},
        r"net.10.bias: float32 \[8\] on the CPU; got float16",
    ),
    "nan": (
        Nudge,
        {"spoil": lambda s, p, state: {**state, "net.10.bias": state["net.10.bias"] * torch.nan}},
        "net.10.bias: finite; got NaN",
    ),
    "shadow labels": (
        Nudge,
        {"by": lambda s, p: 1.5 + float(p.shadow.labels[0])},
        "the labels of the shadow images change nothing; got other bytes; do not read them",
    ),
    "own encoder": (
        Nudge,
        {"spoil": lambda s, p, state: touching(state, lambda: p.encoder.body.net[0].bias.data.add_(1))},
        "referee: clean encoder untouched as promised",
    ),
    "training mode": (
        Nudge,
        {"spoil": lambda s, p, state: touching(state, lambda: p.encoder.body.train())},
        "referee: clean encoder untouched as promised; .*in training mode",
    ),
    "own target": (
        Nudge,
        {"spoil": lambda s, p, state: touching(state, lambda: p.targets[0].zero_())},
        "target untouched; got another image afterwards; work on a copy",
    ),
    "other label": (
        Copy,
        {"spoil": lambda s, t, made: replace(made, y=made.y - 1)},
        "referee: wanted label as promised",
    ),
    "too many": (
        Copy,
        {
            "spoil": lambda s, t, made: ft.Poisoning(
                y=made.y.repeat(2), base=made.base.repeat(2), pixels=made.pixels.repeat(2, 1, 1, 1)
            )
        },
        "referee: budget as promised; got 18 rows of at most",
    ),
    "float images": (
        Blend,
        {"spoil": lambda s, t, pool, made: ft.PretrainingPoison(made.pixels.float(), made.pair)},
        r"pixels: uint8 \[9, 3, 8, 8\] on the CPU; got float32",
    ),
    "one pair": (
        Blend,
        {"spoil": lambda s, t, pool, made: ft.PretrainingPoison(made.pixels, made.pair * 0)},
        "referee: shares as promised; got at most 9 images for one pair of 2, 5 allowed",
    ),
    "pool labels": (
        Blend,
        {"spoil": lambda s, t, pool, made: ft.PretrainingPoison(made.pixels + pool.labels[0].byte(), made.pair)},
        "the labels of the pool change nothing",
    ),
    "own pool": (
        Blend,
        {"spoil": lambda s, t, pool, made: touching(made, lambda: pool.pixels.zero_())},
        "referee: clean images untouched as promised",
    ),
}


@pytest.mark.parametrize("sin", ATTACKS)
def test_an_attack_that_breaks_a_promise(sin: str) -> None:
    base, more, message = ATTACKS[sin]
    check_attack(base)
    with pytest.raises(ConformanceError, match=f"sinner: {message}") as caught:
        check_attack(sinner(base, **more))
    assert "\n" not in str(caught.value)


def after(base: type, verb: str, change: Any) -> type:
    """A class whose verb gives what `change` makes of the honest result and of the first argument."""

    def sin(self: Any, first: Any, *rest: Any, **more: Any) -> Any:
        return change(getattr(base, verb)(self, first, *rest, **more), first, *rest)

    return sinner(base, **{verb: sin})


def certified(change: Any) -> Any:
    def refit(fitted: Any, rows: Any, *_: Any) -> Any:
        return type(fitted)(lambda z: change(fitted.certify(z), rows), fitted.figures)

    return refit


def scoring(change: Any) -> Any:
    def refit(fitted: Any, context: Any) -> Any:
        honest = fitted.score
        object.__setattr__(fitted, "score", lambda inputs: change(honest(inputs), inputs, context))
        return fitted

    return refit


HEADS = {
    "tuple": (lambda found, rows: (found.predictions, found.radii), "Certified as its result; got a tuple"),
    "radii": (lambda found, rows: replace(found, radii=found.radii - 100), "radii of -1 or more; got"),
    "classes": (lambda found, rows: replace(found, predictions=found.predictions + 9), r"predictions in \[0, 2\]"),
    "counts": (lambda found, rows: replace(found, radii=found.radii * 0 + next(COUNT)), "the same rows and seed give"),
    "writes": (lambda found, rows: touching(found, lambda: rows.y.zero_()), "the rows stay as they were"),
}


@pytest.mark.parametrize("sin", HEADS)
def test_a_certified_head_that_breaks_a_promise(sin: str) -> None:
    change, message = HEADS[sin]
    with pytest.raises(ConformanceError, match=f"sinner: {message}"):
        check_certified_head(after(DPA, "fit", certified(change)), partitions=20, head="prototype")


GUARDS = {
    "counts": (lambda scores, inputs, lent: scores + next(COUNT), "the same context gives the same bytes"),
    "inputs": (lambda scores, inputs, lent: touching(scores, lambda: inputs.zero_()), "clean images and inputs stay"),
    "encoder": (
        lambda scores, inputs, lent: touching(scores, lambda: lent.second.body.net[0].bias.data.add_(1)),
        "the encoders stay as they were",
    ),
}


@pytest.mark.parametrize("sin", GUARDS)
def test_a_guard_that_breaks_a_promise(sin: str) -> None:
    change, message = GUARDS[sin]
    with pytest.raises(ConformanceError, match=f"sinner: {message}"):
        check_guard(after(Agreement, "fit", scoring(change)), k=15)


def test_a_guard_that_takes_any_input() -> None:
    def flat(scores: Any, inputs: Any, lent: Any) -> Any:
        return scores

    def fit(self: Any, context: Any) -> Any:
        fitted = Agreement.fit(self, context)
        score = fitted.score
        plain = torch.zeros
        object.__setattr__(
            fitted, "score", lambda x: score(x) if x.shape[1:] == (3, 8, 8) and x.dtype == torch.uint8 else plain(1)
        )
        return fitted

    with pytest.raises(
        ConformanceError, match=r"sinner: a DataError for inputs of another shape or type; got none for"
    ):
        check_guard(sinner(Agreement, fit=fit), k=15)


def moved(mended: Any, *_: Any) -> Any:
    mended.body.net[0].bias.data.add_(next(COUNT))
    return mended


def recarded(**update: Any) -> Any:
    def change(mended: Any, *_: Any) -> Any:
        mended.card = mended.card.model_copy(update=update)
        return mended

    return change


REPAIRS = {
    "body": (lambda mended, *_: mended.body, "an Encoder as its result; got a Tiny"),
    "images": (
        lambda mended, encoder, clean, *_: touching(mended, lambda: clean.pixels.zero_()),
        "the clean images stay",
    ),
    "training": (lambda mended, *_: touching(mended, lambda: mended.body.train()), "an encoder in eval mode, without"),
    "hook": (
        lambda mended, *_: touching(mended, lambda: mended.body.register_forward_hook(lambda *_: None)),
        "no hook of the repair stays behind; got body",
    ),
    "digest": (recarded(sha256="0" * 64), "a card with the digest of the new weights; got 000000000000"),
    "source": (recarded(source="", mean=None), "the suspect's card, with a line about the repair"),
    "stale digest": (moved, "a card with the digest of the new weights"),
}


@pytest.mark.parametrize("sin", REPAIRS)
def test_a_repair_that_breaks_a_promise(sin: str) -> None:
    change, message = REPAIRS[sin]
    with pytest.raises(ConformanceError, match=f"sinner: {message}"):
        check_repair(after(CLP, "mend", change))


def test_repairs_that_count_and_that_read_too_few_images() -> None:
    def counted(self: Any, encoder: Any, clean: Any, seed: int, runtime: Any, progress: Any = None) -> Any:
        body = CLP.mend(self, encoder, clean, seed, runtime).body
        body.net[0].bias.data.add_(next(COUNT))
        return self.settled(encoder, body, "counted")

    def reading(self: Any, encoder: Any, clean: Any, seed: int, runtime: Any, progress: Any = None) -> Any:
        body = CLP.mend(self, encoder, clean, seed, runtime).body
        body.net[0].bias.data.add_(len(clean))
        return self.settled(encoder, body, "read")

    with pytest.raises(ConformanceError, match="sinner: the same arguments give the same bytes"):
        check_repair(sinner(CLP, mend=counted))
    with pytest.raises(ConformanceError, match="sinner: no clean image is read"):
        check_repair(sinner(CLP, mend=reading))
    with pytest.raises(
        ConformanceError, match="sinner: a DataError for fewer than 5 clean images; got none; call self"
    ):
        check_repair(sinner(CLP, mend=reading, least=property(lambda self: 5)))


SCANS = {
    "number": (lambda found, *_: found.score, "a Finding as its result; got a float"),
    "infinite": (lambda found, *_: replace(found, score=float("inf")), "a finite score; got inf"),
    "evidence": (lambda found, *_: replace(found, evidence={"z": found.inputs}), "evidence that JSON can keep"),
    "no inputs": (lambda found, *_: replace(found, inputs=None), "a score per image exactly if scores_inputs says so"),
    "counts": (lambda found, *_: replace(found, score=float(next(COUNT))), "the same arguments give the same bytes"),
    "images": (lambda found, e, scene, *_: touching(found, lambda: scene.images.labels.zero_()), "the images stay as"),
    "encoder": (lambda found, e, *_: touching(found, lambda: e.body.net[0].bias.data.add_(1)), "the encoders stay as"),
}


@pytest.mark.parametrize("sin", SCANS)
def test_a_scan_that_breaks_a_promise(sin: str) -> None:
    change, message = SCANS[sin]
    with pytest.raises(ConformanceError, match=f"sinner: {message}"):
        check_scan(after(Drift, "scan", change), top=3)


def test_a_scan_that_treats_the_first_of_the_pool_in_its_own_way() -> None:
    def compare(self: Any, pool: Any) -> Any:
        return [replace(found, score=float(place)) for place, found in enumerate(pool)]

    with pytest.raises(ConformanceError, match="sinner: `compare` judges an encoder alike wherever it stands"):
        check_scan(sinner(Drift, compare=compare), top=3)
