"""Make ready for an audit's trials: data, encoder and features, the clean victim, who attacks it and who defends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

from foretaste.audits.auxiliary_data import Pool, open_pool, open_shadow
from foretaste.audits.baseline import Baseline
from foretaste.audits.defender import Defender, configured_defences, defend
from foretaste.audits.inputs import embed_setting, load_setting, precision_of, silent
from foretaste.audits.knowledge import AttackerView, know
from foretaste.audits.parts import Note
from foretaste.audits.run_cache import RunCache
from foretaste.audits.setting import Setting
from foretaste.audits.spec import AuditSpec
from foretaste.audits.victim import Victim
from foretaste.data.split import Split
from foretaste.features.cache import FeatureCache
from foretaste.images import Images


@dataclass(frozen=True, eq=False)
class PreparedAudit:
    """All that the trials of an audit share.

    Attributes:
        spec: the audit, with `precision` resolved.
        baseline: the victim that nobody attacked, with what every defence makes of it.
        view: what the attacker of the labelled data knows.
        defender: its evaluators, one per kind of defence.
        pool: what the encoder goes on learning from; None where no attack on that is part of the audit.
        runs: of attacks on the encoder that trials share.
        continued: baselines whose encoder went on learning without poison, by seed.
        seconds: spent on each stage.
        notes: what the record should say about the victim itself.
    """

    spec: AuditSpec
    baseline: Baseline
    view: AttackerView
    defender: Defender
    pool: Pool | None = None
    runs: RunCache[Any] = field(default_factory=lambda: RunCache(1))
    continued: RunCache[Baseline] = field(default_factory=lambda: RunCache(16))
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def victim(self) -> Victim:
        """The one that nobody attacked."""
        return self.baseline.victim

    @property
    def setting(self) -> Setting:
        """What no attack changes."""
        return self.baseline.victim.setting

    def inputs(self) -> dict[str, str]:
        """Digests of everything that a trial starts from; the same on every machine."""
        own = self.setting.inputs()
        if self.setting.images is None:
            return own
        other = self.view.encoder
        surrogate = {"attacker encoder": other.card.sha256} if other is not None and self.view.surrogate else {}
        images = {"pretraining": self.view.pool, "shadow": self.view.shadow}
        more = {name: one.digest for name, one in images.items() if one is not None}
        return {**own, **surrogate, **more, **self.defender.digests()}

    def digests(self) -> dict[str, str]:
        """`inputs`, and the digests of the features that this machine made of them."""
        return self.inputs() | {f"{name} features": part.digest for name, part in self.setting.parts.items()}


def prepare(spec: AuditSpec, note: Note = silent) -> PreparedAudit:
    """Load, embed and fit.

    Raises:
        ForetasteError: bad data, a bad encoder or a setting that does not fit them.
    """
    defences = configured_defences(spec)
    seconds: dict[str, float] = {}
    cache, pool, shadow = FeatureCache(), None, None
    with _timed(seconds, "load"):
        setting = load_setting(spec)
        if setting.images is not None:
            pool, shadow = _pool(spec, setting.images), _shadow(spec, setting.images)
        defender = defend(spec, setting)
    if setting.images is not None:
        with _timed(seconds, "embed"):
            setting = embed_setting(spec, setting, cache, note)
        spec = spec.model_copy(update={"precision": precision_of(setting.runtime)})
    with _timed(seconds, "attacker"):
        lent = None if pool is None else pool.images
        view = know(spec.attacker, spec.split.seed, setting, cache, note, lent, shadow)
    if spec.attacker.default:
        del seconds["attacker"]
    baseline = Baseline(Victim.clean(setting))
    with _timed(seconds, "fit"):
        note("fit", 0, 1)
        baseline.victim.ready()
        baseline.outcomes(defender.preprocessing)
    with _timed(seconds, "defences"):
        baseline.outcomes(defender.filters, progress=partial(note, "defences"))
        defender = defender.resolved(setting)
        baseline.outcomes(defender.certified, progress=partial(note, "certified"))
    if not defences:
        del seconds["defences"]
    notes = (cache.problem,) if cache.problem else ()
    return PreparedAudit(spec, baseline, view, defender, pool, seconds=seconds, notes=notes)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[stage] = perf_counter() - start


def _pool(spec: AuditSpec, images: Split) -> Pool | None:
    if spec.pretraining is None:
        return None
    return open_pool(spec.pretraining, images.test, spec.data_dir, download=spec.download)


def _shadow(spec: AuditSpec, images: Split) -> Images | None:
    if spec.shadow is None:
        return None
    return open_shadow(spec.shadow, images.test, spec.data_dir, download=spec.download)
