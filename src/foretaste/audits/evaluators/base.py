"""What every evaluator is: the defences of one kind, run on a victim, with what the record says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from torch import Tensor

from foretaste.attacks.base import Progress, quiet
from foretaste.audits.victim import Stage, Victim, untimed
from foretaste.errors import ForetasteError
from foretaste.method import Method
from foretaste.record import Check

Outcome = TypeVar("Outcome")
Configured = TypeVar("Configured")
Faces = Literal["rows", "encoder"]
"""What an attack has to have changed for the defences to have something to do."""


@dataclass(frozen=True)
class Case:
    """The trial that a victim is evaluated in.

    Attributes:
        seed: of the attack's run; 0 for the baseline.
        pair: (test row, wanted class) of the trial's own; None: it is after the accuracy.
        pairs: those of the run that it shares, its own among them.
        stage: a clock.
        progress: called with (defences done, in all).
    """

    seed: int = 0
    pair: tuple[int, int] | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    stage: Stage = untimed
    progress: Progress = quiet

    @property
    def rows(self) -> tuple[int, ...]:
        """Test rows that the run is for."""
        return tuple(row for row, _ in self.pairs)


@dataclass(frozen=True)
class Findings:
    """What the record is told of a victim.

    Attributes:
        entries: fields of a `TrialRecord` -> entries by key, beside those that are there already.
        checks: the referee's.
        warnings: for the record.
    """

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Beside(Protocol):
    """The victim without the attack, and what an evaluator made of it."""

    @property
    def victim(self) -> Victim:
        """The victim."""
        ...

    def outcomes(self, evaluator: Any, stage: Stage = untimed) -> Any:
        """What `evaluator.run` gave for it, made once."""
        ...


class Evaluator(ABC, Generic[Configured, Outcome]):
    """The defences of one kind.

    Attributes:
        kind: name of the kind, as in the table of defences.
        faces: what an attack has to have changed.
        defences: by their key in the record.
    """

    kind: ClassVar[str]
    faces: ClassVar[Faces]
    defences: Mapping[str, Configured]

    @abstractmethod
    def run(self, victim: Victim, beside: Beside | None, case: Case) -> dict[str, Outcome]:
        """What every defence makes of a victim, by its key.

        Args:
            victim: any.
            beside: the baseline; None: the victim is the baseline itself.
            case: of the trial.

        Raises:
            ForetasteError: a defence cannot work with the baseline, or, if it works on rows, with the victim.
        """

    @abstractmethod
    def findings(self, victim: Victim, found: dict[str, Outcome], beside: Beside | None, case: Case) -> Findings:
        """What the record says of that.

        Args:
            victim: that was evaluated.
            found: by `run`.
            beside: the baseline; None: the victim is the baseline itself.
            case: of the trial.
        """

    def pairs(self, found: dict[str, Outcome], beside: Beside) -> dict[str, tuple[Tensor, Tensor]]:
        """Predictions on the test rows without the attack and with it, int64 [k] by key, where a chosen image counts.

        Args:
            found: by `run`, of the attacked victim.
            beside: the baseline.
        """
        return {}

    def digests(self) -> dict[str, str]:
        """Of what the defender has beside its clean rows, for the identity of trials."""
        return {}

    def entries(self) -> list[dict[str, Any]]:
        """The defences with all their fields, for the identity of trials."""
        return [one.entry() for one in self.defences.values() if isinstance(one, Method)]


def each(
    keys: Mapping[str, Any],
    make: Callable[[str], Outcome],
    failed: Callable[[str], Outcome],
    *,
    tolerant: bool,
) -> dict[str, Outcome]:
    """What every defence makes of a victim; where that is tolerated, one that fails is said so and no more.

    Args:
        keys: of the defences.
        make: outcome of the defence of a key.
        failed: outcome for the reason why there is none.
        tolerant: of a `ForetasteError`.
    """
    found = {}
    for key in keys:
        try:
            found[key] = make(key)
        except ForetasteError as error:
            if not tolerant:
                raise
            found[key] = failed(" ".join(str(error).split()))
    return found
