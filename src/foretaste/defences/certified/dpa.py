"""Deep partition aggregation: every training row can move one vote (Levine and Feizi, ICLR 2021, section 3).

Rows fall into partitions by a hash of their features alone, so that adding or taking away a row touches one partition,
and giving a row another label touches one as well (SS-DPA, their section 4, with the encoder as the shared part). A
base learner sees only the rows of its partition, in an order that the rows themselves decide. With n_c votes for class
c, ties for the smaller class and c1 the winner, a touched partition can at most take a vote from c1 and give it to
another, so the prediction stands for as many touched partitions as

    min over c of floor((n_c1 - n_c - [c < c1]) / 2).

With `election=run-off` the two classes with most votes meet in a second round, in which each base learner votes for the
one that it scores higher (run-off elections, Rezaei et al., ICML 2023, section 4; the bounds are in `run_off`).

Base learners are computed in float64, each from its own rows; the certificate takes their votes as exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from foretaste.defences.base import TrainingRows
from foretaste.defences.certified.base import Certified, CertifiedHead, FittedCertified, count_votes
from foretaste.defences.certified.subsample_heads import Groups
from foretaste.errors import SpecError

COUNTS = (10, 25, 50, 100, 250, 500, 1000, 2000)
"""Partitions that `chosen` chooses among, as far as there are rows."""
ALIKE = 1e-4
"""Scores closer than this are a tie in round two."""
WORTH = 0.05
"""Certified share of the rows below which `chosen` looks at fewer poisoned rows."""
LEAST = 4
"""Rows per partition that `chosen` leaves, on average."""


class DPA(CertifiedHead):
    """A vote of one base learner per hash partition of the training rows; each row can move one vote."""

    name: ClassVar[str] = "dpa"
    certain: ClassVar[bool] = True
    partitions: int | None = Field(
        default=None,
        ge=1,
        description="base learners; in an audit, none: the count that certifies most validation rows at the largest "
        "budget that it can do anything about",
    )
    election: Literal["plurality", "run-off"] = Field(
        default="plurality",
        description="most votes wins, or the two classes with most votes go into a second round between them",
    )

    def fit(self, rows: TrainingRows, seed: int = 0) -> FittedCertified:
        """See `CertifiedHead.fit`; the seed changes nothing.

        Raises:
            SpecError: no number of partitions. It must not depend on the training rows: see `chosen`.
        """
        if self.partitions is None:
            raise SpecError("dpa: a number of partitions", got="none", do="pass partitions=250, or call `chosen`")
        self._need(rows, self.partitions, "one for each partition")
        groups = partition(rows.z, rows.y, self.partitions)
        blocks = self._fitted(rows, groups)

        def certify(z: Tensor) -> Certified:
            found = [run_off(s) if self.election == "run-off" else plurality(count_votes(s)) for s in blocks(z)]
            return Certified(torch.cat([one.predictions for one in found]), torch.cat([one.radii for one in found]))

        return FittedCertified(certify, {"fewest rows": float(groups.sizes.min()), "rows": len(rows) / self.partitions})

    def changes(self, added: int, relabelled: int, replaced: int) -> int:
        """Partitions touched at most: one by a row that comes, goes or gets another label, two by one that moves."""
        return added + relabelled + 2 * replaced

    def chosen(self, rows: TrainingRows, z: Tensor, y: Tensor, added: Sequence[int]) -> Self:
        """With the number of partitions that certifies most of other rows where so many rows may be poison.

        Choose on rows that no attacker reached, and before the rows in question are seen: a number that the poison
        could sway would move all votes at once.

        Args:
            rows: clean training rows, as many as there will be.
            z: float [k, d], rows to certify that are not among them.
            y: int64 [k], their labels.
            added: poisoned rows to reckon with. The largest number counts at which some number of partitions certifies
                a share of at least `WORTH`; where there is none, the vote is to be as accurate as can be.

        Raises:
            DataError: too few rows for any.
        """
        self._need(rows, COUNTS[0] * LEAST, f"{LEAST} for each of {COUNTS[0]} partitions")
        fitting = [self.model_copy(update={"partitions": n}) for n in COUNTS if n * LEAST <= len(rows)]
        found = [(one.fit(rows).certify(z), one) for one in fitting]
        for changes in [*(self.changes(number, 0, 0) for number in sorted(added, reverse=True)), 0]:
            shares = [float(certified.at(y, changes).double().mean()) for certified, _ in found]
            if max(shares) >= WORTH or not changes:
                break
        return found[shares.index(max(shares))][1]


def partition(z: Tensor, y: Tensor, count: int) -> Groups:
    """Rows by the hash of their features, int64 places; inside a partition in the order of hash and label.

    Args:
        z: float32 [n, d].
        y: int64 [n]; it decides the order of rows with equal features, never their partition.
        count: partitions.
    """
    hashed = hash_rows(z)
    place = hashed.remainder(count)
    order = y.argsort(stable=True)
    order = order[hashed[order].argsort(stable=True)]
    order = order[place[order].argsort(stable=True)]
    return Groups(order, torch.bincount(place, minlength=count))


def hash_rows(z: Tensor) -> Tensor:
    """A number in [0, 2^62) of each row's bits, int64 [n]: the same on every machine and whatever the other rows are.

    A sum of words times odd constants, mixed as by splitmix64 (Steele, Lea and Flood 2014). It need not withstand an
    attacker who chooses where his rows fall: the certificate already grants him the best places.
    """
    words = (z.float() + 0.0).contiguous().view(torch.int32).long()  # + 0.0: one zero
    factors = _mix(torch.arange(1, z.shape[1] + 1) * _GOLDEN) | 1
    hashed: Tensor = _mix((_mix(words) * factors).sum(1)) & (2**62 - 1)
    return hashed


_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # as signed 64-bit numbers


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser in wrapping int64 arithmetic."""
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    mixed: Tensor = x ^ _shifted(x, 31)
    return mixed


