"""About how long trials take, from one timed batch, one timed fit and what each attack says it will do."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

from foretaste.attacks.base import Attack, LabelledAttack, PretrainingAttack, TargetedAttack, WeightAttack
from foretaste.attacks.budget import poisoned_rows
from foretaste.attacks.optimise.options import CarrierAttack
from foretaste.audits.adaptive import named_defence, planned, with_surrogate
from foretaste.audits.auxiliary_data import budgeted
from foretaste.audits.calibration import RATES
from foretaste.audits.grid import Trial
from foretaste.audits.metrics import COPIES
from foretaste.audits.prepare import PreparedAudit
from foretaste.defences.certified.base import CertifiedHead
from foretaste.features.embed import embed
from foretaste.heads.fit import fit_head
from foretaste.probes.base import ImageProbe

BACKWARD = 3
"""Forward and backward together, in forward passes."""


def estimate_seconds(prepared: PreparedAudit, trials: list[Trial]) -> float:
    """A rough time for the trials; runs that several of them share count once."""
    images, per_image = prepared.setting.images, 0.0
    if images is not None and prepared.setting.encoder is not None:
        sample, encoder = images.train.pixels[:256], prepared.setting.encoder
        per_image = _seconds(lambda: embed(encoder, sample, prepared.setting.runtime)) / len(sample)
    rows, ridge = prepared.setting.train, prepared.spec.ridge
    per_fit = _seconds(lambda: fit_head(rows.z, rows.y, prepared.setting.classes, ridge, tolerance=1e-4))
    tuned = [probe.planned(len(rows)) for probe in prepared.setting.probes.values() if isinstance(probe, ImageProbe)]
    total, runs, edits, per_vote = 0.0, set[str](), dict[str, int](), dict[tuple[str, int], float]()
    for trial in trials:
        passes, fits = _cost(prepared, trial, runs, edits)
        passes += BACKWARD * sum(tuned) * (fits > 0)
        total += passes * per_image + fits * per_fit + _votes_seconds(prepared, trial, per_vote)
    return total


def _votes_seconds(prepared: PreparedAudit, trial: Trial, timed: dict[tuple[str, int], float]) -> float:
    """Of an attack on a certified head, from one look at its vote with as many poisons; `timed`: those had before."""
    attack = trial.attack
    if not isinstance(attack, CarrierAttack) or not _follows_vote(prepared, attack):
        return 0.0
    rows = poisoned_rows(trial.spec.budget or 0, len(prepared.setting.train))
    key = (str(attack.against), rows)
    if key not in timed:
        own = prepared.view.lend(prepared.setting)
        known = with_surrogate(attack, own, rows, heads=prepared.defender.certified.defences)
        vote = known.vote_surrogate
        assert vote is not None
        at = torch.arange(rows) % len(known.z)
        timed[key] = _seconds(lambda: vote.damage(known.z[at], known.y[at]))
    return attack.planned_votes(prepared.setting.classes) * timed[key]


def _follows_vote(prepared: PreparedAudit, attack: Attack) -> bool:
    return isinstance(named_defence(attack, prepared.defender.certified.defences), CertifiedHead)


def _cost(prepared: PreparedAudit, trial: Trial, runs: set[str], edits: dict[str, int]) -> tuple[float, float]:
    """Images forward through the encoder, and fits of a head.

    Runs already counted are in `runs`, and in `edits` what one run of each attack on the weights takes: to know that, a
    simulated defence is made.
    """
    attack, spec = trial.attack, trial.spec
    both = len(prepared.setting.train) + len(prepared.setting.test)
    kept, refits = encoder_defences_cost(prepared)
    if isinstance(attack, LabelledAttack | TargetedAttack):
        added = poisoned_rows(spec.budget or 0, len(prepared.setting.train))
        moved, fits = attack.planned(added)
        if _follows_vote(prepared, attack):
            fits = 0.0  # see `_votes_seconds`
        # A filter: a fit at each rate, and scores that cost about two more.
        judged = 1 + len(prepared.spec.countermeasures) + (len(RATES) + 2) * len(prepared.defender.filters.defences)
        judged += 2 * len(prepared.defender.certified.defences)
        looks = COPIES if isinstance(attack, TargetedAttack) else 0
        return BACKWARD * moved + added + 2 * looks, fits + judged
    if attack is None:
        return kept, refits
    key = f"{spec.attack} {spec.budget} {spec.run_seed}"
    if key in runs:
        return 2 * COPIES, 0.0
    runs.add(key)
    if isinstance(attack, WeightAttack):
        said, known = str(spec.attack), prepared.view.lend(prepared.setting)
        if said not in edits:
            assert known.encoder is not None
            assert known.kept is not None
            edits[said] = planned(attack, known.encoder, known.kept, prepared.setting.runtime)
        return BACKWARD * edits[said] + both + kept, 2 + refits
    assert prepared.pool is not None
    assert isinstance(attack, PretrainingAttack)
    views = 2 * prepared.pool.method.epochs  # of each image
    clean = len(prepared.pool.images)
    added = budgeted(spec.budget or 0, clean, len(spec.pairs))
    passes, fits = BACKWARD * views * (clean + added) + both + kept, 2 + refits
    if (twin := f"twin {spec.run_seed}") not in runs:
        runs.add(twin)
        passes, fits = passes + BACKWARD * views * clean + both + kept, fits + 2 + refits
    return passes, fits


def encoder_defences_cost(prepared: PreparedAudit) -> tuple[float, float]:
    """Images forward and fits of a head that the repairs, guards and scans of one encoder take, the null's part too."""
    defender, clean, test = prepared.defender, len(prepared.setting.parts.get("clean", [])), len(prepared.setting.test)
    both = len(prepared.setting.train) + test
    mended = sum(repair.planned(clean) + both for repair in defender.repairs.defences.values())
    guarded = sum(guard.planned(test + clean // 2, clean // 2) for guard in defender.guards.defences.values())
    scanned = sum(scan.planned(clean) for scan in defender.scans.defences.values())
    scanned *= 1 + len(defender.scans.null.paths)
    return float(mended + guarded + scanned), 2.0 * len(defender.repairs.defences) + bool(defender.guards.defences)


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start
