"""One attack outside an audit, judged and written to a file: what `foretaste attack` does."""

from __future__ import annotations

from pathlib import Path

from foretaste.attacks.base import (
    Attack,
    LabelledAttack,
    PretrainingAttack,
    Progress,
    RowAttack,
    TargetedAttack,
    WeightAttack,
)
from foretaste.attacks.budget import require_replaceable
from foretaste.attacks.results import Corruption, Poisoning
from foretaste.audits.adaptive import named_defence, named_encoder_defence
from foretaste.audits.attack_files import save, told
from foretaste.audits.attack_request import Ground, Request, ground_of
from foretaste.audits.crafted import Crafted, craft
from foretaste.audits.referee import judge, require
from foretaste.data import file_of
from foretaste.errors import SpecError


def attack_once(method: Attack, request: Request, out: Path, progress: Progress) -> list[str]:
    """Run the attack, let the referee look, and write the result, whole or not at all.

    Returns:
        Lines that say what it did.

    Raises:
        ForetasteError: bad input, an attack that failed, or one that broke its promise.
    """
    _check_out(method, request, out)
    if not 0 < request.ridge < float("inf"):
        raise SpecError("--ridge: a positive number", got=f"{request.ridge:g}")
    _check(method, request)
    ground = ground_of(method, request)
    crafted = craft(method, ground.setting, ground.view, ground.order, progress)
    require(judge(ground.setting, crafted))
    save(out, crafted)
    return _lines(ground, crafted)


def _check_out(method: Attack, request: Request, out: Path) -> None:
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


def _check(method: Attack, request: Request) -> None:
    """Whether what was said goes with the attack, before any work."""
    name = method.name
    match method:
        case LabelledAttack():
            _budget(request, "training rows")
            if request.target_index is not None or request.target_class is not None:
                raise SpecError(f"{name}: no target, it lowers the accuracy", got="--target-index or --target-class")
        case TargetedAttack():
            if request.features is not None or request.data is None or request.encoder is None:
                raise SpecError(f"{name}: --data and --encoder", got="features from a file", do="it writes images")
        case WeightAttack():
            if request.features is not None or request.data is None or request.encoder is None:
                raise SpecError(f"{name}: --data and --encoder", got="features from a file", do="it edits an encoder")
            if request.budget is not None or request.validation is not None:
                said = "--budget" if request.budget is not None else "--validation"
                expected = f"{name}: no budget and no validation file"
                raise SpecError(expected, got=said, do="it adds no row; leave it out")
        case PretrainingAttack():
            if request.features is not None or request.data is None or request.pretraining is None:
                raise SpecError(
                    f"{name}: --data with the target and its references, and --pretraining",
                    got="one of them or none",
                    do="pass both",
                )
            if request.validation is not None or request.encoder is not None:
                said = "--validation" if request.validation is not None else "--encoder"
                raise SpecError(f"{name}: no validation file and no encoder", got=said, do="leave it out")
    if request.pretraining is not None and not isinstance(method, PretrainingAttack):
        raise SpecError(f"{name}: no pre-training images", got="--pretraining", do="leave it out")
    if isinstance(method, TargetedAttack | PretrainingAttack):
        _budget(request, "pre-training images" if isinstance(method, PretrainingAttack) else "training rows")
    if not isinstance(method, LabelledAttack) and (request.target_index is None or request.target_class is None):
        raise SpecError(f"{name}: --target-index and --target-class", got="one of them or none", do="pass both")
    if isinstance(method, RowAttack) and request.budget is not None:
        require_replaceable(method, request.budget)
    named_defence(method)
    named_encoder_defence(method)


def _budget(request: Request, rows: str) -> None:
    if request.budget is None:
        raise SpecError(f"--budget: added rows / {rows}", got="none", do="pass for instance --budget 0.03")


def _lines(ground: Ground, crafted: Crafted) -> list[str]:
    order, result, lines = crafted.order, crafted.result, []
    for row, wanted in order.pairs:
        test = ground.setting.split.test
        lines.append(f"test row {row}: from {test.classes[int(test.labels[row])]} to {test.classes[wanted]}")
    if isinstance(result, Corruption):
        return [*lines, f"{len(result.ledger.changed)} tensors changed", *told(result.ledger)]
    if not isinstance(result, Poisoning):
        assert crafted.view.pool is not None
        allowed = f"floor({order.budget:g} x {len(crafted.view.pool)})"
        return [*lines, f"{len(result.pixels)} images of at most {allowed}", *told(result.ledger)]
    made, allowed = len(result.y), f"floor({order.budget:g} x {len(ground.setting.train)})"
    what = f"{made} poisoned rows of at most {allowed}" if order.pairs else f"{made} poisoned rows = {allowed}"
    what += ", each in the place of its base row" if result.replaces else ""
    return [*lines, what, *told(result.ledger, result)]
