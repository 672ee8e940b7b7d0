"""The defender's filters in an audit: scores of the mixed rows, the referee's thresholds, the head on what is left.

Thresholds come from scores of rows that are known to be clean, never from which training rows are poison:

- Where the defender has a clean part, half of it is what a filter may refer to (`TrainingRows.clean_z`), and the other
  half is scored among the training rows, unmarked, in the same run. Those rows are drawn as the clean training rows
  are, so a threshold at their rank flags clean rows at the stated rate whatever the poison does to the scores: what a
  defender can really do (split conformal calibration, Papadopoulos et al., ECML 2002; here per trial).
- Where it has none, the thresholds are those of the clean training rows' own scores under the clean twin. No defender
  has that twin; the figures are then what its filter can do at best with a threshold from the past.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretaste import statistics
from foretaste.audit.countermeasures import spare_classes
from foretaste.audit.retrain import Mixed, mix, refit
from foretaste.audit.scores import accuracy, compare
from foretaste.audit.spec import AuditSpec, MethodSpec
from foretaste.defences import configure
from foretaste.defences.base import Filter, TrainingRows
from foretaste.errors import DataError, SpecError
from foretaste.method import Method
from foretaste.record import Alarm, ProbeScores, Screening, pack_labels

if TYPE_CHECKING:
    from foretaste.audit.parts import Note
    from foretaste.audit.pipeline import Pipeline
    from foretaste.features.file import FeatureSet

RATES = (0.01, 0.05)
"""False-alarm rates that thresholds are set at."""
OWN = "half of the defender's clean rows, scored among the training rows"
TWIN = "clean training rows of the clean twin, which no defender has"


@dataclass(frozen=True, eq=False)
class Screened:
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


def configured_defences(spec: AuditSpec) -> dict[str, Method]:
    """The audit's defences by their key in the record: the name, with the fields that differ from the defaults.

    Raises:
        SpecError: an unknown defence or field, or a defence twice with the same fields.
    """
    defences: list[Method] = [configure(method.name, method.fields) for method in spec.defences]
    found = {MethodSpec.key_of(one): one for one in defences}
    if len(found) < len(defences):
        raise SpecError(
            "defences: each one once", got=", ".join(map(str, spec.defences)), do="drop one, or give it other fields"
        )
    return found


def screened(pipeline: Pipeline, mixed: Mixed, seed: int) -> dict[str, Screened]:
    """What every filter of the audit makes of the mixed rows, by its key."""
    return {key: _screen(pipeline, key, mixed, seed) for key in pipeline.filters}


def screened_twin(pipeline: Pipeline, note: Note) -> dict[str, Screened]:
    """The same on the clean training rows: what each filter costs where there is no poison.

    Raises:
        DataError: a filter needs clean rows of the defender's, and there are none (or none of a class); or it drops a
            whole class of clean rows. (Where it does so under poison, that is the poison's doing: the class is kept.)
    """
    mixed = mix(pipeline, pipeline.train.z[:0], pipeline.train.y[:0], None)
    found = {}
    for index, key in enumerate(pipeline.filters):
        note("defences", index, len(pipeline.filters))
        found[key] = _screen(pipeline, key, mixed, 0)
        for rate, labels in zip(RATES, found[key].spared, strict=True):
            if labels:
                rows = int((mixed.y == labels[0]).sum())
                raise DataError(
                    f"defences: {key} at a false-alarm rate of {rate:.0%} keeps a clean row of every class",
                    got=f"none of the {rows} of class {labels[0]}",
                    do=f"pass more training rows of class {labels[0]}, or drop {key} from the defences",
                )
    return found


def screening(pipeline: Pipeline, key: str, found: Screened) -> Screening:
    """The record's entry of one filter; the clean twin is the same filter at the same rate on the clean rows."""
    truth, poison = pipeline.test.y, found.poison
    poisoned = bool(poison.any())
    alarms = []
    for place, rate in enumerate(RATES):
        now, flagged = found.predictions[place], found.flagged[place]
        twin = pipeline.screened[key].predictions[place]
        caught = statistics.wilson(int(flagged[poison].sum()), int(poison.sum())) if poisoned else None
        alarms.append(
            Alarm(
                rate=rate,
                threshold=found.thresholds[place],
                poison=caught,
                clean=statistics.wilson(int(flagged[~poison].sum()), int((~poison).sum())),
                scores=compare(twin, now, truth) if poisoned else ProbeScores(clean=accuracy(now, truth)),
                predictions=pack_labels(now.numpy()),
            )
        )
    return Screening(
        filter=pipeline.filters[key].entry(),
        calibration=_source(pipeline),
        calibration_rows=len(found.calibration),
        auroc=statistics.auroc(found.scores[poison].numpy(), found.scores[~poison].numpy()) if poisoned else None,
        alarms=alarms,
    )


def screening_warnings(pipeline: Pipeline) -> list[str]:
    """Rates that so few calibration rows cannot set."""
    rows = min((len(one.calibration) for one in pipeline.screened.values()), default=0)
    return [
        f"defences: {rows} calibration rows cannot set a false-alarm rate of {rate:.0%}; the threshold is their "
        f"highest score, which flags about {1 / (rows + 1):.1%} of clean rows"
        for rate in RATES
        if pipeline.screened and (rows + 1) * rate < 1
    ]


def threshold(calibration: Tensor, rate: float) -> float:
    """The least calibration score above which, on average, at most `rate` of rows like those lie.

    Of k scores the one of rank ceil((k + 1) (1 - rate)): a further row of the same kind exceeds it with a chance of at
    most `rate`. Where k is too small for that, the highest, which it exceeds with a chance of at most 1 / (k + 1).

    Args:
        calibration: scores [k], k >= 1.
        rate: in (0, 1).
    """
    k = len(calibration)
    rank = min(k, math.ceil(round((k + 1) * (1 - rate), 9)))  # rounded: 0.99 is a little more than 99 / 100
    return float(calibration.sort().values[rank - 1])


def halves(own: FeatureSet | None) -> tuple[FeatureSet | None, FeatureSet | None]:
    """The defender's clean rows as (those a filter may refer to, those that calibrate), every other row of each class.

    A single row cannot be divided: it is for reference.
    """
    if own is None:
        return None, None
    order = own.y.argsort(stable=True)
    reference, calibration = (own.take(order[start::2].sort().values) for start in (0, 1))
    return reference, calibration if len(calibration) else None


def _screen(pipeline: Pipeline, key: str, mixed: Mixed, seed: int) -> Screened:
    scores, calibration = _scored(pipeline, pipeline.filters[key], mixed, seed)
    if calibration is None:  # no clean part: the clean twin, which is the first to come here, sets the thresholds
        calibration = pipeline.screened[key].calibration if key in pipeline.screened else scores
    thresholds, flagged, gone, predictions = [], [], [], []
    for rate in RATES:
        limit = threshold(calibration, rate)
        kept, spared = spare_classes(scores <= limit, mixed.y)
        thresholds.append(limit)
        flagged.append(~kept)
        gone.append(spared)
        predictions.append(refit(pipeline, mixed.z[kept], mixed.y[kept], seed))
    return Screened(scores, calibration, mixed.poison, thresholds, flagged, gone, predictions)


def _scored(pipeline: Pipeline, defence: Filter, mixed: Mixed, seed: int) -> tuple[Tensor, Tensor | None]:
    """Scores of the mixed rows [N] and of the calibration rows [k] among them, None without a clean part."""
    reference, held = halves(pipeline.parts.get("clean"))
    z, y = (mixed.z, mixed.y) if held is None else (torch.cat([mixed.z, held.z]), torch.cat([mixed.y, held.y]))
    own = (None, None) if reference is None else (reference.z, reference.y)
    scores = defence.score(TrainingRows(z, y, pipeline.classes, pipeline.spec.ridge, *own), seed)
    rows = len(mixed.y)
    return scores[:rows], None if held is None else scores[rows:]


def _source(pipeline: Pipeline) -> str:
    return TWIN if halves(pipeline.parts.get("clean"))[1] is None else OWN
