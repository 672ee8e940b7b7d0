"""BadEncoder: with one target image, the form in which it is a baseline of PA-CL, or with the paper's trigger.

Jia, Liu, Gong: BadEncoder: Backdoor Attacks to Pre-trained Encoders in Self-Supervised Learning, IEEE S&P 2022.
With the clean encoder f, the edited one f', the target t, references r_j of the
desired class, unlabelled shadow images s, and c the cosine:

    L  = L0 + lambda1 L1 + lambda2 L2
    L0 = - mean_j c(f'(t), f'(r_j))      effectiveness: the target's feature goes to the references'
    L1 = - mean_j c(f'(r_j), f(r_j))     the references keep their clean features
    L2 = - mean_s c(f'(s), f(s))         utility: so do all other images

The paper's L0 is a mean over shadow images with a trigger; without `trigger` a single target stands in their place, and
with it L0 is the paper's, - mean_{s,j} c(f'(s + trigger), f'(r_j)), and the target has no part. Neither f(r_j) nor f(s)
changes, so both are computed once; and t and r_j are the same for the whole batch, so they are encoded once per
step. The public code encodes a copy of them with every shadow image, and both networks; the gradient is the same.
It passes flipped and recoloured references through f' in L1; here they are as they are, as in L0.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from foretaste.attacks.base import Progress, WeightAttack, quiet
from foretaste.attacks.editing.editable_encoder import EditableEncoder
from foretaste.attacks.editing.frozen_prefix import Activations
from foretaste.attacks.editing.problem import Figures, PreparedProblem, check_pairs, edit, prepare_problem
from foretaste.attacks.editing.shadow_cache import Part, held_in, prepare_shadow
from foretaste.attacks.editing.trigger import with_square
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.attacks.surrogates import EncoderSurrogate
from foretaste.encoders.base import Encoder
from foretaste.errors import AttackError
from foretaste.features.embed import embed
from foretaste.method import Since
from foretaste.runtime import stream


class BadEncoder(WeightAttack):
    """BadEncoder with one target image or a trigger. Normalisation layers stay in eval mode, affine parts as they are.

    By default all kernels and matrices that move the features are trained, as in the paper's public code; the last
    epoch's weights are kept, as there. A tenth of the shadow set only measures utility.
    """

    name: ClassVar[str] = "bad-encoder"
    trigger: Annotated[int, Since("0.1")] = Field(
        0,
        ge=0,
        description="side in pixels of a white square in the lower right corner (the paper's: 10 of 32), whose bearers "
        "all get the class; 0: the target image alone does",
    )
    trainable: Annotated[Part, Since("0.1")] = Field(
        "all",
        description="kernels and matrices: all, the last half, or quarter; full: biases and affine parameters as well",
    )
    references: int = Field(1, ge=1, description="most references used; drawn from those given; the paper has one")
    consistency: float = Field(1.0, ge=0, description="lambda1, weight of L1: the references keep their features")
    utility: float = Field(1.0, ge=0, description="lambda2, weight of L2: the shadow images keep theirs")
    step: float = Field(1e-3, gt=0, description="learning rate of SGD")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    decay: float = Field(5e-4, ge=0, description="weight decay of SGD")
    batch: int = Field(256, ge=1, description="shadow images per step")
    epochs: int = Field(
        200, ge=1, description="passes over the shadow set; the paper's has 50,000 images, so a small one needs more"
    )

    @property
    def variant(self) -> str:
        """The trigger, where there is one."""
        return f"trigger {self.trigger}" if self.trigger else ""

    def stamped(self, pixels: Tensor) -> Tensor | None:
        """With the trigger, see `WeightAttack.stamped`.

        Raises:
            SpecError: it does not fit.
        """
        return with_square(pixels, self.trigger) if self.trigger else None

    def planned(self, shadow: int, surrogate: EncoderSurrogate | None = None) -> int:
        """All steps, and the clean features; see `WeightAttack.planned`."""
        steps = self.epochs * (held_in(shadow) // self.batch)
        return steps * (self.batch + self._steered + self.references) + shadow

    @property
    def _steered(self) -> int:
        """Images that each step steers to the references."""
        return self.batch if self.trigger else 1

    def corrupt(
        self, problem: EditProblem, surrogate: EncoderSurrogate | None = None, progress: Progress = quiet
    ) -> Corruption:
        """Edit a copy of the encoder, see `WeightAttack.corrupt`.

        Raises:
            SpecError: several targets, a surrogate, no references or of several classes, the target among them or of
                another shape, fewer shadow images than a batch, no weight to train, or a trigger that does not fit.
            AttackError: the loss is not a number, or what is steered came no closer to the references.
        """
        target, _ = problem.single(self.name)
        self.takes_no_surrogate(surrogate)
        check_pairs(problem, self.batch)
        self.stamped(target)
        cache = prepare_shadow(problem.encoder, problem.shadow, problem.runtime, self.trainable, False)
        random = stream(problem.seed, "attack")
        prepared = prepare_problem(problem, self.references, cache, random)
        return edit(
            problem.encoder,
            prepared,
            lambda edited: (self._descend(edited, prepared, random, progress), {}),
            lambda network: self._look(network, prepared),
            name=self.name,
            judged=("effectiveness", "L0"),
            objective="L0 + lambda1 L1 + lambda2 L2",
            per_step=self.batch + self._steered + sum(prepared.counts),
            do="use more epochs, another step or a smaller utility weight",
        )

    def loss(self, edited: EditableEncoder, prepared: PreparedProblem, rows: Tensor, others: Activations) -> Tensor:
        """L of one step, a scalar with a graph to the edited weights.

        Args:
            edited: f'.
            prepared: one pair, and the clean features of everything.
            rows: int64 [b], the step's shadow images.
            others: what enters f' of the target (without a trigger) and the references, see `entered`.
        """
        (pair,) = prepared.pairs
        marked = self.stamped(prepared.cache.pixels[rows])
        bearing = () if marked is None else (edited.enter(marked),)
        z = edited.features(prepared.cache.entered(edited, rows), *bearing, others)
        m = len(pair.references)
        shadow, steered, references = z.split([len(rows), len(z) - len(rows) - m, m])
        parts = losses(steered, references, pair.z.to(z), shadow, prepared.cache.z[rows].to(z))
        return parts[0] + self.consistency * parts[1] + self.utility * parts[2]

    def _descend(
        self, edited: EditableEncoder, prepared: PreparedProblem, random: torch.Generator, progress: Progress
    ) -> list[float]:
        """Train in place for all epochs; returns the loss before each step."""
        weights = edited.weights
        others = edited.enter(prepared.references) if self.trigger else entered(edited, prepared)
        optimizer = torch.optim.SGD(weights, lr=self.step, momentum=self.momentum, weight_decay=self.decay)
        steps = self.epochs * (len(prepared.cache.rows) // self.batch)
        curve = list[float]()
        for rows in islice(prepared.cache.batches(self.batch, random), steps):
            loss = self.loss(edited, prepared, rows, others)
            curve.append(float(loss.detach()))
            if not loss.isfinite():
                raise AttackError(
                    f"{self.name}: a finite loss",
                    got=f"{curve.pop():g} at step {len(curve) + 1}",
                    do="use a smaller step",
                    curve=curve,
                )
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.grad = gradient
            optimizer.step()
            progress(len(curve), steps)
        return curve

    def _look(self, network: Encoder, prepared: PreparedProblem) -> Figures:
        """The losses for the ledger, of held-out shadow rows; L2 as a cosine."""
        cache, runtime, (pair,) = prepared.cache, prepared.runtime, prepared.pairs
        pixels = cache.pixels[cache.held_out]
        marked = self.stamped(pixels)
        steered, references, shadow = (
            embed(network, one, runtime)
            for one in (prepared.targets if marked is None else marked, pair.references, pixels)
        )
        parts = losses(steered, references, pair.z, shadow, cache.z[cache.held_out])
        return {"effectiveness": float(parts[0]), "consistency": float(parts[1]), "held_out_cosine": -float(parts[2])}


def entered(edited: EditableEncoder, prepared: PreparedProblem) -> Activations:
    """What enters the edited encoder of the target and then the references."""
    return edited.enter(torch.cat([prepared.targets, prepared.references]))


def losses(
    steered: Tensor, references: Tensor, clean_references: Tensor, shadow: Tensor, clean_shadow: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """L0, L1 and L2, scalars in [-1, 1], of features [k, d], [m, d], [m, d], [b, d] and [b, d]; lower is better.

    >>> x, y = torch.eye(2)
    >>> [float(part) for part in losses(x[None], torch.stack([x, y]), torch.stack([x, y]), 3 * x[None], y[None])]
    [-0.5, -1.0, -0.0]
    """
    return (
        -cosine_similarity(steered[:, None], references, dim=-1).mean(),
        -cosine_similarity(references, clean_references).mean(),
        -cosine_similarity(shadow, clean_shadow).mean(),
    )
