"""Fine-tuning on clean images: what training does not ask for, it forgets.

The usual first defence (Liu, Dolan-Gavitt, Garg: Fine-Pruning, RAID 2018, section 4.2); the supervised schedule follows
BackdoorBench (Wu et al., NeurIPS 2022): SGD from 0.01 down a cosine, 100 epochs, momentum 0.9, weight decay 5e-4.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from foretaste.defences.repairs.base import described, own_body
from foretaste.defences.repairs.training import Training
from foretaste.encoders.base import Encoder
from foretaste.encoders.build import repeatable_initialisation
from foretaste.errors import DataError
from foretaste.features.embed import embed
from foretaste.heads.fit import fit_head
from foretaste.images import Images
from foretaste.pretrain.continued import continued
from foretaste.pretrain.simclr import Progress, SimCLR, quiet
from foretaste.runtime import Runtime

RATE = {"contrastive": 0.05, "supervised": 0.01}
"""First learning rate by loss."""


class FineTune(Training):
    """Train the encoder on with clean images: by SimCLR without labels, or with a linear head and their labels."""

    name: ClassVar[str] = "fine-tune"
    loss: Literal["contrastive", "supervised"] = Field(
        default="contrastive", description="SimCLR's, which needs no labels, or a classifier's, which reads them"
    )
    lr: float | None = Field(
        default=None, gt=0, description="first learning rate of SGD; default: 0.05 contrastive, 0.01 supervised"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(default=5e-4, ge=0, description="of the kernels and matrices alone")
    temperature: float = Field(default=0.2, gt=0, description="of the contrastive loss")

    @property
    def supervised(self) -> bool:
        """With the classifier's loss."""
        return self.loss == "supervised"

    def mend(self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: Progress = quiet) -> Encoder:
        """Train a copy, see `Repair.mend`; BatchNorm learns the clean images' statistics.

        Raises:
            DataError: fewer clean images than a batch, or, supervised, of fewer than two classes.
            EncoderError: the loss is not finite.
        """
        self.check(clean)
        body = self.tuned(encoder, clean, seed, runtime, progress)
        return self.settled(encoder, body, f"{described(clean)}, seed {seed}")

    def check(self, clean: Images) -> None:
        """Refuse too few images or, supervised, too few classes.

        Raises:
            DataError: as said.
        """
        super().check(clean)
        if self.supervised and len(clean.labels.unique()) < 2:
            raise DataError(
                f"{self.name}: clean images of at least two classes", got="one class", do="pass loss=contrastive"
            )

    def tuned(self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: Progress) -> nn.Module:
        """The network after training; the encoder stays as it is."""
        if self.supervised:
            return self._supervised(encoder, clean, seed, runtime, progress)
        method = SimCLR(
            epochs=self.epochs,
            batch=self.batch,
            lr=self.lr or RATE[self.loss],
            warmup=0.0,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            temperature=self.temperature,
            views=self.views,
        )
        return continued(encoder, clean, method, seed, runtime, progress).body

    def _supervised(
        self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: Progress
    ) -> nn.Module:
        """Encoder and head together; the head starts at its optimum, or its noise would wash the features out."""
        student = Encoder(own_body(encoder), encoder.card)
        head = fit_head(embed(student, clean.pixels, runtime), clean.labels, len(clean.classes))
        scaler, weight = head.scaler, head.optimum.weight
        slopes = weight[:, :-1] / scaler.scale
        with repeatable_initialisation():  # it draws, though what it draws is replaced
            linear = nn.Linear(slopes.shape[1], len(slopes))
        linear.weight.data.copy_(slopes)
        linear.bias.data.copy_(weight[:, -1] - slopes @ scaler.mean)
        linear.to(runtime.device)
        student.body.train().requires_grad_(True)
        labels = clean.labels.to(runtime.device)

        def loss_of(images: Tensor, rows: Tensor) -> Tensor:
            return cross_entropy(linear(student(images)).float(), labels[rows.to(runtime.device)])

        weights = [*student.body.parameters(), *linear.parameters()]
        groups = [
            {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.SGD(groups, lr=self.lr or RATE[self.loss], momentum=self.momentum)
        self.descend(optimiser, loss_of, clean, encoder.card.input_size, seed, runtime, progress)
        return student.body
