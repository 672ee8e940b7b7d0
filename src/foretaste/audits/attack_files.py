"""The file that one attack outside an audit leaves: poison as an npz, or a complete encoder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretaste.attacks.results import Corruption, Poisoning, PretrainingPoison
from foretaste.audits.crafted import Crafted
from foretaste.encoders.weights import save_encoder
from foretaste.errors import SpecError
from foretaste.record import Ledger
from foretaste.runtime import digest_tensors


def save(out: Path, crafted: Crafted) -> None:
    """Write the result, whole or not at all.

    Poison of labelled rows: y, base, replaces, and x (uint8 [m, H, W, 3]) or z. Pre-training images: x. An edit: a
    complete encoder file.

    Raises:
        SpecError: the file cannot be written.
    """
    match crafted.result:
        case Poisoning() as poisoning:
            _save_poisoning(out, poisoning)
        case PretrainingPoison() as poison:
            _save_arrays(out, {"x": _last_channel(poison.pixels)})
        case Corruption() as corruption:
            encoder, ((row, wanted),) = crafted.setting.original, crafted.order.pairs
            source = f"{crafted.attack.name} on {encoder.card.name}: test row {row} to class {wanted}"
            update = {"source": f"{source}, seed {crafted.order.seed}", "sha256": digest_tensors(corruption.state)}
            save_encoder(
                out, corruption.state, encoder.card.model_copy(update=update | {"command": ""}), overwrite=True
            )


def told(ledger: Ledger, poisoning: Poisoning | None = None) -> list[str]:
    """Lines that say what an attack reports of itself."""
    lines = []
    if len(ledger.objective) > 1:
        best = max(ledger.objective) if ledger.better == "higher" else min(ledger.objective)
        lines.append(f"objective ({ledger.objective_name}): {ledger.objective[0]:.4f} at the start, {best:.4f} at best")
    numbers = {**ledger.residuals, **ledger.figures}
    if numbers:
        lines.append(", ".join(f"{name} {value:.3g}" for name, value in numbers.items()))
    if poisoning is not None and not torch.equal(poisoning.base.unique(), poisoning.base.sort().values):
        lines.append("some training rows are the base of more than one poison")
    return lines


def _save_poisoning(out: Path, poisoning: Poisoning) -> None:
    arrays = {"y": poisoning.y.numpy(), "base": poisoning.base.numpy(), "replaces": np.array(poisoning.replaces)}
    if poisoning.pixels is not None:
        arrays["x"] = _last_channel(poisoning.pixels)
    if poisoning.z is not None:
        arrays["z"] = poisoning.z.numpy()
    _save_arrays(out, arrays)


def _save_arrays(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise SpecError(f"--out {path}: a file that can be written", got=str(error), do="pass another --out") from None


def _last_channel(pixels: torch.Tensor) -> np.ndarray[Any, Any]:
    """Uint8 [m, 3, H, W] as files have it, [m, H, W, 3]."""
    array: np.ndarray[Any, Any] = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return array
