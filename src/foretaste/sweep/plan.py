"""Which trials an audit consists of, and about how long they take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from foretaste import attacks as table
from foretaste.attacks.base import LabelledAttack, WeightAttack, poisoned_rows, require_replaceable
from foretaste.audit.attacker import AttackerSpec
from foretaste.audit.pipeline import Pipeline
from foretaste.audit.screening import RATES
from foretaste.audit.spec import AuditSpec, MethodSpec, TrialSpec
from foretaste.errors import SpecError
from foretaste.features.embed import embed
from foretaste.heads.fit import fit_head
from foretaste.runtime import generator


@dataclass(frozen=True)
class Trial:
    """A cell of the grid with the attack that fills it; no attack is the clean twin."""

    spec: TrialSpec
    attack: LabelledAttack | WeightAttack | None

    @property
    def label(self) -> str:
        """What progress calls it."""
        if self.attack is None:
            return "clean twin"
        name = self.attack.name + (f" ({self.attack.variant})" if self.attack.variant else "")
        if self.spec.target is not None:
            return f"{name}, test row {self.spec.target[0]} to class {self.spec.target[1]}"
        return f"{name} at {self.spec.budget:.3g}, seed {self.spec.seed}"

    @property
    def flags(self) -> list[str]:
        """Flags of `foretaste audit` under which this trial is in the grid, and no more than needed."""
        if self.attack is None:
            return []
        flags = ["--attacks", str(MethodSpec.of(self.attack))]
        if self.spec.target is not None:
            return [*flags, "--targets", str(self.spec.seed + 1)]
        return [*flags, "--budgets", str(self.spec.budget), "--seeds", str(self.spec.seed + 1)]


def configured(spec: AuditSpec) -> list[LabelledAttack | WeightAttack]:
    """The attacks of an audit, checked before any work.

    Raises:
        SpecError: an unknown attack or field; an attack twice; an attack that needs an encoder where there is none, or
            that cannot work with what the attacker knows; a budget above 1 for one that replaces rows.
    """
    found = [table.configure(method.name, method.fields) for method in spec.attacks]
    entries = [str(attack.entry()) for attack in found]
    if len(set(entries)) < len(entries):
        twice = next(attack.name for attack in found if entries.count(str(attack.entry())) > 1)
        raise SpecError("attacks: each one once", got=f"{twice} twice with the same fields", do="drop one")
    for attack in found:
        if isinstance(attack, LabelledAttack):
            require_replaceable(attack, max(spec.budgets))
    if spec.features is not None:
        for attack in found:
            if isinstance(attack, WeightAttack) or getattr(attack, "carrier", "features") != "features":
                raise SpecError(
                    f"attacks that work on features, since the audit starts from {spec.features}",
                    got=" ".join(filter(None, [attack.name, attack.variant])),
                    do="pass --data and --encoder, or drop that attack",
                )
    for attack in found:
        _fits(attack, spec.attacker)
    return found


def _fits(attack: LabelledAttack | WeightAttack, attacker: AttackerSpec) -> None:
    """What an attacker knows of the labelled data is nothing to an attack on weights; what it writes must be usable."""
    named = " ".join(filter(None, [attack.name, attack.variant]))
    if isinstance(attack, WeightAttack) and not attacker.default:
        raise SpecError(
            "attacks on the labelled data, since `attacker` says what is known of them",
            got=f"{named}, which edits the encoder",
            do="drop that attack, or audit it in a folder of its own",
        )
    if isinstance(attack, LabelledAttack) and attack.replaces and attacker.rows != "full":
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


def plan(pipeline: Pipeline) -> list[Trial]:
    """All trials, the clean twin first, in the order in which they run.

    Raises:
        SpecError: an attack cannot be configured; a budget leaves no row; no pair can be drawn.
    """
    spec = pipeline.spec
    # Probes with all their fields: a default that changes in a later version makes another trial.
    base = {**spec.base(), "probes": [probe.entry() for probe in pipeline.probes.values()]}
    if defences := [*pipeline.filters.values(), *pipeline.certified.values()]:
        base["defences"] = [defence.entry() for defence in defences]
    inputs = pipeline.inputs()
    trials = [Trial(TrialSpec(base=base, inputs=inputs, attack={"name": "none"}), None)]
    for attack in configured(spec):
        if isinstance(attack, WeightAttack):
            cells: Iterator[dict[str, object]] = (
                {"seed": index, "target": pair} for index, pair in enumerate(draw_pairs(pipeline, spec.targets))
            )
        else:
            for budget in spec.budgets:
                poisoned_rows(budget, len(pipeline.train))
            cells = ({"budget": b, "seed": s} for b in spec.budgets for s in range(spec.seeds))
        for cell in cells:
            trials.append(
                Trial(
                    TrialSpec.model_validate({"base": base, "inputs": inputs, "attack": attack.entry(), **cell}), attack
                )
            )
    return trials


def draw_pairs(pipeline: Pipeline, count: int) -> list[tuple[int, int]]:
    """(test row, desired class) pairs that the clean pipeline gets right, at random; the first k of more are the same.

    The referee chooses them: an attack sees the one image and nothing else of the test rows. Classes without a row
    among the attacker's own cannot be asked for.

    Raises:
        SpecError: the clean pipeline gets no test row right.
    """
    rows_of, class_of = generator(0, "targets"), generator(0, "target classes")
    truth = pipeline.test.y.numpy()
    right = np.flatnonzero(pipeline.predictions[pipeline.headline].numpy() == truth)
    owned = np.unique(pipeline.parts["validation"].y.numpy())
    if not len(right):
        raise SpecError("targets: a test row that the clean pipeline gets right", got="none", do="use another encoder")
    if len(owned) < 2:
        raise SpecError("targets: attacker's validation rows of two classes", got="one class", do="pass other shares")
    rows = np.concatenate([rows_of.permutation(right) for _ in range(-(-count // len(right)))])[:count]
    return [(int(row), int(class_of.choice(owned[owned != truth[row]]))) for row in rows]


def estimate_seconds(pipeline: Pipeline, trials: list[Trial]) -> float:
    """A rough time for the trials, from one timed batch, one timed fit and what each attack says it will do."""
    images = pipeline.images
    per_image = 0.0
    if images is not None and pipeline.encoder is not None:
        sample = images.train.pixels[:256]
        start = perf_counter()
        embed(pipeline.encoder, sample, pipeline.runtime)
        per_image = (perf_counter() - start) / len(sample)
    start = perf_counter()
    fit_head(pipeline.train.z, pipeline.train.y, pipeline.classes, pipeline.spec.ridge, tolerance=1e-4)
    per_fit = perf_counter() - start
    known = pipeline.knowledge()
    total = 0.0
    for trial in trials:
        if trial.attack is None:
            continue
        if isinstance(trial.attack, WeightAttack):
            rows = len(pipeline.train) + len(pipeline.test)
            moved = trial.attack.planned(len(known.validation_y))
            total += (3 * moved + rows) * per_image + 2 * per_fit
        else:
            rows = poisoned_rows(trial.spec.budget or 0, len(pipeline.train))
            moved, fits = trial.attack.planned(rows)
            # A filter: a fit at each rate, and scores that cost about two more.
            judged = 1 + len(pipeline.spec.countermeasures) + (len(RATES) + 2) * len(pipeline.filters)
            judged += 2 * len(pipeline.certified)
            total += (3 * moved + rows) * per_image + (fits + judged) * per_fit
    return total
