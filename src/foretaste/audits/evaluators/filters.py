"""The defender's filters in an audit: scores of the mixed rows, the referee's thresholds, the head on what is left.

Thresholds come from scores of rows that are known to be clean, never from which training rows are poison:

- Where the defender has a clean part, half of it is what a filter may refer to (`TrainingRows.clean_z`), and the other
  half is scored among the training rows, unmarked, in the same run. Those rows are drawn as the clean training rows
  are, so a threshold at their rank flags clean rows at the stated rate whatever the poison does to the scores: what a
  defender can really do (split conformal calibration, see `calibration`; here per trial).
- Where it has none, the thresholds are those of the clean training rows' own scores under the clean twin. No defender
  has that twin; the figures are then what its filter can do at best with a threshold from the past.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from foretaste import statistics
from foretaste.audits.calibration import RATES, halves, threshold, unreachable
from foretaste.audits.evaluators.base import Beside, Case, Evaluator, Faces, Findings
from foretaste.audits.evaluators.preprocessing import spare_classes
from foretaste.audits.metrics import accuracy, compare_predictions
from foretaste.audits.setting import Setting
from foretaste.audits.training import refit
from foretaste.audits.victim import Victim
from foretaste.defences.base import Filter, TrainingRows
from foretaste.errors import DataError
from foretaste.features.file import FeatureSet
from foretaste.record import Alarm, ProbeScores, Screening, pack_labels

OWN = "half of the defender's clean rows, scored among the training rows"
BASELINE = "clean training rows of the clean twin, which no defender has"


@dataclass(frozen=True, eq=False)
class Outcome:
    """One filter on the training rows of one trial.

    Attributes:
        scores: of the training rows, float64 [N].
        calibration: scores [k] that the thresholds are from.
        poison: bool [N]; only what is counted looks at it.
        thresholds: one per rate.
        flagged: bool [rates, N], with the rows that were kept because their class would have been emptied unflagged.
        spared: labels whose rows were kept for that reason, per rate.
        predictions: of the headline probe on the rows left, one int64 [test rows] per rate.
    """

    scores: Tensor
    calibration: Tensor
    poison: Tensor
    thresholds: list[float]
    flagged: list[Tensor]
    spared: list[list[int]]
    predictions: list[Tensor]

    def notes(self, key: str) -> list[str]:
        """Warnings for the record of the filter of that key."""
        return [
            f"{key} at {rate:.0%}: every row of class {label} would have been dropped; they were kept"
            for rate, labels in zip(RATES, self.spared, strict=True)
            for label in labels
        ]


@dataclass(frozen=True, eq=False)
class FilterEvaluator(Evaluator[Filter, Outcome]):
    """Filters of the training rows, at each of the false-alarm rates."""

    kind: ClassVar[str] = "filter"
    faces: ClassVar[Faces] = "rows"
    defences: dict[str, Filter] = field(default_factory=dict)

    def run(self, victim: Victim, beside: Beside | None, case: Case) -> dict[str, Outcome]:
        """See `Evaluator.run`.

        Raises:
            DataError: a filter needs clean rows of the defender's, and there are none (or none of a class); or it drops
                a whole class of clean rows. (Where it does so under poison, that is the poison's doing: the class is
                kept.)
        """
        own = {} if beside is None or not self.defences else beside.outcomes(self)
        found = {}
        for index, (key, defence) in enumerate(self.defences.items()):
            case.progress(index, len(self.defences))
            with case.stage("defences"):
                found[key] = _screen(victim, defence, case.seed, own.get(key))
            if beside is None:
                _keeps_every_class(key, found[key], victim)
        return found

    def findings(self, victim: Victim, found: dict[str, Outcome], beside: Beside | None, case: Case) -> Findings:
        """See `Evaluator.findings`; in front of the baseline also the rates that so few rows cannot set."""
        own = None if beside is None or not found else beside.outcomes(self)
        entries = {key: self._entry(key, victim, one, None if own is None else own[key]) for key, one in found.items()}
        warnings = [note for key, one in found.items() for note in one.notes(key)]
        if beside is None and found:
            warnings += unreachable(min(len(one.calibration) for one in found.values()), "defences", "rows")
        return Findings({"defences": entries}, warnings=warnings)

    def _entry(self, key: str, victim: Victim, found: Outcome, without: Outcome | None) -> Screening:
        """Of one filter; `without`: the same filter at the same rate on the clean rows."""
        truth, poison, poisoned = victim.truth, found.poison, victim.train.poisoned
        alarms = []
        for place, rate in enumerate(RATES):
            now, flagged = found.predictions[place], found.flagged[place]
            caught = statistics.wilson(int(flagged[poison].sum()), int(poison.sum())) if poisoned else None
            scores = ProbeScores(clean=accuracy(now, truth))
            if without is not None:
                scores = compare_predictions(without.predictions[place], now, truth)
            alarms.append(
                Alarm(
                    rate=rate,
                    threshold=found.thresholds[place],
                    poison=caught,
                    clean=statistics.wilson(int(flagged[~poison].sum()), int((~poison).sum())),
                    scores=scores,
                    predictions=pack_labels(now.numpy()),
                )
            )
        return Screening(
            filter=self.defences[key].entry(),
            calibration=BASELINE if _divided(victim.setting)[1] is None else OWN,
            calibration_rows=len(found.calibration),
            auroc=statistics.auroc(found.scores[poison].numpy(), found.scores[~poison].numpy()) if poisoned else None,
            alarms=alarms,
        )


def training_rows(setting: Setting, z: Tensor, y: Tensor) -> TrainingRows:
    """What a defence of the rows may see: rows z [N, d] with labels y [N], and the clean ones it may refer to."""
    own, _ = _divided(setting)
    clean = (None, None) if own is None else (own.z, own.y)
    return TrainingRows(z, y, setting.classes, setting.ridge, *clean)


def _divided(setting: Setting) -> tuple[FeatureSet | None, FeatureSet | None]:
    """The defender's clean rows for reference and for calibration; None where there are none."""
    if setting.clean is None:
        return None, None
    reference, held = halves(setting.clean)
    return reference, held if len(held) else None


