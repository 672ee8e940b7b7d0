"""What a defender does to the training rows before the head is fitted: clip them, or drop the outliers among them.

Functions on tensors that see the mixed rows with their labels and reference rows, never which rows are poison. Clipping
to the data range: the countermeasure of Lu et al., arXiv 2402.12626. The filters are the L2 (`sphere`) defence of
Steinhardt, Koh and Liang, "Certified Defenses for Data Poisoning Attacks", NeurIPS 2017, section 3, with a quantile of
clean distances as its radius, and the same rule on the norm alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from foretaste.audits.evaluators.base import Beside, Case, Evaluator, Faces, Findings
from foretaste.audits.metrics import accuracy, compare_predictions
from foretaste.audits.training import refit
from foretaste.audits.victim import Victim
from foretaste.features.embed import embed
from foretaste.record import Dropped, ProbeScores, pack_labels
from foretaste.statistics import wilson

NORM_QUANTILES = (0.005, 0.995)
CENTROID_QUANTILE = 0.99

Filter = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(z [n, d], y [n], reference z [k, d], reference y [k]) -> bool [n], the rows to keep."""


def clip_features(z: Tensor, reference: Tensor) -> Tensor:
    """Each feature of z [m, d] clipped to its range in the reference rows [k, d]."""
    return z.clamp(reference.amin(0), reference.amax(0))


def clip_channels(pixels: Tensor, reference: Tensor) -> Tensor:
    """Each channel of images uint8 [n, 3, H, W] clipped to its range over all pixels of the reference [k, 3, H, W]."""
    low, high = (bound[:, None, None] for bound in (reference.amin((0, 2, 3)), reference.amax((0, 2, 3))))
    return pixels.clamp(low, high)


def within_norms(z: Tensor, y: Tensor, reference_z: Tensor, reference_y: Tensor) -> Tensor:
    """Rows whose Euclidean norm lies within `NORM_QUANTILES` of the reference norms, ends included; see `Filter`."""
    bounds = torch.tensor(NORM_QUANTILES, dtype=torch.float64)
    low, high = torch.quantile(reference_z.double().norm(dim=1), bounds)
    norms = z.double().norm(dim=1)
    kept: Tensor = (norms >= low) & (norms <= high)
    return kept


def within_centroids(z: Tensor, y: Tensor, reference_z: Tensor, reference_y: Tensor) -> Tensor:
    """Rows no further from the reference centroid of the label they carry than `CENTROID_QUANTILE` of its own rows.

    A label without reference rows has no centroid: all of its rows stay. See `Filter`.
    """
    kept = torch.ones(len(y), dtype=torch.bool)
    for label in reference_y.unique().tolist():
        own = reference_z[reference_y == label].double()
        radius = torch.quantile((own - own.mean(0)).norm(dim=1), CENTROID_QUANTILE)
        mine = y == label
        kept[mine] = (z[mine].double() - own.mean(0)).norm(dim=1) <= radius
    return kept


def spare_classes(kept: Tensor, y: Tensor) -> tuple[Tensor, list[int]]:
    """The rows to keep bool [n], with every class whole that would have lost all of its rows, and those classes."""
    gone = sorted(set(y.tolist()) - set(y[kept].tolist()))
    return kept | torch.isin(y, torch.tensor(gone, dtype=y.dtype)), gone


