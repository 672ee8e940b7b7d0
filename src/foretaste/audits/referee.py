"""The referee recomputes what an attack promised. It shares no code with the attacks, on purpose.

An attack works on copies; the victim's own rows and encoder cannot be reached through them. Copies that come back
changed are refused all the same: an attack that writes where it should read has not done what its ledger says.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.audits.crafted import Crafted
from foretaste.audits.referee_rows import judge_poisoning
from foretaste.audits.setting import Setting
from foretaste.encoders.base import Encoder
from foretaste.errors import RefereeError
from foretaste.images import Images, digest_rows
from foretaste.record import Check


def require(checks: list[Check]) -> None:
    """Raise RefereeError if any check failed."""
    broken = [check for check in checks if not check.ok]
    if broken:
        raise RefereeError(
            f"referee: {', '.join(check.name for check in broken)} as promised",
            got="; ".join(check.found for check in broken),
            do="mend the attack: its result was not scored",
        )


def judge(setting: Setting, crafted: Crafted) -> list[Check]:
    """Everything that can be recomputed of an attack's result, and that what the attack was given is as it was."""
    match crafted.result:
        case Poisoning() as poisoning:
            checks = judge_poisoning(setting, crafted, poisoning)
            checks += [_untouched("clean rows untouched", _same_knowledge(crafted)), *_same_encoder(setting, crafted)]
            return [*checks, *_wanted(setting, crafted, poisoning)] if crafted.targets else checks
        case Corruption() as corruption:
            return [
                *_edit(setting, corruption),
                _untouched("clean rows untouched", _same_knowledge(crafted)),
                *_same_encoder(setting, crafted),
            ]
        case PretrainingPoison() as poison:
            same = _same_knowledge(crafted) and _same_targets(setting, crafted)
            return [*_images(crafted, poison), _untouched("clean images untouched", same)]


def _wanted(setting: Setting, crafted: Crafted, poisoning: Poisoning) -> list[Check]:
    """Every row carries the wanted label, and the target that the attack was given is as it was."""
    ((_, wanted),) = crafted.order.pairs
    labels = sorted(set(poisoning.y.tolist()))
    return [
        Check(name="wanted label", ok=labels == [wanted], found=f"labels {labels[:5]}, {wanted} wanted"),
        _untouched("target untouched", _same_targets(setting, crafted)),
    ]


def _edit(setting: Setting, corruption: Corruption) -> list[Check]:
    """Keys, shapes, finiteness and ledger of a poisoned encoder."""
    clean, state = setting.original.body.state_dict(), corruption.state
    fits = state.keys() == clean.keys() and all(
        isinstance(state[name], Tensor)
        and state[name].shape == tensor.shape
        and state[name].dtype == tensor.dtype
        and state[name].layout == tensor.layout
        for name, tensor in clean.items()
    )
    finite = fits and all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    moved = [name for name, tensor in clean.items() if fits and not torch.equal(tensor.cpu(), state[name].cpu())]
    declared = corruption.ledger.changed
    return [
        Check(name="keys and shapes", ok=fits, found=f"{len(state)} tensors, {len(clean)} in the clean encoder"),
        Check(name="finite", ok=finite, found="all finite" if finite else "NaN, infinity or no such tensors"),
        Check(
            name="ledger",
            ok=sorted(moved) == sorted(map(str, declared)),
            found=f"{len(moved)} tensors changed, {len(declared)} declared",
        ),
    ]


def _images(crafted: Crafted, poison: PretrainingPoison) -> list[Check]:
    """Budget, form, shares and ledger of pre-training poison."""
    pool, rows, targets = crafted.view.pool, crafted.rows, crafted.targets
    assert pool is not None
    pixels, pair, ledger = poison.pixels, poison.pair, poison.ledger
    size, m = list(pool.pixels.shape[1:]), len(pixels)
    form = pixels.dtype == torch.uint8 and list(pixels.shape) == [m, *size]
    told = pair.dtype == torch.int64 and pair.shape == (m,)
    told = told and bool(((pair >= 0) & (pair < len(targets))).all())
    most = int(torch.bincount(pair).max()) if told and m else 0
    fair = math.ceil(rows / len(targets))
    return [
        Check(name="budget", ok=0 < m <= rows, found=f"{m} images of at most {rows}"),
        Check(name="images", ok=form, found=f"{pixels.dtype} {list(pixels.shape)}, pre-training images {size}"),
        Check(
            name="shares",
            ok=told and most <= fair,
            found=f"at most {most} images for one pair of {len(targets)}, {fair} allowed"
            if told
            else f"pair {pair.dtype} {list(pair.shape)} is not {m} of {len(targets)} pairs",
        ),
        Check(
            name="ledger",
            ok=ledger.added == m and not ledger.changed and not ledger.replaced,
            found=f"{ledger.added} images declared, {m} added, {len(ledger.changed)} changed",
        ),
    ]


def _same_knowledge(crafted: Crafted) -> bool:
    """Whether every row and image that the attack was given is as it was."""
    view, given = crafted.view, crafted.given
    kept = digest_rows(given.z, given.y, view.rows.classes) == view.rows.digest
    kept = kept and digest_rows(given.validation_z, given.validation_y, view.rows.classes) == view.validation.digest
    images = [
        (view.images, given.images),
        (view.validation_images, given.validation_images),
        (view.pool, given.pool),
        (view.shadow, given.shadow),
    ]
    kept = kept and all(own is None or (lent is not None and _digest(lent) == own.digest) for own, lent in images)
    return kept and all(_digest(one) == one.digest for one in crafted.references)


def _same_targets(setting: Setting, crafted: Crafted) -> bool:
    own = [setting.split.test.pixels[row] for row, _ in crafted.order.pairs]
    return all(torch.equal(one, mine) for one, mine in zip(crafted.targets, own, strict=True))


def _same_encoder(setting: Setting, crafted: Crafted) -> list[Check]:
    """The copy that the attack had, with its modes, and the victim's own."""
    given: Encoder | None = crafted.given.encoder
    if given is None or crafted.view.encoder is None:
        return []
    lent = crafted.view.encoder.card.sha256
    frozen = not any(module.training for module in given.modules())
    frozen = frozen and not any(weight.requires_grad for weight in given.parameters())
    same = given.sha256() == lent and setting.original.sha256() == setting.original.card.sha256
    found = "same digest" if same else "digest changed"
    found += ", in eval mode" if frozen else ", in training mode or with weights that require gradients"
    return [Check(name="clean encoder untouched", ok=same and frozen, found=found)]


def _untouched(name: str, same: bool) -> Check:
    return Check(name=name, ok=same, found="same digest" if same else "digest changed")


def _digest(images: Images) -> str:
    return digest_rows(images.pixels, images.labels, images.classes)
