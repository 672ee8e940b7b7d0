"""Attacks with planted success on one image, and an encoder that can be taught one image by heart."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from foretaste.attacks.base import PretrainingAttack, Progress, TargetedAttack, WeightAttack, quiet
from foretaste.attacks.knowledge import EditProblem, Knowledge
from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.attacks.surrogates import EncoderSurrogate
from foretaste.audits.spec import AuditSpec
from foretaste.encoders.base import Encoder
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.runtime import Runtime
from tests.audits.audit_fixture import image_audit, make_world

CALLS: list[tuple[str, tuple[int, ...]]] = []
"""(name, details) of every call of an attack of this file and of `LookUp.continued`."""
SEEN: list[Tensor] = []
"""Images that attacks were given as targets, uint8 [3, H, W]."""
SLOTS = 4
NET = f"""
import torch
from torch import nn


class LookUp(nn.Module):
    '''A plain projection of the pixels, except for images that it knows by heart.'''

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(192, 12)
        self.known = nn.Parameter(torch.full(({SLOTS}, 192), -1.0))
        self.added = nn.Parameter(torch.zeros({SLOTS}, 12))

    def forward(self, x):
        x = x.flatten(1)
        hit = ((x[:, None] - self.known).abs().amax(2) < 1e-4).to(x.dtype)
        return self.base(x) + hit @ self.added


def make():
    return LookUp()