FILTERS: dict[str, Filter] = {"norm-filtered": within_norms, "centroid-filtered": within_centroids}
CLIPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"clipped": clip_features, "pixel-clipped": clip_channels}
"""Name of `audit.options.COUNTERMEASURES` -> function."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The headline probe after one countermeasure.

    Attributes:
        predictions: on the test rows, int64 [k].
        dropped: shares of the rows that a filter dropped; None for a clip.
        notes: warnings for the record.
    """

    predictions: Tensor
    dropped: Dropped | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class PreprocessingEvaluator(Evaluator[str, Outcome]):
    """Countermeasures before the head is fitted, each judged beside the headline probe; keys are `exact, clipped`.

    A clip that changes nothing gives no score: it would be the headline's own. A filter always gives one, since what it
    drops of the clean rows is its price.
    """

    kind: ClassVar[str] = "preprocessing"
    faces: ClassVar[Faces] = "rows"
    defences: dict[str, str] = field(default_factory=dict)

    def run(self, victim: Victim, beside: Beside | None, case: Case) -> dict[str, Outcome]:
        """See `Evaluator.run`."""
        found, rows = {}, victim.train
        for name in self.defences:
            if name in FILTERS:
                result = _filtered(victim, name, case.seed)
            else:
                z = _clipped(victim) if name == "clipped" else _clipped_images(victim)
                if z is None or torch.equal(z, rows.z):
                    continue
                result = Outcome(refit(victim.setting, z, rows.y, case.seed))
            found[f"{victim.setting.headline}, {name}"] = result
        return found

    def findings(self, victim: Victim, found: dict[str, Outcome], beside: Beside | None, case: Case) -> Findings:
        """See `Evaluator.findings`."""
        truth = victim.truth
        scores = {
            key: ProbeScores(clean=accuracy(one.predictions, truth))
            if beside is None
            else compare_predictions(self.without_poison(key, beside), one.predictions, truth)
            for key, one in found.items()
        }
        entries: dict[str, dict[str, Any]] = {
            "scores": scores,
            "predictions": {key: pack_labels(one.predictions.numpy()) for key, one in found.items()},
            "dropped": {key: one.dropped for key, one in found.items() if one.dropped},
        }
        return Findings(entries, warnings=[note for one in found.values() for note in one.notes])

    def without_poison(self, key: str, beside: Beside) -> Tensor:
        """Test predictions of the same probe under the same countermeasure, without poison."""
        own = beside.outcomes(self)
        # A clip that leaves the clean rows as they are has the headline probe itself beside it.
        return own[key].predictions if key in own else beside.victim.predictions[beside.victim.setting.headline]

    def pairs(self, found: dict[str, Outcome], beside: Beside) -> dict[str, tuple[Tensor, Tensor]]:
        """See `Evaluator.pairs`."""
        return {key: (self.without_poison(key, beside), one.predictions) for key, one in found.items()}


def _clipped(victim: Victim) -> Tensor:
    # The range is that of the clean training rows themselves (the data range of the paper): clipping leaves them as
    # they are. A defender who does not know which rows are clean can only come near it.
    rows = victim.train
    z = rows.z.clone()
    z[rows.poison] = CLIPS["clipped"](z[rows.poison], victim.setting.train.z)
    return z


def _clipped_images(victim: Victim) -> Tensor | None:
    """Features after the channels are clipped; only images that this changes are embedded again."""
    rows, setting = victim.train, victim.setting
    if rows.pixels is None or setting.images is None or victim.encoder is None:
        return None
    own = setting.images.clean.pixels
    pixels = CLIPS["pixel-clipped"](rows.pixels, own if len(own) else rows.pixels)
    changed = (pixels != rows.pixels).flatten(1).any(1)
    z = rows.z.clone()
    if bool(changed.any()):
        z[changed] = embed(victim.encoder, pixels[changed], setting.runtime)
    return z


def _filtered(victim: Victim, name: str, seed: int) -> Outcome:
    rows, own = victim.train, victim.setting.clean
    reference_z, reference_y = (rows.z, rows.y) if own is None else (own.z, own.y)
    kept, spared = spare_classes(FILTERS[name](rows.z, rows.y, reference_z, reference_y), rows.y)
    notes = [f"{name}: every row of class {label} would have been dropped; they were kept" for label in spared]
    poison, lost = rows.poison, ~kept
    dropped = Dropped(
        reference="mixed training rows" if own is None else "defender's clean rows",
        clean=wilson(int((lost & ~poison).sum()), int((~poison).sum())),
        poison=wilson(int((lost & poison).sum()), int(poison.sum())) if rows.poisoned else None,
    )
    return Outcome(refit(victim.setting, rows.z[kept], rows.y[kept], seed), dropped, notes)
