"""Can this audit mean anything? Warnings that go into the record."""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.audits.metrics import accuracy
from foretaste.audits.prepare import PreparedAudit
from foretaste.audits.victim import Victim
from foretaste.heads.fit import fit_head
from foretaste.record import Estimate, Ledger
from foretaste.runtime import stream
from foretaste.statistics import smallest_visible_change

SMALLEST_CLAIM = 0.02  # a change of accuracy that audits are read for
LARGEST_RESIDUAL = {"fit": 1e-3, "solve": 1e-1}


def controls(victim: Victim) -> dict[str, Estimate]:
    """Yardsticks for the clean head: a head on random features of the same number."""
    setting = victim.setting
    if setting.images is None:
        return {}
    d = setting.train.z.shape[1]
    train, test = (_random_features(part.pixels, d) for part in (setting.images.train, setting.images.test))
    head = fit_head(train, setting.train.y, setting.classes, setting.ridge)
    return {"random features": accuracy(head.predict(test), victim.truth)}


def _random_features(pixels: Tensor, d: int) -> Tensor:
    """ReLU of a random projection of the pixels (Rahimi and Recht 2008), float32 [n, d]."""
    flat = pixels.flatten(1).float() / 255 - 0.5
    projection = torch.randn(flat.shape[1], d, generator=stream(0, "random features")) / flat.shape[1] ** 0.5
    return torch.relu(flat @ projection)


def preflight(prepared: PreparedAudit, yardsticks: dict[str, Estimate]) -> list[str]:
    """Warnings about the clean victim."""
    found, victim, setting = list(prepared.notes), prepared.victim, prepared.setting
    truth = victim.truth
    chance = setting.data_entry().chance
    for key, predictions in victim.predictions.items():
        clean = accuracy(predictions, truth)
        if clean.low <= chance:
            found.append(
                f"the clean {key} head ({clean.value:.1%}) is no better than the most frequent class ({chance:.1%}): "
                "there is no accuracy that poison could cost"
            )
        random = yardsticks.get("random features")
        if random is not None and clean.low <= random.value:
            found.append(
                f"the clean {key} head ({clean.value:.1%}) is no better than a head on random features "
                f"({random.value:.1%}): this audit says little about the encoder"
            )
    visible = smallest_visible_change(len(truth))
    if visible > SMALLEST_CLAIM:
        found.append(
            f"{len(truth)} test rows cannot tell an accuracy change of less than about {visible:.1%} from none; "
            f"a change of {SMALLEST_CLAIM:.0%} needs about {round(len(truth) * (visible / SMALLEST_CLAIM) ** 2)}"
        )
    missing = sorted(set(range(setting.classes)) - set(prepared.view.validation.y.tolist()))
    if missing:
        found.append(
            f"the attacker's validation rows lack the classes {missing}: attacks are weaker than they could be"
        )
    residual = victim.fitted[setting.headline].figures.get("residual", 0.0)
    if residual > 1e-5:
        found.append(f"the clean head stopped at a relative gradient of {residual:.1e}")
    return found


def attack_warnings(ledger: Ledger) -> list[str]:
    """Warnings about one attack: it did not move, or its inner solves are too rough to trust."""
    found = []
    if len(ledger.objective) > 1:
        first, ordered = ledger.objective[0], sorted(ledger.objective, reverse=ledger.better == "higher")
        moved = (ordered[0] - first) if ledger.better == "higher" else (first - ordered[0])
        if moved <= 1e-3 * max(abs(first), 1e-12):
            found.append(f"the attack's objective did not move ({first:.4g} at the start, {ordered[0]:.4g} at best)")
    for name, value in ledger.residuals.items():
        if value > LARGEST_RESIDUAL.get(name, float("inf")):
            found.append(f"the inner residual `{name}` reached {value:.1e}: the gradient was rough")
    return found
