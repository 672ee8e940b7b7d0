"""`dpa` as an adaptive attack knows it: which partitions to hit, and how a row gets into one.

A row falls where the hash of its features says, and a change of a hair makes that any partition. So each poison moves a
vote of its own, as the certificate grants it; the partitions are those whose votes are worth most to the defender.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foretaste.defences.certified.base import score_blocks
from foretaste.defences.certified.dpa import DPA, hash_rows, partition
from foretaste.defences.certified.subsample_heads import Groups
from foretaste.defences.surrogates.votes import WIDTH, VoteSurrogate, only, smooth_errors
from foretaste.runtime import stream

FRACTION, STEPS, ROUNDS = 1e-6, 1000, 64
"""A feature moves by so much of its way to the mean of its class, times 1 to `STEPS`; so many rounds of tries."""
WORDS = 2**22
"""Features that are hashed at once: 32 MiB of words."""


class PartitionsSurrogate(VoteSurrogate[DPA]):
    """`dpa`: each poison goes into a partition of its own, where the clean votes are worth most to the defender.

    With more poisons than partitions they go round. The second round of a run-off is not followed.
    """

    def groups(self, random: torch.Generator) -> Groups:
        """The partitions of the attacker's rows, and `places`, int64 [m], the partition of each poison.

        Fewer or other rows than the victim's are dealt at random to partitions of the size that the victim's have.
        """
        count, own = self.head.partitions, self.own
        assert count is not None
        if own.victim_rows in (None, self.n):
            groups = partition(own.rows.z, own.rows.y, count)
        else:
            total = own.victim_rows or 0
            dealt = torch.cat([torch.randperm(self.n, generator=random) for _ in range(-(-total // self.n))])[:total]
            sizes = torch.full((count,), total // count) + (torch.arange(count) < total % count)
            groups = Groups(dealt, sizes)
        order = self._worth(groups).argsort(descending=True, stable=True)
        self.places = order[torch.arange(own.poisons) % count]
        return joined(groups, self.places, self.n)

    def _worth(self, groups: Groups) -> Tensor:
        """What the defender would lose with each partition's vote, float64 [P], to first order."""
        there = groups.sizes > 0
        guesses = torch.cat(
            [s.argmax(2) for s in score_blocks(self.fitted(only(groups, there)), self._judged)]
        )  # [k, P]
        votes = torch.nn.functional.one_hot(guesses, self.classes).sum(1).double().requires_grad_()
        with torch.enable_grad():
            value = smooth_errors(votes, self.own.y, max(1.0, WIDTH * min(self.own.poisons, len(groups.sizes))))
            (slope,) = torch.autograd.grad(value, votes)
        worth = torch.zeros(len(there), dtype=torch.float64)
        worth[there] = -slope.gather(1, guesses).sum(0)
        return worth

    def settled(self, z: Tensor, y: Tensor) -> Tensor:
        """Each row moved into its partition: a feature goes a hair towards the mean of the label's clean rows.

        That stays in every convex set that holds the row and the mean. A row that is there is left as it is; so is one
        that no try moves there, as one that is that mean.
        """
        assert self.head.partitions is not None
        random, z = stream(self.own.seed, "against/places"), z.clone()
        own = self.own.rows
        mean = torch.zeros(self.classes, self.d, dtype=torch.float64).index_add_(0, own.y, own.z.double())
        mean /= torch.bincount(own.y, minlength=self.classes).clamp(min=1)[:, None]
        tries = self.head.partitions
        for _ in range(ROUNDS):
            left = (hash_rows(z).remainder(tries) != self.places).nonzero()[:, 0]
            if not len(left):
                break
            for some in left.split(max(1, WORDS // (tries * self.d))):
                column = torch.randint(self.d, (len(some), tries), generator=random)
                step = FRACTION * torch.randint(1, STEPS + 1, (len(some), tries), generator=random).double()
                old = z[some].double().gather(1, column)
                new = (old + step * (mean[y[some]].gather(1, column) - old)).float()
                moved = z[some][:, None].repeat(1, tries, 1).scatter_(2, column[:, :, None], new[:, :, None])
                hits = (
                    hash_rows(moved.flatten(0, 1)).view(len(some), tries).remainder(tries) == self.places[some][:, None]
                )
                found = hits.any(1)
                z[some[found]] = moved[found, hits[found].long().argmax(1)]
        return z


def joined(groups: Groups, places: Tensor, n: int) -> Groups:
    """The groups with row n + j in group places[j] as well."""
    of = torch.cat([torch.arange(len(groups.sizes)).repeat_interleave(groups.sizes), places])
    rows = torch.cat([groups.rows, n + torch.arange(len(places))])
    return Groups(rows[of.argsort(stable=True)], torch.bincount(of, minlength=len(groups.sizes)))
