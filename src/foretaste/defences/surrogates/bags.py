"""`bagging` as an adaptive attack knows it: bags of the attacker's own draw stand for those of the defender."""

from __future__ import annotations

import torch

from foretaste.defences.certified.bagging import Bagging
from foretaste.defences.certified.subsample_heads import Groups
from foretaste.defences.surrogates.votes import VoteSurrogate

BAGS = 200
"""Bags that the attacker draws."""


class BagsSurrogate(VoteSurrogate[Bagging]):
    """`bagging`: bags of the attacker's own draw, with poison in the share of them that the defender's will have."""

    def groups(self, random: torch.Generator) -> Groups:
        """Bags on as many clean rows as the victim has and the poisons."""
        clean = self.own.victim_rows or self.n
        bags = min(self.head.learners, BAGS)
        drawn = torch.randint(clean + self.own.poisons, (bags, self.head.bag), generator=random)
        drawn = torch.where(drawn < clean, drawn % self.n, drawn - clean + self.n)
        return Groups(drawn.flatten(), torch.full((bags,), self.head.bag))
