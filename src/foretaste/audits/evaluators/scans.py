"""The defender's scans in an audit: what do they make of the poisoned encoder, of the clean one and of a null?

What a defender can look at are images of its own. It does not hold the referee's test rows, but whoever is after an
image mostly is after one that its owner has: so the images are the defender's clean part and, at its end, the images
that the attack's run is for, with their true labels. How far up the list of suspicious images such an image comes is
the rank. A scan that scores no images sees the clean part alone. `drift` compares with the encoder as it was before
any attack: a defender who holds the original.

The clean encoder and every encoder of the null go through the same scan on the same images, which makes them
exchangeable with the suspect if that is clean (see `statistics.false_alarm_rate`). Features of the clean part are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from foretaste.audits.evaluators.base import Beside, Case, Evaluator, Faces, Findings, each
from foretaste.audits.run_cache import RunCache
from foretaste.audits.scan_once import like
from foretaste.audits.setting import Setting
from foretaste.audits.victim import Victim
from foretaste.defences.scans.base import Finding, Scan, Scene
from foretaste.encoders.base import Encoder
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import SpecError
from foretaste.features.cache import FeatureCache, cached_embed
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.record import Scanned, digest_of
from foretaste.statistics import false_alarm_rate

NO_NULL = "scans: no false-alarm rate without clean encoders to compare with (--null); scores alone say nothing"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one scan saw, with scores beside the null.

    Attributes:
        own: in the encoder of the run; None where the scan failed.
        clean: in the encoder without the attack.
        null: scores of the clean encoders.
        images: that the defender held.
        chosen: test rows at their end, in that order.
        error: why the scan failed.
    """

    own: Finding | None
    clean: Finding | None
    null: list[float]
    images: int
    chosen: tuple[int, ...]
    error: str = ""


@dataclass(frozen=True, eq=False)
class NullEncoders:
    """Clean encoders that scans compare with.

    Attributes:
        paths: their files.
        digests: of their weights, in the same order.
        spec: how the victim's encoder was built, as they are.
    """

    paths: tuple[Path, ...] = ()
    digests: tuple[str, ...] = ()
    spec: EncoderSpec | None = None

    @classmethod
    def opened(cls, paths: tuple[Path, ...], spec: EncoderSpec, setting: Setting) -> NullEncoders:
        """Each of them looked at once.

        Raises:
            SpecError: one of them is the victim's own encoder.
            EncoderError: one cannot be used.
        """
        found, digests = cls(paths, spec=spec), []
        for path, one in zip(paths, found.each(setting), strict=True):
            digests.append(one.card.sha256)
            if one.card.sha256 == setting.original.card.sha256:
                raise SpecError("null: clean encoders, none of them the audited one", got=str(path), do="take it out")
        return replace(found, digests=tuple(digests))

    def each(self, setting: Setting) -> Iterator[Encoder]:
        """One encoder at a time: they may be many."""
        for path in self.paths:
            assert self.spec is not None
            yield like(setting.original, self.spec, path, setting.sample, "null")


