"""What the referee recomputes of labelled poison: budget, form, range, constraint and ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from foretaste.attacks.base import LabelledAttack, TargetedAttack
from foretaste.attacks.results import Poisoning
from foretaste.audits.crafted import Crafted
from foretaste.audits.knowledge import AttackerView
from foretaste.audits.setting import Setting
from foretaste.features.file import FeatureSet
from foretaste.record import Check

SLACK = 1e-5  # relative, for distances of float32 rows


def judge_poisoning(setting: Setting, crafted: Crafted, poisoning: Poisoning) -> list[Check]:
    """Budget, form, range, constraint and ledger of poison.

    The attack is asked to keep what its own entry in the record says, whatever its result claims, and to replace rows
    only if it is one that does.

    Args:
        setting: the victim's own rows.
        crafted: the attack with its budget and what the attacker was to know.
        poisoning: its result.
    """
    attack, view, budget = crafted.attack, crafted.view, crafted.order.budget
    assert isinstance(attack, LabelledAttack | TargetedAttack)
    assert budget is not None
    n, m = len(setting.train), len(poisoning.y)
    allowed = Check(name="budget", ok=0 < m <= budget * n * (1 + 1e-9), found=f"{m} rows of at most {budget:g} x {n}")
    # The budget is the victim's; bases, ranges and balls are those of the rows that the attacker knows.
    form = [
        _labels(poisoning.y, setting.classes),
        _rows(setting, view, poisoning, m),
        _ledger(poisoning, len(view.rows), m),
    ]
    checks = [allowed, *form]
    if m and all(check.ok for check in form):  # what follows looks rows up by base and label
        checks += [_promise(attack.entry(), poisoning, attack.replaces), _constraint(view, poisoning)]
        checks += [_replacement(view.rows, poisoning)] if poisoning.replaces else []
    return checks


def _labels(y: Tensor, classes: int) -> Check:
    inside = y.dtype == torch.int64 and y.ndim == 1 and bool(((y >= 0) & (y < classes)).all())
    ends = f"{int(y.min())} to {int(y.max())}" if y.numel() else "none"
    return Check(name="labels", ok=inside, found=f"{y.dtype} {list(y.shape)}, {ends}; {classes} classes")


def _rows(setting: Setting, view: AttackerView, poisoning: Poisoning, m: int) -> Check:
    """One carrier only, of the victim's dtype and shape, finite."""
    # Features of another encoder than the victim's mean nothing to its head.
    clean = {} if view.surrogate else {"features": setting.train.z}
    if setting.images is not None:
        clean["pixels"] = setting.images.train.pixels
    given = {"features": poisoning.z, "pixels": poisoning.pixels}
    there = {name: rows for name, rows in given.items() if rows is not None}
    bad = [name for name, rows in there.items() if not bool(torch.isfinite(rows).all())]
    ok = (
        len(there) == 1
        and not bad
        and all(
            name in clean and rows.dtype == clean[name].dtype and rows.shape == (m, *clean[name].shape[1:])
            for name, rows in there.items()
        )
    )
    found = ", ".join(f"{name} {rows.dtype} {list(rows.shape)}" for name, rows in there.items()) or "nothing"
    return Check(name="rows", ok=ok, found=found + (", NaN or infinity" if bad else ""))


def _ledger(poisoning: Poisoning, n: int, m: int) -> Check:
    base, ledger = poisoning.base, poisoning.ledger
    inside = base.dtype == torch.int64 and base.shape == (m,) and bool(((base >= 0) & (base < n)).all())
    told, verb = (ledger.replaced, "replaced") if poisoning.replaces else (ledger.added, "added")
    return Check(
        name="ledger",
        ok=inside and told == ledger.added + ledger.replaced == m and set(ledger.changed) == set(base.tolist()),
        found=f"{told} rows declared, {m} {verb}, on {len(ledger.changed)} training rows"
        + ("" if inside else f"; base {base.dtype} {list(base.shape)} is not {m} of {n} rows"),
    )


def _replacement(train: FeatureSet, poisoning: Poisoning) -> Check:
    """Each row once, or the victim would train on fewer rows than the budget counts; and with the label it had."""
    distinct, relabelled = len(poisoning.base.unique()), int((train.y[poisoning.base] != poisoning.y).sum())
    return Check(
        name="replacement",
        ok=distinct == len(poisoning.y) and relabelled == 0,
        found=f"{len(poisoning.y)} rows in the place of {distinct}, {relabelled} under another label",
    )


