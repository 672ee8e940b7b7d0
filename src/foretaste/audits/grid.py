"""The grid: which trials an audit consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from foretaste import attacks as table
from foretaste.attacks.base import Attack, LabelledAttack, PretrainingAttack, TargetedAttack, WeightAttack
from foretaste.attacks.budget import poisoned_rows, require_replaceable
from foretaste.audits.adaptive import named_defence, named_encoder_defence
from foretaste.audits.auxiliary_data import budgeted
from foretaste.audits.defender import require_useful
from foretaste.audits.inputs import configured_probes
from foretaste.audits.prepare import PreparedAudit
from foretaste.audits.spec import AuditSpec, Group, MethodSpec, TrialSpec
from foretaste.audits.spec_parts import AttackerSpec
from foretaste.errors import SpecError
from foretaste.pretrain.simclr import SimCLR
from foretaste.probes.base import ImageProbe
from foretaste.runtime import generator


@dataclass(frozen=True)
class Trial:
    """A cell of the grid with the attack that fills it; no attack is the clean twin."""

    spec: TrialSpec
    attack: Attack | None

    @property
    def label(self) -> str:
        """What progress calls it."""
        if self.attack is None:
            return "clean twin"
        name = self.attack.name + (f" ({self.attack.variant})" if self.attack.variant else "")
        at = "" if self.spec.budget is None else f" at {self.spec.budget:.3g}"
        if self.spec.target is not None:
            return f"{name}{at}, test row {self.spec.target[0]} to class {self.spec.target[1]}"
        return f"{name}{at}, seed {self.spec.seed}"

    @property
    def flags(self) -> list[str]:
        """Flags of `foretaste audit` under which this trial is in the grid, and no more than needed."""
        if self.attack is None:
            return []
        flags = ["--attacks", str(MethodSpec.of(self.attack))]
        if self.spec.budget is not None:
            flags += ["--budgets", str(self.spec.budget)]
        if self.spec.target is None:
            return [*flags, "--seeds", str(self.spec.seed + 1)]
        # A group ends with the last pair: with fewer or more of them it would be another group.
        return [*flags, "--targets", str(self.spec.run_seed + len(self.spec.pairs))]


def configured(spec: AuditSpec) -> list[Attack]:
    """The attacks of an audit, checked before any work.

    Raises:
        SpecError: an unknown attack or field; an attack twice; one against a defence that it cannot follow; an attack
            that needs an encoder where there is none, or that cannot work with what the attacker knows; one on
            pre-training images without any; one that writes features beside a probe on images; a budget above 1 for
            one that replaces rows.
    """
    found = [table.configure(method.name, method.fields) for method in spec.attacks]
    entries = [str(attack.entry()) for attack in found]
    if len(set(entries)) < len(entries):
        twice = next(attack.name for attack in found if entries.count(str(attack.entry())) > 1)
        raise SpecError("attacks: each one once", got=f"{twice} twice with the same fields", do="drop one")
    on_images = [key for key, probe in configured_probes(spec).items() if isinstance(probe, ImageProbe)]
    if spec.pretraining is not None:
        SimCLR.configure(**spec.pretraining.fields)
    for attack in found:
        named = " ".join(filter(None, [attack.name, attack.variant]))
        named_defence(attack, map(str, spec.defences))
        named_encoder_defence(attack)
        if isinstance(attack, LabelledAttack | TargetedAttack):
            require_replaceable(attack, max(spec.budgets))
        if spec.features is not None and not on_features(attack):
            raise SpecError(
                f"attacks that work on features, since the audit starts from {spec.features}",
                got=named,
                do="pass --data and --encoder, or drop that attack",
            )
        if isinstance(attack, PretrainingAttack) and spec.pretraining is None:
            raise SpecError(
                f"pretraining: the images that {attack.name} adds to",
                got="none",
                do="pass for instance --pretraining cifar10,limit=5000,epochs=5",
            )
        # An attack without the field writes images wherever it is given some, as label-flip does.
        if on_images and isinstance(attack, LabelledAttack) and getattr(attack, "carrier", "pixels") == "features":
            raise SpecError(
                f"attacks that deliver images, since {on_images[0]} trains on them",
                got=f"{named}, which writes features",
                do="pass for instance exact:carrier=pixels, or drop that probe",
            )
        _fits(attack, named, spec.attacker)
    require_useful(spec, any(isinstance(attack, WeightAttack | PretrainingAttack) for attack in found))
    return found


def on_features(attack: Attack) -> bool:
    """Whether an attack does without images and an encoder."""
    return isinstance(attack, LabelledAttack) and getattr(attack, "carrier", "features") == "features"


def _fits(attack: Attack, named: str, attacker: AttackerSpec) -> None:
    """What an attacker knows of the labelled data is nothing to an attack on weights; what it writes must be usable."""
    if isinstance(attack, WeightAttack | PretrainingAttack) and not attacker.default:
        raise SpecError(
            "attacks on the labelled data, since `attacker` says what is known of them",
            got=f"{named}, which " + ("edits the encoder" if isinstance(attack, WeightAttack) else "adds other images"),
            do="drop that attack, or audit it in a folder of its own",
        )
    if isinstance(attack, LabelledAttack | TargetedAttack) and attack.replaces and attacker.rows != "full":
        raise SpecError(
            "attacks that add rows, since the attacker does not know all training rows",
            got=named,
            do="drop that attack, or --attacker-rows",
        )
    # An attack without the field writes images wherever it is given some, as label-flip does; the referee sees to it.
    if attacker.encoder is not None and getattr(attack, "carrier", "pixels") == "features":
        raise SpecError(
            "attacks that deliver images, since the attacker's encoder is not the victim's",
            got=f"{named}, which writes features of an encoder that the victim does not use",
            do="pass for instance exact:carrier=pixels",
        )


def plan(prepared: PreparedAudit) -> list[Trial]:
    """All trials, the clean twin first, in the order in which they run.

    Raises:
        SpecError: an attack cannot be configured; a budget leaves no row; no pair can be drawn.
    """
    spec = prepared.spec
    # Probes with all their fields: a default that changes in a later version makes another trial.
    base = {**spec.base(), "probes": [probe.entry() for probe in prepared.setting.probes.values()]}
    if defences := prepared.defender.entries():
        base["defences"] = defences
    if prepared.pool is not None:
        base["pretraining"] |= prepared.pool.method.entry()
    inputs = prepared.inputs()
    trials = [Trial(TrialSpec(base=base, inputs=inputs, attack={"name": "none"}), None)]
    for attack in configured(spec):
        for cell in _cells(prepared, attack):
            chosen = {"base": base, "inputs": inputs, "attack": attack.entry(), **cell}
            trials.append(Trial(TrialSpec.model_validate(chosen), attack))
    return trials


def _cells(prepared: PreparedAudit, attack: Attack) -> list[dict[str, Any]]:
    """Budgets x seeds, budgets x pairs, or pairs: what distinguishes the trials of one attack."""
    spec = prepared.spec
    if isinstance(attack, LabelledAttack | TargetedAttack):
        for budget in spec.budgets:
            poisoned_rows(budget, len(prepared.setting.train))
    if isinstance(attack, LabelledAttack):
        return [{"budget": budget, "seed": seed} for budget in spec.budgets for seed in range(spec.seeds)]
    pairs = draw_pairs(prepared, spec.targets)
    groups = grouped(pairs, getattr(attack, "together", 1))
    cells: list[dict[str, Any]] = [
        {"seed": index, "target": pair, "group": group}
        for index, (pair, group) in enumerate(zip(pairs, groups, strict=True))
    ]
    if isinstance(attack, WeightAttack):
        return cells
    if isinstance(attack, PretrainingAttack):
        assert prepared.pool is not None
        for budget in spec.budgets:
            budgeted(budget, len(prepared.pool.images), min(attack.together, len(pairs)))
    return [{"budget": budget, **cell} for budget in spec.budgets for cell in cells]


def grouped(pairs: list[tuple[int, int]], together: int) -> list[Group | None]:
    """For each pair the consecutive pairs that share its run, at most `together`; None for one on its own.

    >>> [group and group.first for group in grouped([(4, 0), (5, 1), (6, 2)], 2)]
    [0, 0, None]
    """
    found: list[Group | None] = []
    for first in range(0, len(pairs), together):
        own = tuple(pairs[first : first + together])
        found += [Group(first=first, pairs=own) if len(own) > 1 else None] * len(own)
    return found


def draw_pairs(prepared: PreparedAudit, count: int) -> list[tuple[int, int]]:
    """(test row, desired class) pairs that the clean pipeline gets right, at random; the first k of more are the same.

    The referee chooses them: an attack sees the one image and nothing else of the test rows. Classes without an image
    that the attacker holds cannot be asked for.

    Raises:
        SpecError: the clean pipeline gets no test row right.
    """
    rows_of, class_of = generator(0, "targets"), generator(0, "target classes")
    truth = prepared.setting.test.y.numpy()
    right = np.flatnonzero(prepared.victim.predictions[prepared.setting.headline].numpy() == truth)
    held = prepared.setting.parts["train" if prepared.spec.references == "training" else "validation"]
    owned = np.unique(held.y.numpy())
    if not len(right):
        raise SpecError("targets: a test row that the clean pipeline gets right", got="none", do="use another encoder")
    if len(owned) < 2:
        raise SpecError("targets: attacker's validation rows of two classes", got="one class", do="pass other shares")
    rows = np.concatenate([rows_of.permutation(right) for _ in range(-(-count // len(right)))])[:count]
    return [(int(row), int(class_of.choice(owned[owned != truth[row]]))) for row in rows]