@dataclass(frozen=True, eq=False)
class ScanEvaluator(Evaluator[Scan, Outcome]):
    """Scans of the encoder.

    Attributes:
        other: the defender's second encoder; None: it has none.
        null: clean encoders.
        kept: what scans make of clean encoders, for all trials.
        recent: the same of scans on images that are of one run.
    """

    kind: ClassVar[str] = "scan"
    faces: ClassVar[Faces] = "encoder"
    defences: dict[str, Scan] = field(default_factory=dict)
    other: Encoder | None = None
    null: NullEncoders = field(default_factory=NullEncoders)
    kept: RunCache[Any] = field(default_factory=lambda: RunCache(256))
    recent: RunCache[Any] = field(default_factory=lambda: RunCache(8))

    def run(self, victim: Victim, beside: Beside | None, case: Case) -> dict[str, Outcome]:
        """See `Evaluator.run`; the baseline is scanned without a chosen image."""
        clean = victim if beside is None else beside.victim

        def failed(reason: str) -> Outcome:
            return Outcome(None, None, [], 0, case.rows, reason)

        return each(self.defences, lambda key: self._see(key, victim, clean, case), failed, tolerant=beside is not None)

    def findings(self, victim: Victim, found: dict[str, Outcome], beside: Beside | None, case: Case) -> Findings:
        """See `Evaluator.findings`."""
        entries = {key: self._entry(key, one, case.pair) for key, one in found.items()}
        return Findings(
            {"scanned": entries}, warnings=[NO_NULL] if beside is None and found and not self.null.paths else []
        )

    def digests(self) -> dict[str, str]:
        """See `Evaluator.digests`."""
        return {"null": digest_of(list(self.null.digests))} if self.null.digests else {}

    def _entry(self, key: str, found: Outcome, pair: tuple[int, int] | None) -> Scanned:
        entry = self.defences[key].entry()
        if found.own is None or found.clean is None:
            return Scanned(scan=entry, images=found.images, error=found.error)
        start = Scanned(
            scan=entry,
            images=found.images,
            score=found.own.score,
            clean_score=found.clean.score,
            null_scores=found.null,
            false_alarm_rate=false_alarm_rate(found.own.score, found.null),
            evidence=found.own.evidence,
        )
        if pair is None or found.own.inputs is None:
            return start
        row, wanted = pair
        clean = found.images - len(found.chosen)
        place, scores = clean + found.chosen.index(row), found.own.inputs
        towards = None if found.own.towards is None else int(found.own.towards[place])
        return start.model_copy(
            update={
                "rank": 1 + int((scores[:clean] >= scores[place]).sum()),
                "inputs": clean + 1,
                "towards": towards,
                "towards_target": None if towards is None else towards == wanted,
            }
        )

    def _see(self, key: str, suspect: Victim, clean: Victim, case: Case) -> Outcome:
        scan, setting = self.defences[key], suspect.setting
        # Without scores of images the chosen ones are nothing to it, and all but the suspect is scanned once.
        chosen = case.rows if scan.scores_inputs else ()
        scene = self._scene(setting, suspect.used_encoder, chosen)
        blind = _Held(**{**vars(scene), "evidence": False})

        def null() -> list[Finding]:
            return [scan.scan(one.to(setting.runtime.device), blind) for one in self.null.each(setting)]

        with case.stage("scans"):
            # The chosen rows are part of the key: the images must be the same for all that are compared.
            kept, digest = self.recent if chosen else self.kept, clean.used_encoder.sha256()
            others: list[Finding] = kept.get((key, "null", chosen), null)
            without: Finding = kept.get((key, digest, chosen), lambda: scan.scan(clean.used_encoder, blind))
            own = scan.scan(suspect.used_encoder, scene)
        own, *against = scan.compare([own, *others])
        without = scan.compare([without, *others])[0]
        assert scene.images is not None
        return Outcome(own, without, [one.score for one in against], len(scene.images), chosen)

    def _scene(self, setting: Setting, suspect: Encoder, chosen: tuple[int, ...]) -> _Held:
        own, test, rows = setting.clean_images, setting.split.test, list(chosen)
        images = Images(
            torch.cat([own.pixels, test.pixels[rows]]),
            torch.cat([own.labels, test.labels[rows]]),
            own.classes,
            own.name,
        )
        return _Held(setting.runtime, images, setting.encoder, self.other, FeatureCache(), own=own, suspect=suspect)


@dataclass(frozen=True, eq=False)
class _Held(Scene):
    """The defender's clean images and some more; features of the former are kept beyond this run where they may be.

    Attributes:
        own: the clean part.
        suspect: its features are of this run alone, and are kept no longer.
        kept: features of the suspect.
    """

    own: Images | None = None
    suspect: Encoder | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)

    def features(self, encoder: Encoder, name: str) -> Tensor:
        """See `Scene.features`."""
        images = self.require_images(name)
        assert self.own is not None
        if encoder is self.suspect:
            if "z" not in self.kept:
                self.kept["z"] = embed(encoder, images.pixels, self.runtime)
            return self.kept["z"]
        own = cached_embed(encoder, self.own, self.runtime, self.cache)
        more = images.pixels[len(self.own) :]
        return torch.cat([own, embed(encoder, more, self.runtime)]) if len(more) else own
