"""The defender's guards in an audit: does the chosen image stand out among the inputs of the poisoned encoder?

A guard learns from one half of the defender's clean images, in front of the encoder that is in use, poisoned or not.
The other half sets its thresholds, by the rule of `calibration.threshold`. The referee then scores its test images: of
those the attack was after, each is held against all the others. The share of these that score below it, averaged over
trials, is the AUROC of the guard.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from foretaste.audits.calibration import RATES, halves, threshold, unreachable
from foretaste.audits.evaluators.base import Beside, Case, Evaluator, Faces, Findings, each
from foretaste.audits.victim import Victim
from foretaste.defences.guards.base import Guard, GuardRows
from foretaste.encoders.base import Encoder
from foretaste.record import Guarded, InputAlarm
from foretaste.statistics import wilson


@dataclass(frozen=True, eq=False)
class Outcome:
    """One guard in front of one encoder.

    Attributes:
        scores: of the test images, float64 [k]; empty where the guard failed.
        calibration: scores that thresholds are from.
        error: why it failed.
    """

    scores: Tensor
    calibration: Tensor
    error: str = ""


@dataclass(frozen=True, eq=False)
class GuardEvaluator(Evaluator[Guard, Outcome]):
    """Guards of the deployed encoder.

    Attributes:
        other: the defender's second encoder; None: it has none.
        other_features: through it, of the images that guards look at, for all trials.
    """

    kind: ClassVar[str] = "guard"
    faces: ClassVar[Faces] = "encoder"
    defences: dict[str, Guard] = field(default_factory=dict)
    other: Encoder | None = None
    other_features: dict[str, Tensor] = field(default_factory=dict)

    def run(self, victim: Victim, beside: Beside | None, case: Case) -> dict[str, Outcome]:
        """See `Evaluator.run`."""
        if not self.defences:
            return {}
        setting = victim.setting
        reference, held = halves(setting.clean_images)
        rows = GuardRows(
            victim.used_encoder,
            reference,
            setting.runtime,
            self.other,
            victim.head,
            setting.ridge,
            seen=self.other_features,
        )

        def make(key: str) -> Outcome:
            with case.stage("guards"):
                guard = self.defences[key].fit(rows)
                return Outcome(guard.score(setting.split.test.pixels), guard.score(held.pixels))

        def failed(reason: str) -> Outcome:
            return Outcome(torch.zeros(0), torch.zeros(0), reason)

        return each(self.defences, make, failed, tolerant=beside is not None)

    def findings(self, victim: Victim, found: dict[str, Outcome], beside: Beside | None, case: Case) -> Findings:
        """See `Evaluator.findings`; in front of the baseline also the rates that so few images cannot set."""
        own = None if beside is None or not found else beside.outcomes(self, case.stage)
        entries = {
            key: self._entry(key, victim, one, None if own is None else own[key], case) for key, one in found.items()
        }
        warnings = []
        if beside is None and found:
            warnings = unreachable(len(halves(victim.setting.clean_images)[1]), "guards", "images")
        return Findings({"guarded": entries}, warnings=warnings)

    def _entry(self, key: str, victim: Victim, found: Outcome, without: Outcome | None, case: Case) -> Guarded:
        reference, held = halves(victim.setting.clean_images)
        start = Guarded(
            guard=self.defences[key].entry(),
            clean_images=len(reference),
            calibration_images=len(held),
            error=found.error,
        )
        if found.error:
            return start
        row = None if case.pair is None else case.pair[0]
        others = torch.ones(len(found.scores), dtype=torch.bool)
        others[list(case.rows)] = False  # none of those that the run is for is a false alarm
        alarms = []
        for rate in RATES:
            limit = threshold(found.calibration, rate)
            flagged = found.scores > limit
            alarms.append(
                InputAlarm(
                    rate=rate,
                    threshold=limit,
                    flagged=None if row is None else bool(flagged[row]),
                    false_alarms=wilson(int(flagged[others].sum()), int(others.sum())),
                )
            )
        update: dict[str, object] = {"alarms": alarms}
        if row is not None and without is not None:
            update |= {
                "score": float(found.scores[row]),
                "share": share_below(found.scores, row, others),
                "clean_share": share_below(without.scores, row, others),
            }
        return start.model_copy(update=update)


def share_below(scores: Tensor, row: int, others: Tensor) -> float:
    """Share of the scores [k] chosen by `others`, bool [k], that lie below that of `row`, ties for half."""
    rest = scores[others]
    return float((rest < scores[row]).double().mean() + (rest == scores[row]).double().mean() / 2)
