"""One edit of an encoder from its check to its ledger: what PA-CL and BadEncoder share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from foretaste.attacks.editing.editable_encoder import EditableEncoder, difference
from foretaste.attacks.editing.shadow_cache import ShadowCache, held_in
from foretaste.attacks.editing.terms import Cloud
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.encoders.base import Encoder
from foretaste.errors import AttackError, SpecError
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.runtime import Runtime

Figures = dict[str, float]


@dataclass(frozen=True, eq=False)
class Pair:
    """A target, uint8 [3, H, W], and references of its desired class, uint8 [m, 3, H, W]; z [m, d] is clean."""

    target: Tensor
    references: Tensor
    z: Tensor

    @cached_property
    def cloud(self) -> Cloud:
        """Where the class's features lie; of at least two references."""
        return Cloud.of(self.z)


@dataclass(frozen=True, eq=False)
class PreparedProblem:
    """Pairs before their attack, and what they share."""

    pairs: tuple[Pair, ...]
    cache: ShadowCache
    runtime: Runtime

    @property
    def targets(self) -> Tensor:
        """Uint8 [k, 3, H, W]."""
        return torch.stack([pair.target for pair in self.pairs])

    @property
    def references(self) -> Tensor:
        """Uint8 [m_1 + ... + m_k, 3, H, W]."""
        return torch.cat([pair.references for pair in self.pairs])

    @property
    def counts(self) -> list[int]:
        """References of each pair."""
        return [len(pair.references) for pair in self.pairs]

    def similarity(self, z: Tensor, pair: Pair) -> float:
        """Cosine of a target's mean feature, z [v, d], and the class mean of the clean references in standard units."""
        apply = self.cache.scaler.apply
        return float(cosine_similarity(apply(z).mean(0), apply(pair.z.to(z)).mean(0), dim=0))


def check_pairs(problem: EditProblem, batch: int, share: float = 1.0) -> None:
    """What every attack on the weights needs before it begins.

    Raises:
        SpecError: no references or of several classes, another shape or type, a target among its references or twice,
            or fewer shadow images than a batch and the held-out tenth.
    """
    targets, references, shadow = problem.targets, problem.references, problem.shadow
    size = list(shadow.pixels.shape[1:])
    for target, own in zip(targets, references, strict=True):
        _check_pair(target, own, size)
    if any(torch.equal(a, b) for a, b in combinations(targets, 2)):
        raise SpecError("targets: different images", got="the same image twice", do="give it to one class only")
    if held_in(len(shadow), share) < batch:
        used = f" of which a share of {share:g} is used" if share < 1 else ""
        raise SpecError(
            f"shadow: a batch of {batch} images besides the tenth that is held out",
            got=f"{len(shadow)} images{used}",
            do="pass more images or a smaller batch",
        )


def _check_pair(target: Tensor, references: Images, size: list[int]) -> None:
    labels = references.labels.unique().tolist()
    if len(labels) != 1:
        raise SpecError(
            "references: images of the one class that the target shall get",
            got=f"labels {labels}" if labels else "no image",
            do="give the attacker's own split at least one image of the class",
        )
    if list(target.shape) != size or target.dtype != torch.uint8 or list(references.pixels.shape[1:]) != size:
        found = f"target {target.dtype} {list(target.shape)}, references {list(references.pixels.shape[1:])}"
        raise SpecError(f"target and references: uint8 {size} as the shadow images", got=found)
    if bool((references.pixels == target).flatten(1).all(1).any()):
        raise SpecError(
            "target: an image that is not of the desired class",
            got="an image that is among the references of that class",
            do="choose another target or another class",
        )


def prepare_problem(problem: EditProblem, most: int, cache: ShadowCache, random: torch.Generator) -> PreparedProblem:
    """Draw at most `most` references for each target, and embed them with the clean encoder."""
    chosen = [own.pixels[torch.randperm(len(own), generator=random)[:most]] for own in problem.references]
    z = embed(problem.encoder, torch.cat(chosen), problem.runtime).split([len(own) for own in chosen])
    return PreparedProblem(tuple(map(Pair, problem.targets, chosen, z)), cache, problem.runtime)


def edit(
    encoder: Encoder,
    prepared: PreparedProblem,
    descend: Callable[[EditableEncoder], tuple[list[float], Figures]],
    look: Callable[[Encoder], Figures],
    *,
    name: str,
    judged: tuple[str, str],
    objective: str,
    per_step: int,
    do: str,
    must_fall: bool = True,
) -> Corruption:
    """Edit a copy of the encoder and write the ledger.

    Args:
        encoder: clean; stays.
        prepared: the pairs.
        descend: trains the copy in place; gives the loss at each step, and figures of its own.
        look: figures of a network, on the targets, the references and the held-out shadow rows.
        name: the attack's.
        judged: the figure that must fall, and its symbol; what the ledger keeps from before is this and `similarity`.
        objective: what `descend` minimises.
        per_step: images per step.
        do: what to do if the figure does not fall.
        must_fall: an edit after which it has not fallen is an error.

    Raises:
        AttackError: the targets came no closer to their references.
    """
    edited = prepared.cache.copy_of(encoder, prepared.runtime)
    before = look(edited.encoder)
    curve, own = descend(edited)
    after = look(edited.encoder)
    key, symbol = judged
    if must_fall and not after[key] < before[key]:
        raise AttackError(
            f"{name}: a target closer to the references than before",
            got=f"{symbol} {before[key]:.4g} before, {after[key]:.4g} after {len(curve)} steps",
            do=do,
            curve=curve,
        )
    state = edited.state()
    changed, figures = difference(encoder.body.state_dict(), state)
    figures |= {f"{one}_before": before[one] for one in (key, "similarity") if one in before} | after | own
    figures["frozen_prefix"] = float(prepared.cache.split is not None)
    m, looks = sum(prepared.counts), 2 * (len(prepared.pairs) + sum(prepared.counts) + len(prepared.cache.held_out))
    ledger = Ledger(
        changed=changed,
        objective=curve,
        objective_name=objective,
        better="lower",
        figures=figures,
        passes=prepared.cache.passes + m + len(curve) * per_step + looks,
    )
    return Corruption(state, ledger)
