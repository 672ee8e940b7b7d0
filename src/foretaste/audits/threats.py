"""The four threats: how the result of an attack becomes another victim, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from foretaste.attacks.base import (
    Attack,
    LabelledAttack,
    PretrainingAttack,
    Progress,
    TargetedAttack,
    WeightAttack,
    part,
    quiet,
)
from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.audits.artifacts import gallery, project
from foretaste.audits.baseline import Baseline
from foretaste.audits.crafted import Crafted
from foretaste.audits.evaluators.base import Faces
from foretaste.audits.prepare import PreparedAudit
from foretaste.audits.run_cache import RunCache
from foretaste.audits.victim import Stage, Victim, poison_features
from foretaste.encoders.base import Encoder
from foretaste.images import Images
from foretaste.pretrain.continued import continued
from foretaste.record import Check, Ledger
from foretaste.record import Threat as ThreatName
from foretaste.runtime import digest_tensors


@dataclass(frozen=True, eq=False)
class Attacked:
    """A victim after an attack, as several trials may share it.

    Attributes:
        ledger: what the attack says.
        checks: what the referee found.
        victim: None where the referee refused the result.
        baseline: what it is compared with; None likewise.
        digests: of the poison, and of the encoder that it gave.
        shown: further fields of the record: images and a projection.
        triggered: the test rows with the attack's trigger on them, uint8 [k, 3, H, W]; None: it has no trigger.
        outcomes: what evaluators made of the victim, by kind; filled by the first trial.
    """

    ledger: Ledger
    checks: list[Check]
    victim: Victim | None = None
    baseline: Baseline | None = None
    digests: dict[str, str] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    triggered: Tensor | None = None
    outcomes: RunCache[Any] = field(default_factory=lambda: RunCache(16))


@dataclass(frozen=True)
class Threat:
    """What an attacker of one kind reaches.

    Attributes:
        name: in the record.
        attack: base class of its attacks.
        faces: what it changes, and so which defences have something to do.
        apply: the attacked victim of a result that the referee passed, without ledger and checks.
        shares: whether every trial's run is kept for the next one of the same run, or only that of a group.
    """

    name: ThreatName
    attack: type[Attack]
    faces: Faces
    apply: Callable[[PreparedAudit, Crafted, Stage, Progress], dict[str, Any]]
    shares: bool = False


def threat_of(attack: Attack) -> Threat:
    """The threat that an attack belongs to."""
    return next(threat for threat in THREATS.values() if isinstance(attack, threat.attack))


def _poisoned(prepared: PreparedAudit, crafted: Crafted, stage: Stage, progress: Progress) -> dict[str, Any]:
    """Rows of the head's training data: every probe is fitted anew."""
    poisoning = crafted.result
    assert isinstance(poisoning, Poisoning)
    victim = prepared.victim.poisoned(poisoning, crafted.order.seed, stage)
    shown = {
        "exhibits": gallery(crafted.view.images, poisoning),
        "projection": project(prepared.setting.train, poison_features(victim), poisoning.y),
    }
    return {
        "victim": victim,
        "baseline": prepared.baseline,
        "digests": {"poison": digest_tensors(content_of(poisoning))},
        "shown": shown,
    }


def _edited(prepared: PreparedAudit, crafted: Crafted, stage: Stage, progress: Progress) -> dict[str, Any]:
    """The encoder's weights: every probe is fitted anew behind them."""
    corruption, attack = crafted.result, crafted.attack
    assert isinstance(corruption, Corruption)
    assert isinstance(attack, WeightAttack)
    return {
        "victim": prepared.victim.edited(corruption, crafted.order.seed, stage),
        "baseline": prepared.baseline,
        "digests": {"poisoned encoder": digest_tensors(corruption.state)},
        "triggered": attack.stamped(prepared.setting.split.test.pixels.clone()),
    }


def _pretrained(prepared: PreparedAudit, crafted: Crafted, stage: Stage, progress: Progress) -> dict[str, Any]:
    """Pre-training images: the encoder goes on learning from them, and every probe is fitted anew.

    The baseline is the encoder that went on learning from the same images without poison, by the same seed: what more
    pre-training does by itself (to the accuracy, and to the one image) is no success of the attack.
    """
    poison, seed = crafted.result, crafted.order.seed
    assert isinstance(poison, PretrainingPoison)
    assert prepared.pool is not None
    images = prepared.pool.poisoned(poison.pixels)
    encoder = _continued(prepared, images, seed, stage, part(progress, 0, 0.5))
    victim = prepared.victim.behind(encoder, seed, stage)

    def without_poison() -> Baseline:
        assert prepared.pool is not None
        clean = _continued(prepared, prepared.pool.images, seed, stage, part(progress, 0.5, 1))
        return Baseline(prepared.victim.behind(clean, seed, stage))

    baseline = prepared.continued.get(seed, without_poison)
    return {
        "victim": victim,
        "baseline": baseline,
        "digests": {
            "poison": digest_tensors({"pixels": poison.pixels}),
            "poisoned encoder": encoder.sha256(),
            "continued encoder": baseline.victim.used_encoder.sha256(),
        },
    }


def _continued(prepared: PreparedAudit, images: Images, seed: int, stage: Stage, progress: Progress = quiet) -> Encoder:
    """The victim's encoder after more pre-training on the images."""
    assert prepared.pool is not None

    def told(done: int, total: int, loss: float = 0.0) -> None:
        progress(done, total)

    setting = prepared.setting
    with stage("pre-training"):
        return continued(setting.original, images, prepared.pool.method, seed, setting.runtime, told)


def content_of(poisoning: Poisoning) -> Mapping[str, Tensor]:
    """What the digest of a poisoning is of."""
    rows = poisoning.z if poisoning.pixels is None else poisoning.pixels
    assert rows is not None
    return {"rows": rows, "y": poisoning.y}


THREATS: dict[str, Threat] = {
    "labelled": Threat("labelled", LabelledAttack, "rows", _poisoned),
    "targeted": Threat("targeted", TargetedAttack, "rows", _poisoned),
    "pretraining": Threat("pretraining", PretrainingAttack, "encoder", _pretrained, shares=True),
    "weights": Threat("weights", WeightAttack, "encoder", _edited),
}
