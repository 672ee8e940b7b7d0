"""One attack on its own, written to a file: what `foretaste attack` does."""

from __future__ import annotations

from pathlib import Path

from foretaste.attacks.base import Attack, LabelledAttack, PretrainingAttack, Progress, TargetedAttack, WeightAttack
from foretaste.attacks.budget import poisoned_rows, require_replaceable
from foretaste.attacks.knowledge import Knowledge
from foretaste.audits.adaptive import named_defence, with_surrogate
from foretaste.audits.request import Request, known_images, save_poisoning, told
from foretaste.audits.single_pair import craft_pretraining, craft_targeted, craft_weights, refuse_pretraining
from foretaste.data import file_of
from foretaste.errors import SpecError
from foretaste.features.file import check_same, read_features
from foretaste.runtime import Runtime, make_runtime

__all__ = ["Request", "craft"]


def craft(method: Attack, request: Request, out: Path, progress: Progress) -> list[str]:
    """Run the attack and write its result, whole or not at all; returns lines that say what it did.

    Raises:
        ForetasteError: bad input, or an attack that failed.
    """
    wanted = ".safetensors" if isinstance(method, WeightAttack) else ".npz"
    if out.suffix != wanted:
        raise SpecError(f"--out: a file that ends in {wanted}", got=repr(out.name), do="rename it")
    data = None if request.data is None else file_of(request.data)[0]
    pool = None if request.pretraining is None else file_of(request.pretraining.data)[0]
    sources = [request.features, request.validation, data, pool, *(request.encoder or {}).values()]
    for source in sources:
        if isinstance(source, str | Path) and out.exists() and Path(source).exists() and out.samefile(source):
            raise SpecError(
                f"--out {out}: a file that is not an input", got="the input itself", do="pass another --out"
            )
    if not out.parent.is_dir():
        raise SpecError(f"--out {out}: a file in a folder that exists", got=f"no folder {out.parent}", do="make it")
    if not 0 < request.ridge < float("inf"):
        raise SpecError("--ridge: a positive number", got=f"{request.ridge:g}")
    match method:
        case WeightAttack():
            return craft_weights(method, request, out, progress)
        case TargetedAttack():
            return craft_targeted(method, request, out, progress)
        case PretrainingAttack():
            return craft_pretraining(method, request, out)
        case LabelledAttack():
            return _labelled(method, request, out, progress)
    raise TypeError(f"{method.name} is an attack of no known threat")


def _labelled(method: LabelledAttack, request: Request, out: Path, progress: Progress) -> list[str]:
    if request.budget is None:
        raise SpecError("--budget: added rows / training rows", got="none", do="pass for instance --budget 0.03")
    if request.target_index is not None or request.target_class is not None:
        raise SpecError(f"{method.name}: no target, it lowers the accuracy", got="--target-index or --target-class")
    refuse_pretraining(method, request)
    require_replaceable(method, request.budget)
    named_defence(method)  # before any work
    runtime = make_runtime(request.device)
    known = _known_features(request, runtime) if request.features is not None else known_images(request, runtime)[0]
    rows = poisoned_rows(request.budget, len(known.y))
    poisoning = method.poison(with_surrogate(method, known, rows, request.seed), rows, request.seed, progress)
    save_poisoning(out, poisoning)
    what = f"{rows} poisoned rows = floor({request.budget:g} x {len(known.y)})"
    what += ", each in the place of its base row" if poisoning.replaces else ""
    return [what, *told(poisoning.ledger, poisoning)]


def _known_features(request: Request, runtime: Runtime) -> Knowledge:
    assert request.features is not None
    train = read_features(request.features)
    own = train
    if request.validation is not None:
        own = read_features(request.validation, classes=len(train.classes))
        check_same(train, own)
    return Knowledge(train.z, train.y, own.z, own.y, len(train.classes), request.ridge, runtime)