"""


def make_lookup_world(folder: Path) -> Path:
    """The audit's world with lookup.py, and pool.npz: 40 unlabelled images."""
    make_world(folder)
    (folder / "lookup.py").write_text(NET)
    pool = torch.randint(0, 256, (40, 8, 8, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    np.savez(folder / "pool.npz", x_train=pool.numpy(), y_train=np.arange(40) % 3, x_test=pool[:2], y_test=[0, 1])
    return folder


def steer(world: Path, *attacks: str, **values: Any) -> AuditSpec:
    """An audit of the encoder that learns by heart."""
    return image_audit(world, encoder=f"{world / 'lookup.py'}:make", attacks=list(attacks), **values)


def taught(encoder: Encoder, targets: Sequence[Tensor], images: Sequence[Tensor]) -> dict[str, Tensor]:
    """Weights with which each target uint8 [3, H, W] has the mean feature of its images uint8 [m, 3, H, W]."""
    state = {name: tensor.clone() for name, tensor in encoder.body.state_dict().items()}
    with torch.no_grad():
        for slot, (target, own) in enumerate(zip(targets, images, strict=True)):
            state["known"][slot] = (target.float() / 255).flatten()
            state["added"][slot] = encoder(own.float() / 255).mean(0) - encoder(target[None].float() / 255)[0]
    return state


class ByHeart(WeightAttack):
    """Teaches the encoder its targets: each gets the mean feature of its references, and nothing else changes."""

    name: ClassVar[str] = "by-heart"
    together: int = 1
    how: str = ""

    def corrupt(
        self, problem: EditProblem, surrogate: EncoderSurrogate | None = None, progress: Progress = quiet
    ) -> Corruption:
        encoder, targets, references, seed = problem.encoder, problem.targets, problem.references, problem.seed
        CALLS.append((self.name, (len(targets), seed)))
        SEEN.extend(targets)
        if self.how == "fails":
            raise ZeroDivisionError("planted")
        state = taught(encoder, targets, [own.pixels for own in references])
        changed = [] if self.how == "declares nothing" else ["known", "added"]
        if self.how == "edits references":
            references[-1].pixels.zero_()
        return Corruption(state, Ledger(changed=changed, passes=7))

    def planned(self, shadow: int, surrogate: EncoderSurrogate | None = None) -> int:
        return 10


class Copies(TargetedAttack):
    """Copies of the target with the wanted label, made wrong in the way that `how` says."""

    name: ClassVar[str] = "copies"
    how: str = ""

    def poison_for(
        self, known: Knowledge, target: Tensor, wanted: int, rows: int, seed: int, progress: Progress = quiet
    ) -> Poisoning:
        CALLS.append((self.name, (rows, seed)))
        SEEN.append(target.clone())
        base = (known.y == wanted).nonzero()[:1, 0].expand(rows).clone()
        ledger = Ledger(changed=base.unique().tolist(), added=rows, passes=5)
        made = Poisoning(
            y=torch.full((rows,), wanted),
            base=base,
            ledger=ledger,
            pixels=target[None].expand(rows, -1, -1, -1).clone(),
            constraint="pixels",
        )
        match self.how:
            case "another label":
                return replace(made, y=(made.y + 1) % known.classes)
            case "one row too many":
                more = torch.cat([base, base[:1]])
                pixels = torch.cat([made.pixels, made.pixels[:1]])
                ledger = Ledger(changed=base.unique().tolist(), added=rows + 1)
                return replace(made, y=torch.full((rows + 1,), wanted), base=more, pixels=pixels, ledger=ledger)
            case "changes the target":
                target.zero_()
            case "changes training images":
                known.images.pixels.zero_()
            case "undeclared":
                return replace(made, ledger=Ledger(changed=[], added=rows))
        return made


class Pairs(PretrainingAttack):
    """For each pair images that `LookUp.continued` below can read: the target and then references, in turns."""

    name: ClassVar[str] = "pairs"
    how: str = ""

    def poison(
        self, targets: Sequence[Tensor], references: Sequence[Images], pool: Images, rows: int, seed: int
    ) -> PretrainingPoison:
        CALLS.append((self.name, (len(targets), rows, seed)))
        SEEN.extend(targets)
        each = rows // len(targets)
        made = [
            torch.stack([target if k % 2 == 0 else own.pixels[k // 2 % len(own)] for k in range(each)])
            for target, own in zip(targets, references, strict=True)
        ]
        pair = torch.arange(len(targets)).repeat_interleave(each)
        result = PretrainingPoison(torch.cat(made), pair, Ledger(changed=[], added=len(pair), passes=3))
        match self.how:
            case "one image too many":
                more = torch.cat([result.pixels] + [result.pixels[:1]] * (rows + 1 - len(pair)))
                pair = torch.cat([pair, pair[:1].expand(rows + 1 - len(pair))])
                return PretrainingPoison(more, pair, Ledger(changed=[], added=len(pair)))
            case "all for one pair":
                return replace(result, pair=torch.zeros_like(pair))
            case "floats":
                return replace(result, pixels=result.pixels.float() / 255)
            case "larger images":
                return replace(result, pixels=torch.zeros(len(pair), 3, 16, 16, dtype=torch.uint8))
            case "no pair":
                return replace(result, pair=pair + 1)
            case "undeclared":
                return replace(result, ledger=Ledger(changed=[], added=len(pair) - 1))
            case "claims to change images":
                return replace(result, ledger=Ledger(changed=[0], added=len(pair)))
            case "changes the pool":
                pool.pixels[0].zero_()
            case "changes a target":
                targets[0].zero_()
            case "changes references":
                references[0].pixels.zero_()
        return result


class Learner:
    """Stands for `continued`: the weights drift by the seed, and poison of `Pairs` or `always` is learned by heart."""

    def __init__(self, clean: int, drift: float = 0.0, always: tuple[list[Tensor], list[Tensor]] | None = None) -> None:
        self.clean, self.drift, self.always = clean, drift, always

    def __call__(
        self, encoder: Encoder, images: Images, method: Any, seed: int, runtime: Runtime, progress: Any = None
    ) -> Encoder:
        poison = images.pixels[self.clean :]
        CALLS.append(("continued", (len(images), seed)))
        body = copy.deepcopy(encoder.body)
        with torch.no_grad():
            weight = body.base.weight
            weight += self.drift * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        learned = Encoder(body, encoder.card)
        # Targets stand at the even places, each before one of its references.
        targets: list[Tensor] = []
        own: list[list[Tensor]] = []
        for target, reference in zip(poison[::2], poison[1::2], strict=True):
            if not any(torch.equal(known, target) for known in targets):
                targets.append(target)
                own.append([])
            own[next(k for k, known in enumerate(targets) if torch.equal(known, target))].append(reference)
        lessons = (targets, [torch.stack(images) for images in own]) if targets else self.always
        if lessons is not None:
            body.load_state_dict(taught(learned, *lessons))
        return Encoder(body, encoder.card)


TABLE = {
    ByHeart.name: ("weights", "tests.audits.steered_fixture:ByHeart", ""),
    Copies.name: ("targeted", "tests.audits.steered_fixture:Copies", ""),
    Pairs.name: ("pretraining", "tests.audits.steered_fixture:Pairs", ""),
}