def _keeps_every_class(key: str, found: Outcome, victim: Victim) -> None:
    for rate, labels in zip(RATES, found.spared, strict=True):
        if labels:
            rows = int((victim.train.y == labels[0]).sum())
            raise DataError(
                f"defences: {key} at a false-alarm rate of {rate:.0%} keeps a clean row of every class",
                got=f"none of the {rows} of class {labels[0]}",
                do=f"pass more training rows of class {labels[0]}, or drop {key} from the defences",
            )


def _screen(victim: Victim, defence: Filter, seed: int, without: Outcome | None) -> Outcome:
    rows = victim.train
    scores, calibration = _scored(victim, defence, seed)
    if calibration is None:  # no clean part: the baseline, which is the first to come here, sets the thresholds
        calibration = scores if without is None else without.calibration
    thresholds, flagged, gone, predictions = [], [], [], []
    for rate in RATES:
        limit = threshold(calibration, rate)
        kept, spared = spare_classes(scores <= limit, rows.y)
        thresholds.append(limit)
        flagged.append(~kept)
        gone.append(spared)
        predictions.append(refit(victim.setting, rows.z[kept], rows.y[kept], seed))
    return Outcome(scores, calibration, rows.poison, thresholds, flagged, gone, predictions)


def _scored(victim: Victim, defence: Filter, seed: int) -> tuple[Tensor, Tensor | None]:
    """Scores of the training rows [N] and of the calibration rows [k] among them, None without a clean part."""
    rows, (_, held) = victim.train, _divided(victim.setting)
    z, y = (rows.z, rows.y) if held is None else (torch.cat([rows.z, held.z]), torch.cat([rows.y, held.y]))
    scores = defence.score(training_rows(victim.setting, z, y), seed)
    return scores[: len(rows.y)], None if held is None else scores[len(rows.y) :]
