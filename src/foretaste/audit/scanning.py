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

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretaste.audit.behind import Behind, Stage
from foretaste.defences.scans.base import Finding, Scene
from foretaste.errors import ForetasteError
from foretaste.features.cache import FeatureCache, cached_embed
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.record import Scanned
from foretaste.statistics import false_alarm_rate

if TYPE_CHECKING:
    from foretaste.audit.pipeline import Pipeline
    from foretaste.encoders.base import Encoder


@dataclass(frozen=True, eq=False)
class Sighting:
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


def sighted(
    pipeline: Pipeline, poisoned: Behind, twin: Behind, chosen: tuple[int, ...], stage: Stage
) -> dict[str, Sighting]:
    """What every scan of the audit sees, by its key; one that fails is said so and no more.

    Args:
        pipeline: the victim's.
        poisoned: behind the encoder of the run.
        twin: behind the encoder without the attack.
        chosen: test rows that the run is for.
        stage: a clock.
    """
    found = {}
    for key in pipeline.encoder_defences.scans:
        try:
            found[key] = _see(pipeline, key, poisoned, twin, chosen, stage)
        except ForetasteError as error:
            found[key] = Sighting(None, None, [], 0, chosen, " ".join(str(error).split()))
    return found


def sighted_twin(pipeline: Pipeline, twin: Behind, stage: Stage) -> dict[str, Sighting]:
    """The same in the clean encoder, without a chosen image.

    Raises:
        ForetasteError: a scan cannot work with it, with the null, or with so few clean images.
    """
    return {key: _see(pipeline, key, twin, twin, (), stage) for key in pipeline.encoder_defences.scans}


def scanned(pipeline: Pipeline, key: str, found: Sighting, pair: tuple[int, int] | None = None) -> Scanned:
    """The record's entry of one scan; `pair`: (test row, wanted class) of the trial, None in the clean twin."""
    entry = pipeline.encoder_defences.scans[key].entry()
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


def scan_warnings(pipeline: Pipeline) -> list[str]:
    """What the scores of scans cannot say."""
    if not pipeline.encoder_defences.scans or pipeline.encoder_defences.null:
        return []
    return ["scans: no false-alarm rate without clean encoders to compare with (--null); scores alone say nothing"]


def _see(
    pipeline: Pipeline, key: str, suspect: Behind, twin: Behind, chosen: tuple[int, ...], stage: Stage
) -> Sighting:
    defences = pipeline.encoder_defences
    scan = defences.scans[key]
    # Without scores of images the chosen ones are nothing to it, and all but the suspect is scanned once.
    chosen = chosen if scan.scores_inputs else ()
    scene = _scene(pipeline, suspect, chosen)
    blind = _Held(**{**vars(scene), "evidence": False})

    def null() -> list[Finding]:
        assert pipeline.images is not None
        assert pipeline.encoder is not None
        sample = (pipeline.images.test.pixels.shape[2], pipeline.images.test.pixels.shape[3])
        encoders = defences.clean_encoders(pipeline.encoder, sample)
        return [scan.scan(one.to(pipeline.runtime.device), blind) for one in encoders]

    with stage("scans"):
        # The chosen rows are part of the key: the images must be the same for all that are compared.
        kept, digest = defences.recent if chosen else defences.shared, twin.encoder.sha256()
        others: list[Finding] = kept.get((key, "null", chosen), null)
        clean: Finding = kept.get((key, digest, chosen), lambda: scan.scan(twin.encoder, blind))
        own = scan.scan(suspect.encoder, scene)
    own, *against = scan.compare([own, *others])
    clean = scan.compare([clean, *others])[0]
    assert scene.images is not None
    return Sighting(own, clean, [one.score for one in against], len(scene.images), chosen)


def _scene(pipeline: Pipeline, suspect: Behind, chosen: tuple[int, ...]) -> _Held:
    assert pipeline.images is not None
    own, test = pipeline.images.clean, pipeline.images.test
    rows = list(chosen)
    images = Images(
        torch.cat([own.pixels, test.pixels[rows]]),
        torch.cat([own.labels, test.labels[rows]]),
        own.classes,
        own.name,
    )
    return _Held(
        pipeline.runtime,
        images,
        pipeline.encoder,
        pipeline.encoder_defences.other,
        FeatureCache(),
        own=own,
        suspect=suspect.encoder,
    )
