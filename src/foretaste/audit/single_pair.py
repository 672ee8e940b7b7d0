"""One attack on one chosen image, written to a file: on weights, on labelled rows, or on pre-training images."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from foretaste.attacks.base import Attack, PretrainingAttack, Progress, TargetedAttack, WeightAttack
from foretaste.attacks.budget import poisoned_rows, require_replaceable
from foretaste.attacks.knowledge import EditProblem
from foretaste.audit.adaptive import encoder_surrogate, named_encoder_defence
from foretaste.audit.auxiliary_data import budgeted, open_pool
from foretaste.audit.request import (
    Request,
    class_of,
    encoder_of,
    known_images,
    last_channel,
    save,
    save_poisoning,
    told,
)
from foretaste.data import load, split
from foretaste.encoders.weights import save_encoder
from foretaste.errors import SpecError
from foretaste.images import Images
from foretaste.runtime import digest_tensors, make_runtime


def craft_weights(method: WeightAttack, request: Request, out: Path, progress: Progress) -> list[str]:
    """A complete encoder file with the poisoned weights, see `single.craft`."""
    if request.features is not None or request.data is None or request.encoder is None:
        raise SpecError(f"{method.name}: --data and --encoder", got="features from a file", do="it edits an encoder")
    if request.budget is not None or request.validation is not None:
        said = "--budget" if request.budget is not None else "--validation"
        raise SpecError(f"{method.name}: no budget and no validation file", got=said, do="it adds no row; leave it out")
    refuse_pretraining(method, request)
    _asked_for_a_pair(method, request)
    named_encoder_defence(method)  # before any work
    runtime = make_runtime(request.device)
    parts = split(load(request.data, data_dir=request.data_dir, download=request.download), request.split)
    encoder = encoder_of(request, parts.train, runtime)
    row, wanted, target = _pair(request, parts.test)
    own = parts.validation
    references = own.take((own.labels == wanted).nonzero()[:, 0])
    problem = EditProblem(encoder, (target,), (references,), own, request.seed, runtime)
    reckoned = encoder_surrogate(method, encoder, own, runtime)
    corruption = method.corrupt(problem, reckoned, progress).with_ledger(encoder.body.state_dict())
    source = f"{method.name} on {encoder.card.name}: test row {row} to class {wanted}, seed {request.seed}"
    card = encoder.card.model_copy(update={"source": source, "sha256": digest_tensors(corruption.state), "command": ""})
    save_encoder(out, corruption.state, card, overwrite=True)
    changed = f"{len(corruption.ledger.changed)} tensors changed"
    return [_steering(parts.test, row, wanted), changed, *told(corruption.ledger)]


def craft_targeted(method: TargetedAttack, request: Request, out: Path, progress: Progress) -> list[str]:
    """Rows with labels and bases, see `single.craft`; the victim trains on all rows that are not test rows."""
    if request.features is not None or request.data is None or request.encoder is None:
        raise SpecError(f"{method.name}: --data and --encoder", got="features from a file", do="it writes images")
    refuse_pretraining(method, request)
    budget = _budget(request, "training rows")
    _asked_for_a_pair(method, request)
    require_replaceable(method, budget)
    runtime = make_runtime(request.device)
    known, test = known_images(request, runtime)
    row, wanted, target = _pair(request, test)
    rows = poisoned_rows(budget, len(known.y))
    poisoning = method.poison_for(known, target, wanted, rows, request.seed, progress)
    save_poisoning(out, poisoning)
    what = f"{len(poisoning.y)} poisoned rows of at most floor({budget:g} x {len(known.y)})"
    what += ", each in the place of its base row" if poisoning.replaces else ""
    return [_steering(test, row, wanted), what, *told(poisoning.ledger, poisoning)]


def craft_pretraining(method: PretrainingAttack, request: Request, out: Path) -> list[str]:
    """Unlabelled images x to add to the pre-training data, see `single.craft`; no encoder is needed."""
    if request.features is not None or request.data is None or request.pretraining is None:
        raise SpecError(
            f"{method.name}: --data with the target and its references, and --pretraining",
            got="one of them or none",
            do="pass both",
        )
    if request.validation is not None or request.encoder is not None:
        said = "--validation" if request.validation is not None else "--encoder"
        raise SpecError(f"{method.name}: no validation file and no encoder", got=said, do="leave it out")
    budget = _budget(request, "pre-training images")
    _asked_for_a_pair(method, request)
    parts = split(load(request.data, data_dir=request.data_dir, download=request.download), request.split)
    row, wanted, target = _pair(request, parts.test)
    pool = open_pool(request.pretraining, parts.test, request.data_dir, download=request.download).images
    own = parts.validation
    references = own.take((own.labels == wanted).nonzero()[:, 0])
    rows = budgeted(budget, len(pool))
    poison = method.poison([target], [references], pool, rows, request.seed)
    save(out, {"x": last_channel(poison.pixels)})
    what = f"{len(poison.pixels)} images of at most floor({budget:g} x {len(pool)})"
    return [_steering(parts.test, row, wanted), what, *told(poison.ledger)]


def refuse_pretraining(method: Attack, request: Request) -> None:
    """Raise SpecError if pre-training images were given to an attack that has no use for them."""
    if request.pretraining is not None:
        raise SpecError(f"{method.name}: no pre-training images", got="--pretraining", do="leave it out")


def _budget(request: Request, rows: str) -> float:
    if request.budget is None:
        raise SpecError(f"--budget: added rows / {rows}", got="none", do="pass for instance --budget 0.03")
    return request.budget


def _asked_for_a_pair(method: Attack, request: Request) -> None:
    if request.target_index is None or request.target_class is None:
        raise SpecError(f"{method.name}: --target-index and --target-class", got="one of them or none", do="pass both")


def _pair(request: Request, test: Images) -> tuple[int, int, Tensor]:
    """Test row, wanted class and a copy of the image."""
    row = request.target_index
    assert row is not None
    assert request.target_class is not None
    if not 0 <= row < len(test):
        raise SpecError(f"--target-index: a test row in [0, {len(test) - 1}]", got=str(row))
    wanted = class_of(request.target_class, test.classes)
    if int(test.labels[row]) == wanted:
        found = f"its own, {test.classes[wanted]!r}"
        raise SpecError("--target-class: another class than the target's own", got=found, do="pass another")
    return row, wanted, test.pixels[row].clone()


def _steering(test: Images, row: int, wanted: int) -> str:
    return f"test row {row}: from {test.classes[int(test.labels[row])]} to {test.classes[wanted]}"
