"""Attacks that defences of the encoder were tried on: each with its forms that were made against one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from foretaste.report.defended import against, aims_at
from foretaste.report.numbers import budget
from foretaste.report.pairs import Threat
from foretaste.report.steering import PairRow


@dataclass(frozen=True)
class Ground:
    """One attack at one budget, and the same attack made against a defence.

    Attributes:
        threat: its threat.
        plain: the attack that reckons with no defence; None where every one does.
        aimed: those that do.
    """

    threat: Threat
    plain: PairRow | None
    aimed: list[PairRow]

    @property
    def name(self) -> str:
        """Of the attack, with its budget where there are several."""
        row = self.plain or self.aimed[0]
        return named(self.threat, row) if self.plain else row.attack

    @property
    def rows(self) -> list[PairRow]:
        """All of it."""
        return [*([self.plain] if self.plain else []), *self.aimed]

    def faced(self, key: str) -> list[PairRow]:
        """What a defence is credited with the worst of."""
        return [row for row in self.rows if row is self.plain or aims_at(row, key)]

    def basis(self, keys: Iterable[str]) -> str:
        """Which of the defences somebody tried to get past."""
        keys = list(keys)
        tested = [key for key in keys if any(aims_at(row, key) for row in self.aimed)]
        rest = ", ".join(key for key in keys if key not in tested)
        if not tested:
            return f"without an adaptive attack: none was made against {rest}"
        return f"counting what was made against {', '.join(tested)}" + (f"; nothing was against {rest}" if rest else "")


def named(threat: Threat, row: PairRow) -> str:
    """The row's attack, with its budget where the threat has budgets."""
    return row.name + (f" at {budget(row.budget)}" if threat.share else "")


def grounds(threat: Threat, rows: list[PairRow]) -> list[Ground]:
    """The attacks on which a defence of the encoder was tried, in the order of the record."""
    found = []
    tried = [row for row in rows if any(one.repaired or one.scanned or one.guarded for one in row.pairs)]
    for attack, share in dict.fromkeys((row.attack, row.budget) for row in tried):
        own = [row for row in tried if (row.attack, row.budget) == (attack, share)]
        aimed, plain = [row for row in own if against(row)], [row for row in own if not against(row)]
        found += [Ground(threat, row, aimed) for row in plain] or [Ground(threat, None, aimed)]
    return found


@dataclass(frozen=True)
class Case:
    """A defence in its worst case; the lower the rank, the better.

    Attributes:
        key: the defence.
        row: the attack that is the worst for it.
        rank: what cases are ordered by.
        text: the figures in words.
    """

    key: str
    row: PairRow
    rank: tuple[float, ...]
    text: str


Judge = Callable[[PairRow, str], tuple[tuple[float, ...], str] | None]


def cases(ground: Ground, keys: Iterable[str], judge: Judge) -> list[Case]:
    """Each defence that has figures, by its worst case; the best one first."""
    found = []
    for key in dict.fromkeys(keys):
        judged = [(row, one) for row in ground.faced(key) if (one := judge(row, key))]
        if judged:
            row, (rank, text) = max(judged, key=lambda one: one[1][0])
            aside = "" if row is ground.plain else f" where the attack is made against it ({named(ground.threat, row)})"
            found.append(Case(key, row, rank, text + aside))
    return sorted(found, key=lambda case: case.rank)
