"""A training run that can be killed: one safetensors file with all tensors and, as JSON, the settings and losses."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from foretaste.encoders.weights import read_state_dict
from foretaste.errors import SpecError, WeightsError

KEY = "foretaste.pretrain"


def save(path: Path, settings: Mapping[str, Any], losses: list[float], tensors: Mapping[str, Tensor]) -> None:
    """Write the state after `len(losses)` epochs; the file of the epoch before stays until this one is whole.

    Raises:
        WeightsError: the file cannot be written.
    """
    text = json.dumps({"settings": settings, "losses": losses}, sort_keys=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, draft, {KEY: text})
        draft.replace(path)
    except OSError as error:
        raise WeightsError(f"{path}: a checkpoint that can be written", got=str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def load(path: Path, settings: Mapping[str, Any]) -> tuple[list[float], dict[str, Tensor]]:
    """The losses, one per finished epoch, and the tensors of a run with the same settings.

    Raises:
        SpecError: the run had other settings; the message names them.
        WeightsError: the file is damaged, or no checkpoint of a training run.
    """
    file = read_state_dict(path)
    try:
        content = json.loads(file.metadata[KEY])
        theirs, losses = dict(content["settings"]), [float(loss) for loss in content["losses"]]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: a checkpoint of `foretaste pretrain`", got=repr(error), do="remove it") from error
    ours = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    if other := [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]:
        raise SpecError(
            f"{path}: a checkpoint of the same run",
            got=", ".join(f"{name} {theirs.get(name)!r} there and {ours.get(name)!r} here" for name in other),
            do="use the settings of that run, or remove the checkpoint to start anew",
        )
    return losses, file.tensors