def _shifted(x: Tensor, by: int) -> Tensor:
    """Logical shift to the right: torch's own keeps the sign."""
    shifted: Tensor = (x >> by) & (2 ** (64 - by) - 1)
    return shifted


def plurality(votes: Tensor) -> Certified:
    """Winner and radius of votes int64 [k, C], ties for the smaller class."""
    first = votes.argmax(1)  # the first of equals
    classes = torch.arange(votes.shape[1])
    gaps = votes.gather(1, first[:, None]) - votes - (classes < first[:, None]).long()  # [k, C]
    gaps.scatter_(1, first[:, None], torch.iinfo(torch.int64).max)
    return Certified(first, gaps.amin(1).div(2, rounding_mode="floor"))


def _duel(left: Tensor, right: Tensor) -> Tensor:
    """Votes of round two, int64: 1 for left, -1 for right, 0 where a head tells them apart no better than rounding.

    A head without rows of either class scores both alike; a tie broken by number would favour the smaller class.
    """
    return (left > right + ALIKE).long() - (right > left + ALIKE).long()


def run_off(scores: Tensor) -> Certified:
    """Winner and radius of the two rounds by scores [b, P, C], C >= 2, ties for the smaller class.

    A base learner that changes takes at most one vote from a class and gives it to another, in each round. The winner w
    falls in one of two ways, and the radius is one less than the cheaper takes:

    - Two classes a and b get ahead of it in round one. With D_a the votes that a lacks, a change lowers D_a and D_b by
      at most 2 each and their sum by at most 3, so it takes max(D_a / 2, D_b / 2, (D_a + D_b) / 3), rounded up.
    - A class c beats it in round two, and got there: half of what c lacks there, and half of what it lacks in round one
      to be ahead of every class but w, whichever is more, rounded up.
    """
    votes = count_votes(scores)  # [b, C]
    b, classes = votes.shape
    index, at = torch.arange(classes), torch.arange(b)
    ranked = (votes * classes - index).argsort(1, descending=True)  # distinct: ties for the smaller class
    one, two = ranked[:, :2].sort(1).values.T  # the smaller class first
    for_one = _duel(scores[at, :, one], scores[at, :, two]).sum(1)
    first = torch.where(for_one >= 0, one, two)
    lacks_two = _duel(scores[at, :, first][:, :, None], scores).sum(1) + (index > first[:, None]).long()  # [b, C]
    # What column c lacks in round one to be ahead of row x, [b, x, c]; of w and of itself it need not be.
    lacks = votes[:, :, None] - votes[:, None, :] + (index[:, None] < index).long()
    lacks_one = lacks.clone()
    lacks_one[:, index, index] = lacks_one[at, first] = -scores.shape[1]
    cost = (torch.maximum(lacks_two, lacks_one.amax(1)) + 1).div(2, rounding_mode="floor")
    cost[at, first] = torch.iinfo(torch.int64).max
    least = cost.amin(1)
    if classes > 2:
        ahead = lacks[at, first]  # what each class lacks to be ahead of w, [b, C]
        ahead[at, first] = scores.shape[1] + 1
        near, far = ahead.sort(1).values[:, :2].T
        pair = torch.maximum((far + 1).div(2, rounding_mode="floor"), (near + far + 2).div(3, rounding_mode="floor"))
        least = torch.minimum(least, pair)
    return Certified(first, least - 1)
