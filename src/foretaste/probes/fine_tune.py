"""Full fine-tuning: the victim trains encoder and head on its labelled images."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.features.embed import embed
from foretaste.heads.fit import fit_head
from foretaste.probes.base import FittedProbe, ImageProbe, check_rows
from foretaste.runtime import Runtime, stream


class FineTuneProbe(ImageProbe):
    """A linear head at its optimum first, then AdamW with a cosine schedule on encoder and head together.

    The order of Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR
    2022 (LP-FT): a head that fits the features first spares them large steps. AdamW, because its steps do not depend on
    the scale of an encoder's features. BatchNorm layers keep their statistics (their weights train), so that what a
    batch holds moves nothing; images are not augmented.
    """

    name: ClassVar[str] = "fine-tune"
    epochs: int = Field(default=10, ge=1, description="passes over the images")
    batch: int = Field(default=64, ge=1, description="images per step; the last batch of an epoch may be smaller")
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False, description="of the first epoch")
    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False, description="as in torch.optim.AdamW")
    ridge: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="L2 weight of the first head")

    def planned(self, rows: int) -> int:
        """All epochs; see `ImageProbe.planned`."""
        return self.epochs * rows

    def fit(
        self, encoder: Encoder, pixels: Tensor, y: Tensor, classes: int, seed: int, runtime: Runtime
    ) -> FittedProbe:
        """Train copies; see `ImageProbe.fit`. Figure `loss`: mean cross-entropy of the last epoch's steps."""
        check_rows(pixels.flatten(1), y, classes)
        tuned = copy.deepcopy(encoder).to(runtime.device)
        first = fit_head(embed(tuned, pixels, runtime), y, classes, self.ridge)
        shift, scale = first.scaler.mean.to(runtime.device).float(), first.scaler.scale.to(runtime.device).float()
        head = first.optimum.weight.to(runtime.device).float().requires_grad_(True)  # [C, d + 1], the bias last

        def scores(z: Tensor) -> Tensor:
            return ((z - shift) / scale) @ head[:, :-1].T + head[:, -1]

        weights = [weight.requires_grad_(True) for weight in tuned.body.parameters() if weight.is_floating_point()]
        optimizer = torch.optim.AdamW([*weights, head], lr=self.learning_rate, weight_decay=self.weight_decay)
        draws, labels, losses = stream(seed, "probe"), y.to(runtime.device), list[float]()
        for epoch in range(self.epochs):
            optimizer.param_groups[0]["lr"] = self.learning_rate / 2 * (1 + math.cos(math.pi * epoch / self.epochs))
            losses = []
            for rows in torch.randperm(len(y), generator=draws).split(self.batch):
                with runtime.autocast():
                    z = tuned(runtime.images(pixels[rows]))
                loss = cross_entropy(scores(z.float()), labels[rows.to(labels.device)])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
        tuned.requires_grad_(False)
        head.requires_grad_(False)
        total = sum(losses) / len(losses)
        if not math.isfinite(total):
            raise SpecError(
                "fine-tune: settings under which training converges", got=f"loss {total}", do="lower learning_rate"
            )

        def predict(new: Tensor) -> Tensor:
            return scores(embed(tuned, new, runtime).to(runtime.device)).argmax(1).cpu()

        return FittedProbe(predict, {"loss": total})