def _promise(attack: Mapping[str, Any], poisoning: Poisoning, replaces: bool) -> Check:
    """The result names the constraint that the attack was configured with: a wider one would be easy to keep.

    An attack without such a field promised nothing but what its result claims, nor did one whose `epsilon` is no
    number.
    """
    limits = poisoning.limits or {}
    carrier = "features" if poisoning.pixels is None else "pixels"
    asked_for = attack.get("carrier", carrier)
    ok = ("pixels" if asked_for == "generator" else asked_for) == carrier and poisoning.replaces == replaces
    unnamed = ""
    if carrier == "pixels":
        asked = attack.get("epsilon")
        kept = not isinstance(asked, int | float) or limits.get("epsilon", 256) <= asked
        ok = ok and poisoning.constraint == "pixels" and kept
        unnamed = "" if kept else f", where the attack's field epsilon promises limits of at most {asked:g}"
    else:
        ok = ok and attack.get("constraint", poisoning.constraint) == poisoning.constraint
        if poisoning.constraint == "ball":
            ok = ok and 0 <= limits.get("quantile", 2) <= attack.get("quantile", 1)
        if attack.get("reach") is not None:
            ok = ok and poisoning.constraint == "box" and 0 <= limits.get("reach", torch.inf) <= attack["reach"]
    shown = ", ".join([poisoning.constraint, *(f"{key} {value:g}" for key, value in limits.items())])
    shown += (", replaces rows" if poisoning.replaces else "") + unnamed
    return Check(name="promise", ok=ok, found=f"{carrier}: {shown}")


def _constraint(shown: AttackerView, poisoning: Poisoning) -> Check:
    if poisoning.pixels is not None:
        assert shown.images is not None
        return _pixels(shown.images.pixels, poisoning.pixels, poisoning)
    assert poisoning.z is not None
    if poisoning.constraint == "box":
        low, high = shown.rows.z.aminmax(dim=0)
        beyond = float(torch.maximum(low - poisoning.z, poisoning.z - high).max())
        box = Check(name="constraint box", ok=beyond <= 0, found=f"{beyond:.3g} beyond the clean range")
        return _near(shown.rows, poisoning.z, poisoning, box) if "reach" in (poisoning.limits or {}) else box
    if poisoning.constraint == "ball":
        return _ball(shown.rows, poisoning.z, poisoning)
    return Check(name="constraint none", ok=poisoning.constraint == "none", found="features anywhere")


def _pixels(clean: Tensor, poison: Tensor, poisoning: Poisoning) -> Check:
    """uint8 is inside [0, 1] by its type; what remains is the ball round the base image, in grey levels."""
    furthest = int((poison.to(torch.int16) - clean[poisoning.base].to(torch.int16)).abs().max())
    limit = (poisoning.limits or {}).get("epsilon")
    return Check(
        name="range" if limit is None else "range and L-inf ball",
        ok=limit is None or furthest <= limit,
        found=f"uint8, at most {furthest} grey levels from the base image"
        + ("" if limit is None else f", {limit:g} allowed"),
    )


def _near(train: FeatureSet, poison: Tensor, poisoning: Poisoning, box: Check) -> Check:
    """The box, and each feature within `reach` standard deviations of its base's (L-inf)."""
    reach = (poisoning.limits or {})["reach"]
    scale, base = train.z.double().std(dim=0, unbiased=False), train.z[poisoning.base].double()
    away = (poison.double() - base).abs()
    inside = bool((away <= reach * scale * (1 + SLACK) + 1e-6 * base.abs()).all())  # float32 of a far mean is coarse
    furthest = float(torch.where(scale > 0, away / scale, 0.0).max())
    found = f"{box.found}; at most {furthest:.6f} standard deviations from the base, {reach:g} allowed"
    return Check(name="constraint box and L-inf ball", ok=box.ok and inside, found=found)


def _ball(train: FeatureSet, poison: Tensor, poisoning: Poisoning) -> Check:
    """Distance to the clean centroid of the label that a row carries, against the quantile of its clean rows."""
    quantile = (poisoning.limits or {})["quantile"]
    worst, inside = 0.0, True
    for label in poisoning.y.unique().tolist():
        own = train.z[train.y == label].double()
        if not len(own):
            return Check(name="constraint ball", ok=False, found=f"no clean row of class {label}")
        centre = own.mean(0)
        radius = float(torch.quantile((own - centre).norm(dim=1), quantile))
        reach = float((poison[poisoning.y == label].double() - centre).norm(dim=1).max())
        worst = max(worst, reach / max(radius, 1e-12))
        inside = inside and reach <= radius * (1 + SLACK) + 1e-6 * float(centre.norm())
    return Check(name="constraint ball", ok=inside, found=f"{worst:.6f} radii from the centroid")
