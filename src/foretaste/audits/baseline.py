"""`Baseline`: the victim that nobody attacked, and every evaluator run on it, each once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from foretaste.attacks.base import Progress, quiet
from foretaste.audits.evaluators.base import Case, Evaluator
from foretaste.audits.run_cache import RunCache
from foretaste.audits.victim import Stage, Victim, untimed

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, eq=False)
class Baseline:
    """What an attacked victim is compared with.

    Attributes:
        victim: without the attack; where an attack poisons pre-training, one that went on learning without poison.
    """

    victim: Victim
    _kept: RunCache[Any] = field(default_factory=lambda: RunCache(16))
    _triggered: RunCache[dict[str, Tensor]] = field(default_factory=lambda: RunCache(4))

    def outcomes(
        self, evaluator: Evaluator[Any, Outcome], stage: Stage = untimed, progress: Progress = quiet
    ) -> dict[str, Outcome]:
        """What an evaluator makes of it, made when it is first asked for.

        Raises:
            ForetasteError: a defence cannot work with it.
        """
        made: dict[str, Outcome] = self._kept.get(
            evaluator.kind, lambda: evaluator.run(self.victim, None, Case(stage=stage, progress=progress))
        )
        return made

    def triggered(self, digest: str, pixels: Tensor) -> dict[str, Tensor]:
        """What its probes say of test rows with a trigger on them, int64 [k] by key, kept by their digest."""
        return self._triggered.get(digest, lambda: self.victim.predict(pixels))
