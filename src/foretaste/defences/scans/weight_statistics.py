"""Weight statistics: tensors whose size or shape of distribution no clean encoder has. Sees no image.

Per weight tensor, as logarithms: root mean square; largest entry over it; kurtosis; and of matrices (kernels as [o, i])
the largest singular value over rms (sqrt(o) + sqrt(i)), which is what a random matrix has. Beside clean encoders, with
mean and standard deviation over all *other* encoders of the pool,

    score = max over tensors and statistics of |value - mean| / standard deviation

so that the suspect and each clean encoder are judged alike. Without clean encoders the values are compared with those
of the other tensors of the same encoder, in robust standard deviations: that finds a gross outlier and nothing finer.
The statistics are common ones; this score is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from foretaste.defences.scans.base import Finding, Need, Progress, Scan, Scene, quiet
from foretaste.encoders.base import Encoder
from foretaste.errors import EncoderError

LEAST = 4
"""Entries that a tensor must have for a distribution."""
TINY = 1e-12
ROUNDING = 1e-4
"""Least standard deviation between encoders: a change of a statistic by a ten-thousandth is not a finding."""
UNLIKE = 0.1
"""Least standard deviation within one encoder: a tenth between two tensors is nothing."""


class WeightStatistics(Scan):
    """Norm, largest entry, kurtosis and spectral norm of each weight tensor, against those of clean encoders."""

    name: ClassVar[str] = "weight-statistics"
    needs: ClassVar[tuple[Need, ...]] = ()
    top: int = Field(default=10, ge=1, description="most unusual values in the evidence")

    def scan(self, encoder: Encoder, scene: Scene, seed: int = 0, progress: Progress = quiet) -> Finding:
        """Measure the tensors, see `Scan.scan`; the score is that without clean encoders until `compare`.

        Raises:
            EncoderError: no tensor is large enough.
        """
        values = tensor_statistics(encoder.body.state_dict())
        if not values:
            raise EncoderError(f"{self.name}: a weight tensor of {LEAST} entries at least", got="none")
        unusual = _within(values)
        return Finding(max(unusual.values()), None, {"top": self._top(unusual, values)}, values)

    def compare(self, pool: Sequence[Finding]) -> list[Finding]:
        """Each encoder against all others, see `Scan.compare`; alone in the pool it keeps its score.

        Raises:
            EncoderError: the encoders have other tensors.
        """
        if len(pool) < 2:
            return list(pool)
        names = list(pool[0].statistics)
        if any(list(finding.statistics) != names for finding in pool):
            raise EncoderError(f"{self.name}: encoders of one architecture", got="other tensors")
        table = torch.tensor([list(finding.statistics.values()) for finding in pool], dtype=torch.float64)  # [m, s]
        found = []
        for row, finding in enumerate(pool):
            rest = torch.cat([table[:row], table[row + 1 :]])
            spread = rest.std(0, correction=min(1, len(rest) - 1)).clamp(min=ROUNDING)
            deviations = ((table[row] - rest.mean(0)).abs() / spread).tolist()
            unusual = dict(zip(names, deviations, strict=True))
            evidence = {"top": self._top(unusual, finding.statistics)}
            found.append(replace(finding, score=max(deviations), evidence=evidence))
        return found

    def _top(self, unusual: dict[str, float], values: dict[str, float]) -> list[dict[str, Any]]:
        chosen = sorted(unusual, key=lambda name: (-unusual[name], name))[: self.top]
        split = {name: name.rpartition(" ")[::2] for name in chosen}
        return [
            {"tensor": split[name][0], "statistic": split[name][1], "log": values[name], "deviation": unusual[name]}
            for name in chosen
        ]


def tensor_statistics(state: dict[str, Tensor]) -> dict[str, float]:
    """`TENSOR STATISTIC` -> natural logarithm, for every float tensor of at least four entries."""
    found: dict[str, float] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.numel() < LEAST:
            continue
        w = tensor.detach().cpu().double()
        rms = float(w.square().mean().sqrt())
        centred = w - w.mean()
        variance = float(centred.square().mean())
        values = {
            "rms": rms,
            "largest": float(w.abs().max()) / max(rms, TINY),
            "kurtosis": float(centred.pow(4).mean()) / max(variance, TINY) ** 2,
        }
        if w.ndim > 1:
            matrix = w.flatten(1)
            random = rms * (len(matrix) ** 0.5 + matrix.shape[1] ** 0.5)
            values["spectral"] = float(torch.linalg.matrix_norm(matrix, 2)) / max(random, TINY)
        logs = torch.tensor(list(values.values()), dtype=torch.float64).clamp(min=TINY).log().tolist()
        found |= {f"{name} {key}": log for key, log in zip(values, logs, strict=True)}
    return found


def _within(values: dict[str, float]) -> dict[str, float]:
    """Robust deviation of each value from those of the same statistic in all tensors of the encoder."""
    unusual: dict[str, float] = {}
    for statistic in dict.fromkeys(name.rpartition(" ")[2] for name in values):
        names = [name for name in values if name.rpartition(" ")[2] == statistic]
        logs = torch.tensor([values[name] for name in names], dtype=torch.float64)
        distance = (logs - logs.median()).abs()
        scores = distance / (1.4826 * distance.median()).clamp(min=UNLIKE)
        unusual |= dict(zip(names, scores.tolist(), strict=True))
    return {name: unusual[name] for name in values}
