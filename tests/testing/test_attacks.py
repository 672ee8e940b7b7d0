"""An attack that breaks a promise is told which one: each of them is broken on purpose."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import ConfigDict, Field

import foretaste as ft
from foretaste.testing import ConformanceError, check_attack


class Honest(ft.LabelledAttack):
    """Drawn rows under the next label, in numpy; `spoil` is the place for a sin."""

    name: ClassVar[str] = "honest"
    how: int = Field(1, ge=1, description="by how much the label goes on")

    def poison(self, known: Any, rows: int, seed: int, progress: Any = None) -> Any:
        base = np.random.default_rng(seed).integers(0, len(known.y), rows)
        y = (known.y.numpy()[base] + self.how) % known.classes
        return self.spoil(known, ft.Poisoning(y=y, base=base, z=known.z.numpy()[base], constraint="box"), progress)

    def spoil(self, known: Any, made: Any, progress: Any) -> Any:
        return made


class Painter(ft.LabelledAttack):
    """Drawn images, a little brighter, under the next label; the constraint is left out."""

    name: ClassVar[str] = "painter"
    carrier: ClassVar[str] = "pixels"

    def poison(self, known: Any, rows: int, seed: int, progress: Any = None) -> Any:
        base = torch.randint(len(known.y), (rows,), generator=torch.Generator().manual_seed(seed))
        pixels = (known.images.pixels[base].int() + 4).clamp(max=255).to(torch.uint8)
        made = ft.Poisoning(y=(known.y[base] + 1) % known.classes, base=base, pixels=pixels)
        return self.spoil(made)

    def spoil(self, made: Any) -> Any:
        return made


def spoiled(sin: Any, base: type = Honest, **more: Any) -> type:
    """A class that is honest but for one thing."""
    return type("Sinner", (base,), {"__module__": __name__, "name": "sinner", "spoil": sin, **more})


def test_honest_ones_pass() -> None:
    check_attack(Honest)
    check_attack(Honest, draws=True, how=2)
    check_attack(Honest(how=2), draws=True)
    check_attack(Painter, draws=True)
    with pytest.raises(ConformanceError, match="fields beside a class or a name; got a configured value"):
        check_attack(Honest(), how=2)


class Unfrozen(Honest):
    name: ClassVar[str] = "unfrozen"
    model_config = ConfigDict(frozen=False)


class Open(Honest):
    name: ClassVar[str] = "open"
    model_config = ConfigDict(extra="ignore")


class Bare(Honest):
    name: ClassVar[str] = "bare"
    field: int = 3


class Shouting(Honest):
    name: ClassVar[str] = "Shouting Name"


class Odd(Honest):
    name: ClassVar[str] = "odd"
    rate: float = Field(float("nan"), description="no number")


class Shy(Honest):
    name: ClassVar[str] = "shy"

    def __repr__(self) -> str:
        return "Shy(...)"


class Wordy(Honest):
    name: ClassVar[str] = "wordy"

    @property
    def variant(self) -> str:
        return "one\ntwo"


class Renamed(Honest):
    name: ClassVar[str] = "renamed"

    def entry(self) -> dict[str, Any]:
        return {**super().entry(), "name": "honest"}


class Rounded(Honest):
    name: ClassVar[str] = "rounded"

    def entry(self) -> dict[str, Any]:
        return {**super().entry(), "how": 7}


class Forgetful(Honest):
    name: ClassVar[str] = "forgetful"

    def entry(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (Unfrozen, "unfrozen: a frozen value; got how, which can be set; leave model_config"),
        (Open, "open: an unknown field is an error; got no_such_field=1 accepted"),
        (Bare, "bare: every field has its help text; got none for field; write Field"),
        (Shouting, "a class attribute `name` in small letters, digits and hyphens; got 'Shouting Name'"),
        (Odd, "odd: an entry of JSON types; got Out of range float values"),
        (Shy, r"shy: a repr that makes it again; got Shy\(\.\.\.\)"),
        (Forgetful, "forgetful: every field in its entry and nothing else; got how"),
        (Wordy, r"wordy: `variant` is a text on one line; got 'one\\ntwo'"),
        (Renamed, "renamed: its name in its entry; got another"),
        (Rounded, r"rounded: an entry that makes it again; got Rounded\(how=7\)"),
        (ft.Filter, "attack foretaste.defences.base:Filter: a class that extends LabelledAttack or"),
        ("nonsense", "attack: one of label-flip, .*; got 'nonsense'"),
    ],
)
def test_what_is_no_method_is_told_before_it_runs(attack: Any, message: str) -> None:
    with pytest.raises(ConformanceError, match=message) as caught:
        check_attack(attack)
    assert "\n" not in str(caught.value)


def with_ledger(**fields: Any) -> Any:
    def sin(self: Any, known: Any, made: Any, progress: Any) -> Any:
        return replace(made, ledger=made.ledger.model_copy(update=fields))

    return sin


def changed(**fields: Any) -> Any:
    """Fields of the result, each a function of what the attack knows and of the honest result."""

    def sin(self: Any, known: Any, made: Any, progress: Any) -> Any:
        return replace(made, **{name: make(known, made) for name, make in fields.items()})

    return sin


def doing(work: Any) -> Any:
    def sin(self: Any, known: Any, made: Any, progress: Any) -> Any:
        work(known, made, progress)
        return made

    return sin


CALLS: list[int] = []


def counted(self: Any, known: Any, made: Any, progress: Any) -> Any:
    CALLS.append(0)
    return replace(made, y=(made.y + len(CALLS)) % known.classes)


def at_the_bar(self: Any, known: Any, made: Any, progress: Any) -> Any:
    watched = type(progress).__name__ == "Steps"
    return replace(made, y=(made.y + 1) % known.classes) if watched else made


def mutable(self: Any, known: Any, made: Any, progress: Any) -> Any:
    vars(self)["how"] = self.how + 1
    return made


SINS = {
    "a list": (lambda self, known, made, progress: [made], "a Poisoning as its result; got list"),
    "raises": (doing(lambda k, m, p: 1 / 0), "works on features, 9 rows without an error; got ZeroDivisionError"),
    "float labels": (changed(y=lambda k, m: m.y.float()), r"y: int64 \[9\] on the CPU; got float32 \[9\]"),
    "double": (changed(z=lambda k, m: m.z.double()), r"z: float32 \[9, 6\] on the CPU; got float64"),
    "other width": (changed(z=lambda k, m: m.z[:, :2]), r"z: float32 \[9, 6\] on the CPU; got float32 \[9, 2\]"),
    "gradient": (changed(z=lambda k, m: m.z.requires_grad_()), "got float32 .* that requires a gradient"),
    "nan": (changed(z=lambda k, m: m.z * torch.nan), "sinner: z: finite; got NaN or infinity"),
    "no rows": (changed(z=lambda k, m: None), "sinner: either z or pixels; got neither; pass one of them"),
    "short base": (changed(base=lambda k, m: m.base[:3]), r"base: int64 \[9\] on the CPU; got int64 \[3\]"),
    "labels outside": (changed(y=lambda k, m: m.y + 3), "sinner: referee: labels as promised; got .* 3 classes"),
    "bases outside": (changed(base=lambda k, m: m.base + 500), "referee: ledger as promised"),
    "outside the box": (changed(z=lambda k, m: m.z + 100), "referee: constraint box as promised; got .* beyond"),
    "replaces": (changed(replaces=lambda k, m: True), "referee: ledger as promised"),
    "lying ledger": (with_ledger(added=3), "referee: ledger as promised; got 3 rows declared, 9 added"),
    "infinite ledger": (with_ledger(figures={"x": float("inf")}), "finite numbers in its ledger"),
    "infinite row": (with_ledger(per_row={"x": [float("nan")]}), "finite numbers in its ledger"),
    "nameless": (with_ledger(objective=[1.0]), "a name for the objective in its ledger; got ''"),
    "writes rows": (
        doing(lambda k, m, p: k.z.add_(1)),
        "referee: clean rows untouched as promised; got digest changed",
    ),
    "writes labels": (doing(lambda k, m, p: k.validation_y.fill_(0)), "referee: clean rows untouched as promised"),
    "torch random": (doing(lambda k, m, p: torch.rand(2)), "leaves torch's global random state alone; got another"),
    "numpy random": (doing(lambda k, m, p: np.random.rand(2)), "leaves numpy's global random state alone"),  # noqa: NPY002
    "python random": (doing(lambda k, m, p: random.randint(0, 3)), "leaves Python's global random state alone"),
    "dtype": (doing(lambda k, m, p: torch.set_default_dtype(torch.float64)), "leaves torch's default dtype alone"),
    "gradients": (doing(lambda k, m, p: torch.set_grad_enabled(False)), "leaves torch's gradient mode alone"),
    "backwards": (
        doing(lambda k, m, p: p and (p(3, 4), p(2, 4))),
        r"progress is called with \(steps done, steps in all",
    ),
    "beyond": (doing(lambda k, m, p: p and p(5, 4)), r"progress is called with .* upwards; got \(5, 4\)"),
    "counts": (counted, "sinner: the same arguments give the same bytes; got others; draw from the seed alone"),
    "watches": (at_the_bar, "sinner: the same bytes with or without a progress; got others; only call it"),
    "changes itself": (mutable, "sinner: a value that does not change as it works; got other fields"),
    "negative passes": (with_ledger(passes=-1), "no negative count or residual in its ledger; got passes -1"),
}


@pytest.mark.parametrize("sin", SINS)
def test_a_broken_promise_is_named(sin: str) -> None:
    spoil, message = SINS[sin]
    kept = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state()
    with pytest.raises(ConformanceError, match=message) as caught:
        check_attack(spoiled(spoil))
    assert str(caught.value).startswith("sinner: ") and "\n" not in str(caught.value)
    assert (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()) == kept[:3], "put back"
    assert torch.equal(torch.get_rng_state(), kept[3])


def test_seeds_that_do_nothing_or_something() -> None:
    def fixed(self: Any, known: Any, made: Any, progress: Any) -> Any:
        base = torch.arange(len(made.y)) % len(known.y)
        return ft.Poisoning(y=(known.y[base] + 1) % known.classes, base=base, z=known.z[base], constraint="box")

    check_attack(spoiled(fixed))
    check_attack(spoiled(fixed), draws=False)
    with pytest.raises(
        ConformanceError, match="sinner: another seed gives other bytes; got the same; draw from the seed"
    ):
        check_attack(spoiled(fixed), draws=True)
    with pytest.raises(ConformanceError, match="honest: the same bytes whatever the seed, as said; got others"):
        check_attack(Honest, draws=False)


def test_one_row_and_all_rows_have_to_work() -> None:
    def few(self: Any, known: Any, made: Any, progress: Any) -> Any:
        assert len(made.y) > 1, "too few"
        return made

    def many(self: Any, known: Any, made: Any, progress: Any) -> Any:
        return made if len(made.y) < 50 else replace(made, y=made.y[:0])

    with pytest.raises(
        ConformanceError, match="works on features, 1 rows without an error; got AssertionError: too few"
    ):
        check_attack(spoiled(few))
    with pytest.raises(ConformanceError, match=r"sinner: base: int64 \[0\] on the CPU; got int64 \[90\]"):
        check_attack(spoiled(many))


def test_an_attack_that_cannot_do_without_images_says_so() -> None:
    class Blind(ft.LabelledAttack):
        name: ClassVar[str] = "blind"

        def poison(self, known: Any, rows: int, seed: int, progress: Any = None) -> Any:
            base = torch.arange(rows) % len(known.y)
            return ft.Poisoning(y=known.y[base], base=base, pixels=known.images.pixels[base])

    class Seeing(Blind):
        name: ClassVar[str] = "seeing"
        carrier: ClassVar[str] = "pixels"

    with pytest.raises(
        ConformanceError, match=r"9 rows without an error; got AttributeError: .* say carrier: ClassVar"
    ):
        check_attack(Blind)
    check_attack(Seeing)


@pytest.mark.parametrize(
    ("limits", "field", "message"),
    [
        (None, None, None),
        ({"epsilon": 4.0}, None, None),
        ({"epsilon": 4.0}, 8, None),
        ({"epsilon": 3.0}, None, "range and L-inf ball as promised; got uint8, at most 4 grey levels .* 3 allowed"),
        ({"epsilon": 8.0}, 4, "promise as promised; got pixels: pixels, epsilon 8, where .* limits of at most 4"),
        (
            None,
            8,
            "promise as promised; got pixels: pixels, where the attack's field epsilon promises limits of at most 8",
        ),
        (None, "small", None),
    ],
)
def test_what_a_field_epsilon_promises(limits: Any, field: Any, message: str | None) -> None:
    def sin(self: Any, made: Any) -> Any:
        return replace(made, limits=limits)

    more: dict[str, Any] = {}
    if field is not None:
        more = {
            "__annotations__": {"epsilon": type(field)},
            "epsilon": Field(field, description="L-inf, in grey levels"),
        }
    attack = spoiled(sin, Painter, **more)
    if message is None:
        check_attack(attack)
    else:
        with pytest.raises(ConformanceError, match=f"sinner: referee: {message}"):
            check_attack(attack)


def test_pixels_without_a_word_about_the_constraint_are_pixels() -> None:
    y = base = np.zeros(2, np.int64)
    pixels, z = np.zeros((2, 3, 8, 8), np.uint8), np.zeros((2, 6), np.float32)
    assert ft.Poisoning(y=y, base=base, pixels=pixels).constraint == "pixels"
    assert ft.Poisoning(y=y, base=base, pixels=pixels, constraint="pixels").constraint == "pixels"
    assert ft.Poisoning(y=y, base=base, pixels=pixels, constraint="none").constraint == "none"
    assert ft.Poisoning(y=y, base=base, z=z).constraint == "none"
