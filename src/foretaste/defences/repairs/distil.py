"""Distillation into a fresh student: nothing of the suspect's weights is inherited, only its features of clean images.

    minimise the mean over views x of clean images of  1 - cos( student(x) - m, suspect(x) - m )

with m the suspect's mean feature of clean images. Features behind a ReLU all point one way, so that without m (centred=
false) a student that always answers m is already near and learns little of what tells images apart.

The defence of SSL-Backdoor (Saha et al., CVPR 2022, arXiv 2105.09866, section on CompRess) with the plain cosine in the
place of CompRess's similarities; also MIMIC (IEEE TIFS 2025) without its attention and contrastive terms. What the
suspect does to a single image that is not among the clean ones is not taught.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from foretaste.defences.repairs.base import described, own_body
from foretaste.defences.repairs.student import fresh
from foretaste.defences.repairs.training import Training
from foretaste.encoders.base import Encoder
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.pretrain.simclr import Progress, quiet
from foretaste.runtime import Runtime


class Distil(Training):
    """Teach a new network of the same architecture the suspect's features of clean images, by their cosine."""

    name: ClassVar[str] = "distil"
    epochs: int = Field(default=200, ge=1, description="passes over the clean images")
    batch: int = Field(default=128, ge=2, description="images per step; there must be as many clean ones")
    lr: float = Field(default=2e-3, gt=0, description="first learning rate of Adam; falls to 0 along half a cosine")
    centred: bool = Field(default=True, description="compare features less the suspect's mean feature of clean images")
    student: Literal["fresh", "last-stage"] = Field(
        default="fresh",
        description="which weights start anew: all, or only the last quarter of the kernels and matrices and what "
        "follows them; the rest is then the suspect's and stays trainable",
    )

    def mend(self, encoder: Encoder, clean: Images, seed: int, runtime: Runtime, progress: Progress = quiet) -> Encoder:
        """Train the student, see `Repair.mend`; labels are not used.

        Raises:
            DataError: fewer clean images than a batch.
            EncoderError: the architecture cannot be built anew, or the loss is not finite.
        """
        self.check(clean)
        teacher = Encoder(own_body(encoder), encoder.card).to(runtime.device)
        student = Encoder(fresh(encoder, seed, last=self.student == "last-stage"), encoder.card).to(runtime.device)
        student.body.train().requires_grad_(True)

        mean = torch.zeros(encoder.card.d)
        if self.centred:
            mean = embed(teacher, clean.pixels, runtime).mean(0)
        mean = mean.to(runtime.device)

        def loss_of(images: Tensor, rows: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = teacher(images)
            return 1 - cosine_similarity(student(images) - mean, wanted - mean, dim=1).mean()

        optimiser = torch.optim.Adam(student.body.parameters(), lr=self.lr)
        loss = self.descend(optimiser, loss_of, clean, encoder.card.input_size, seed, runtime, progress)
        told = f"a {self.student} student of {described(clean)}, seed {seed}, mean cosine {1 - loss:.3f}"
        return self.settled(encoder, student.body, told)
