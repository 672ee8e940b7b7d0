"""`foretaste.compare` and `foretaste.evaluate`: what an attack did to a victim, and what a defence makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretaste import defences as table
from foretaste.api.attack import pair_of
from foretaste.api.checks import a_victim, a_whole
from foretaste.audits.baseline import Baseline
from foretaste.audits.defender import OF_ENCODERS
from foretaste.audits.evaluators.base import Case, Evaluator
from foretaste.audits.evaluators.certified import CertifiedEvaluator
from foretaste.audits.evaluators.filters import FilterEvaluator
from foretaste.audits.evaluators.guards import GuardEvaluator
from foretaste.audits.evaluators.repairs import RepairEvaluator
from foretaste.audits.evaluators.scans import NullEncoders, ScanEvaluator
from foretaste.audits.methods import configured
from foretaste.audits.metrics import compare_predictions, target_scores
from foretaste.audits.scan_once import null_files
from foretaste.audits.spec import MethodSpec
from foretaste.audits.victim import Victim
from foretaste.defences.base import Filter
from foretaste.defences.certified.base import CertifiedHead
from foretaste.defences.guards.base import Guard
from foretaste.defences.repairs.base import Repair
from foretaste.defences.scans.base import Scan
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import build
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import SpecError
from foretaste.method import Method
from foretaste.record import CertifiedScores, Estimate, Guarded, ProbeScores, Repaired, Scanned, Screening, TargetScores
from foretaste.runtime import fixed_threads

Entry = Screening | CertifiedScores | Repaired | Guarded | Scanned


@dataclass(frozen=True)
class Comparison:
    """A victim beside the same one after an attack, over the same test rows.

    Attributes:
        probes: by key, the headline first.
        target: what became of the chosen image; None where none was named.
    """

    probes: dict[str, ProbeScores]
    target: TargetScores | None = None

    @property
    def clean(self) -> Estimate:
        """Accuracy of the headline probe without the attack."""
        return self._headline.clean

    @property
    def poisoned(self) -> Estimate:
        """Accuracy of the headline probe after it."""
        assert self._headline.poisoned is not None
        return self._headline.poisoned

    @property
    def change(self) -> Estimate:
        """After minus before, paired over the test rows; negative where the attack did harm."""
        assert self._headline.change is not None
        return self._headline.change

    @property
    def _headline(self) -> ProbeScores:
        return next(iter(self.probes.values()))


@fixed_threads()
def compare(
    victim: Victim, attacked: Victim, *, target: int | None = None, wanted: int | str | None = None
) -> Comparison:
    """Both accuracies with intervals and the paired change, for every probe.

    Args:
        victim: without the attack.
        attacked: with it.
        target: test row that the attack was after, if any.
        wanted: class that it was to get: number or name.

    Raises:
        SpecError: the victims have other test rows or other probes; or no such row or class.
    """
    a_victim("compare", victim)
    a_victim("compare", attacked)
    _same_rows(victim, attacked)
    if victim.predictions.keys() != attacked.predictions.keys():
        got = f"{', '.join(victim.predictions)} and {', '.join(attacked.predictions)}"
        raise SpecError("compare: two victims with the same probes", got=got)
    pair = _pair(victim, target, wanted)
    if pair is not None and victim.setting.images is None:
        raise SpecError(
            "compare: no target, since the victims have no images", got=f"target={target}", do="leave it out"
        )
    probes = {
        key: compare_predictions(before, attacked.predictions[key], victim.truth)
        for key, before in victim.predictions.items()
    }
    return Comparison(probes, None if pair is None else target_scores(attacked, victim, pair))


@fixed_threads()
def evaluate(
    defence: str | type[Method] | Method,
    victim: Victim,
    *,
    baseline: Victim | None = None,
    target: int | None = None,
    wanted: int | str | None = None,
    other: Encoder | str | None = None,
    null: str | Path | None = None,
    seed: int = 0,
    **fields: Any,
) -> Entry:
    """What a defence makes of a victim.

    Args:
        defence: a name (`foretaste list`), `file.py:Class`, a class, or a configured value.
        victim: attacked or not.
        baseline: the same victim without the attack, which gives base rates and paired changes; None: `victim` itself
            is the one that nobody attacked.
        target: test row that the attack was after, for repairs, guards and scans.
        wanted: class that it was to get: number or name.
        other: a second encoder, of another origin, for agreement and neighbours: one that was built, or its name.
        null: folder of clean encoders of the victim's architecture, for the false-alarm rates of scans.
        seed: of the repairs that train, and of the probes.
        fields: of the defence, where it is a name or a class, as in `foretaste list NAME`.

    Returns:
        As in the record of an audit: `Screening` of a filter, `CertifiedScores`, `Repaired`, `Guarded` or `Scanned`.

    Raises:
        SpecError: an unknown defence or field, one that does not fit the victim, or victims with other test rows.
        DataError: the defence cannot work with so few rows or clean images.

    >>> import numpy as np, foretaste as ft
    >>> y = np.arange(300) % 3
    >>> X = np.random.default_rng(0).normal(size=(300, 5)) + np.eye(3, 5)[y] * 3
    >>> found = ft.evaluate("sphere", ft.Victim.from_features(X, y))
    >>> [alarm.rate for alarm in found.alarms]
    [0.01, 0.05]
    """
    a_victim("evaluate", victim)
    if baseline is None and victim.attacked:
        raise SpecError(
            "evaluate: the victim without the attack, beside one that was attacked",
            got="none",
            do="pass it as baseline=",
        )
    if baseline is not None:
        _same_rows(a_victim("evaluate: baseline", baseline, clean=True), victim)
    seed = a_whole("seed", seed, 0)
    method: Method = configured(table, defence, fields, "evaluate")
    if victim.setting.images is None and isinstance(method, tuple(OF_ENCODERS.values())):
        raise SpecError(
            "a defence of the training rows, since the victim has no encoder",
            got=method.name,
            do="use Victim.from_data",
        )
    if isinstance(other, str):
        other = build(EncoderSpec(reference=other), victim.setting.sample)
    evaluator = _evaluator(method, victim, other, null)
    pair = _pair(victim, target, wanted)
    beside = None if baseline is None else Baseline(baseline)
    case = Case(seed if beside is not None else 0, pair, () if pair is None else (pair,))
    found = evaluator.run(victim, beside, case)
    (entries,) = evaluator.findings(victim, found, beside, case).entries.values()
    entry: Entry = entries[MethodSpec.key_of(method)]
    return entry


def _evaluator(method: Method, victim: Victim, other: Encoder | None, null: str | Path | None) -> Evaluator[Any, Any]:
    """The evaluator of the defence's kind, with that defence alone."""
    key, setting = MethodSpec.key_of(method), victim.setting
    if null is not None and not isinstance(method, Scan):
        raise SpecError("null: a scan, which compares with clean encoders", got=method.name, do="leave it out")

    def compared() -> NullEncoders:
        if null is None:
            return NullEncoders()
        card = setting.original.card
        spec = EncoderSpec(reference=card.architecture, **card.options)
        return NullEncoders.opened(tuple(null_files(Path(null))), spec, setting)

    kinds: Mapping[type[Method], Callable[[], Evaluator[Any, Any]]] = {
        Filter: lambda: FilterEvaluator({key: method}),  # type: ignore[dict-item]
        CertifiedHead: lambda: CertifiedEvaluator({key: method}).resolved(setting),  # type: ignore[dict-item]
        Repair: lambda: RepairEvaluator.opened({key: method}),  # type: ignore[dict-item]
        Guard: lambda: GuardEvaluator({key: method}, other),  # type: ignore[dict-item]
        Scan: lambda: ScanEvaluator({key: method}, other, compared()),  # type: ignore[dict-item]
    }
    if isinstance(method, Repair):
        method.check(setting.clean_images)
    return next(make for kind, make in kinds.items() if isinstance(method, kind))()


def _pair(victim: Victim, target: int | None, wanted: int | str | None) -> tuple[int, int] | None:
    if target is None and wanted is None:
        return None
    if target is None or wanted is None:
        raise SpecError("target and wanted", got="one of them", do="pass both, or neither")
    return pair_of(victim, target, wanted)


def _same_rows(one: Victim, other: Victim) -> None:
    if one.setting.inputs()["test"] != other.setting.inputs()["test"]:
        raise SpecError(
            "two victims with the same test rows", got="other test rows", do="compare a victim with its own"
        )
