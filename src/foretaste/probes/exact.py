"""The exact head as a probe: the victim whose optimum every attack can be held against."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from foretaste.heads.fit import fit_head
from foretaste.probes.base import FittedProbe, Probe, check_rows
from foretaste.runtime import Runtime


class ExactProbe(Probe):
    """L2-regularised softmax regression on standardised features, solved to its optimum."""

    name: ClassVar[str] = "exact"
    ridge: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="L2 weight, on standardised features")

    def fit(self, z: Tensor, y: Tensor, classes: int, seed: int, runtime: Runtime) -> FittedProbe:
        """The optimum; the seed changes nothing. Figure `residual`: gradient norm over the one at W = 0."""
        check_rows(z, y, classes)
        head = fit_head(z.to(runtime.device), y.to(runtime.device), classes, self.ridge)
        return FittedProbe(lambda new: head.predict(new.to(runtime.device)).cpu(), {"residual": head.gradient_ratio})
