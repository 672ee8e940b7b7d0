"""Certified heads as an adaptive attack knows them: a vote whose margins are a differentiable function of the poison.

Base learners without poison among their rows vote as they do; the others are fitted anew, and their votes are softened
to a softmax. With n_c(x) the votes for class c, the damage on the attacker's own rows (x, y) is

    mean of sigmoid(max over c != y of n_c(x) - n_y(x), in units of `width`),

a smooth count of errors: rows that are lost, and rows out of reach, do not attract (as in `stackelberg.leader_loss`,
for one head). Carlini et al., "On Evaluating Adversarial Robustness" (2019), ask for an attack made against each
defence; what can be lost at most is for the certificate to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.base import CertifiedHead, count_votes, score_blocks
from foretaste.defences.certified.subsample_heads import Groups
from foretaste.defences.surrogates.learners import differentiable_heads
from foretaste.runtime import stream

Kind = TypeVar("Kind", bound=CertifiedHead)
SCORES = 2**22
"""Scores (rows x heads x classes) whose graph is held at once: some 100 MiB."""
SHARP = 2.0
"""Softened votes: the median base learner's lead of its first class over its second, in nats."""
WIDTH = 1 / 3
"""Votes between half lost and lost, as a share of those that the poison can move."""


@dataclass(frozen=True, eq=False)
class AttackerRows:
    """What the attacker of a vote holds.

    Attributes:
        rows: they stand for the victim's clean training rows; their `clean_z` for the defender's.
        z, y: rows to do damage on, float [k, d] and int64 [k].
        poisons: how many rows will be added.
        seed: of the named stream `against`, for bags and stand-ins of partitions.
        victim_rows: how many rows the victim trains on, where `rows` are others or fewer; else None.
    """

    rows: TrainingRows
    z: Tensor
    y: Tensor
    poisons: int
    seed: int = 0
    victim_rows: int | None = None


class VoteSurrogate(ABC, Generic[Kind]):
    """The damage that added rows do to a vote. Rows are in the encoder's units; poison j is row n + j of the groups.

    Attributes:
        width: of the smooth count of errors, in votes.
    """

    def __init__(self, head: Kind, own: AttackerRows) -> None:
        self.head, self.own, self.classes = head, own, own.rows.classes
        self.n, self.d = own.rows.z.shape
        self._view = head.view(own.rows)
        self._x, self._judged = self._view(own.rows.z), self._view(own.z)
        groups = self.groups(stream(own.seed, "against"))
        touched = without(groups, self.n).sizes < groups.sizes
        self.width = max(1.0, WIDTH * int(touched.sum()))
        self._groups = only(groups, touched)
        self._still = self._count(only(groups, ~touched))
        self._sharpness = SHARP / max(self._lead(groups), 1e-12)

    @abstractmethod
    def groups(self, random: torch.Generator) -> Groups:
        """Which of the attacker's rows and poisons each base learner would be fitted on."""

    def settled(self, z: Tensor, y: Tensor) -> Tensor:
        """Rows float32 [m, d] with labels y as they are to be handed over: as they are."""
        return z

    def damage(self, z: Tensor, y: Tensor, *, gradient: bool = True) -> tuple[float, Tensor | None]:
        """Smooth share of the attacker's own rows that the vote gets wrong, in [0, 1], and its gradient in z, [m, d].

        Args:
            z: float [m, d], the poison.
            y: int64 [m], its labels.
            gradient: None is returned in its place otherwise.
        """
        leaf = z.detach().double().requires_grad_(gradient)
        with torch.no_grad():
            soft = self._still + sum(votes.sum(1) for votes in self._soft(leaf.detach(), y))
        soft.requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            value = smooth_errors(soft, self.own.y, self.width)
            if not gradient:
                return float(value), None
            (slope,) = torch.autograd.grad(value, soft)
            pull = torch.zeros_like(leaf)
            for votes in self._soft(leaf, y):
                pull += torch.autograd.grad((slope[:, None] * votes).sum(), leaf)[0]
        return float(value.detach()), pull

    def _soft(self, z: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Softened votes [k, b, C] of the base learners that poison reaches, in blocks, with a graph if z has one."""
        labels = torch.cat([self.own.rows.y, y])
        most = max(1, SCORES // (len(self._judged) * self.classes))
        for _, places, there in self._groups.batches(self.d):
            for rows, real in zip(places.split(most), there.split(most), strict=True):
                x = torch.cat([self._x, self._view(z)])[rows]  # [b, m, d]
                targets = torch.nn.functional.one_hot(labels[rows], self.classes).double() * real[:, :, None]
                weight = differentiable_heads(self.head, x, targets, real)
                yield torch.softmax(self._sharpness * torch.cat(list(score_blocks(weight, self._judged))), 2)

    def _count(self, groups: Groups) -> Tensor:
        """Votes float64 [k, C] on the attacker's own rows of base learners without poison; an empty one has none."""
        weight = self.fitted(only(groups, groups.sizes > 0))
        if not len(weight):
            return torch.zeros(len(self._judged), self.classes, dtype=torch.float64)
        return torch.cat([count_votes(scores) for scores in score_blocks(weight, self._judged)]).double()

    def _lead(self, groups: Groups) -> float:
        """Median lead of the first class over the second, over rows and base learners on clean rows alone."""
        clean = without(groups, self.n)
        some = torch.arange(len(clean.sizes)) < 50
        found = [
            torch.diff(-scores.topk(2, 2).values, dim=2).flatten()
            for scores in score_blocks(self.fitted(only(clean, some & (clean.sizes > 0))), self._judged[:500])
        ]
        leads = torch.cat(found)
        return float(leads[leads.isfinite()].median())

    def fitted(self, groups: Groups) -> Tensor:
        """Base learners on clean rows alone, float64 [P, C, d + 1]."""
        return self.head.heads(self._x, self.own.rows.y, self.classes, groups)


def smooth_errors(votes: Tensor, y: Tensor, width: float) -> Tensor:
    """Mean of sigmoid((most votes for a wrong class - votes for the right one) / width) of votes float [k, C]."""
    right = votes.gather(1, y[:, None])[:, 0]
    wrong = votes.scatter(1, y[:, None], -torch.inf).amax(1)
    return torch.sigmoid((wrong - right) / width).mean()


def only(groups: Groups, which: Tensor) -> Groups:
    """The groups of a bool mask [P]."""
    return Groups(groups.rows[which.repeat_interleave(groups.sizes)], groups.sizes[which])


def without(groups: Groups, n: int) -> Groups:
    """The groups less all rows from n on."""
    of = torch.arange(len(groups.sizes)).repeat_interleave(groups.sizes)
    clean = groups.rows < n
    return Groups(groups.rows[clean], torch.bincount(of[clean], minlength=len(groups.sizes)))
