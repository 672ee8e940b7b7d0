"""PA-CL: edit a pre-trained encoder so that one chosen image gets one chosen class downstream.

Chen, Gao, Liu, Abdelmoniem, Wang: Manipulating Pre-trained Encoder for Targeted Poisoning Attacks in Contrastive
Learning, IEEE TIFS 2024, doi 10.1109/TIFS.2024.3350389. Only the abstract is public: this is our reconstruction. With
the clean encoder f, the edited one f', the target t, references r_j of the desired class and unlabelled images s:

    L = L_te + lambda * (L_mu + anchor * L_an)
    L_te = D(f'(t), {f'(r_j)})         target effectiveness: the target's feature goes to the class
    L_mu = mean_s D(f'(s), f(s))       model utility: other features stay
    L_an = mean_j D(f'(r_j), f(r_j))   the references stay (the second loss of BadEncoder, Jia et al. 2022)

D is 1 - cosine of features, or the mean squared difference of standardised features.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from foretaste.attacks.base import Corruption, Progress, WeightAttack, quiet
from foretaste.attacks.weights.ground import METRIC_ROWS, Ground, Part, check_scene, difference, prepare, views_of
from foretaste.encoders.base import Encoder
from foretaste.errors import AttackError
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.record import Ledger
from foretaste.runtime import Runtime, stream

Similarity = Literal["standardised", "cosine"]
Aggregation = Literal["class-mean", "mean", "max"]
DEFAULTS = {"natural": (0.1, 0.025), "adam": (1e-3, 100.0), "sgd": (0.05, 10.0)}
"""Step and utility by optimiser."""
RELAX = 0.9
"""Factor on lambda at each step of the second half: a target that is still not there may cost more utility."""
DIVERGED = 2.0
"""Loss, relative to the first, at which the edit starts again with a quarter of the step."""


class PACL(WeightAttack):
    """PA-CL (our reconstruction). BatchNorm stays in eval mode; only kernels and matrices are trained.

    The default optimiser measures its steps by how much they move the features of shadow images (`ground.Metric`).
    """

    name: ClassVar[str] = "pacl"
    trainable: Part = Field("last-stage", description="which kernels and matrices: all, the last half, or quarter")
    similarity: Similarity = Field("standardised", description="what D compares")
    aggregation: Aggregation = Field(
        "class-mean", description="L_te to the references' mean, to each, or to the nearest"
    )
    reference_side: Literal["clean", "detached", "moving"] = Field(
        "clean", description="L_te's references: f(r), or f'(r) without or with gradient"
    )
    references: int = Field(50, ge=1, description="most references used; drawn from those given")
    views: int = Field(1, ge=1, description="1: the target as it is; more: so many random crops and flips per step")
    utility: float | None = Field(
        None,
        ge=0,
        description="lambda, the weight of L_mu; natural: in units of the target's leverage (how much further, squared,"
        " a step in the metric moves the target than an ordinary image); default: by optimizer",
    )
    anchor: float = Field(0.0, ge=0, description="weight of L_an relative to L_mu")
    optimizer: Literal["natural", "adam", "sgd"] = Field("natural", description="natural: momentum in the metric")
    step: float | None = Field(
        None, gt=0, description="natural: share of L_te the first step takes; else learning rate; default: by optimizer"
    )
    steps: int = Field(100, ge=1, description="at most")
    batch: int = Field(128, ge=1, description="shadow images per step")
    enough: float = Field(0.98, le=1, description="stop at this cosine of target and class mean, in standard units ...")
    kept: float = Field(0.99, le=1, description="... if shadow features keep this mean cosine to their clean ones")

    @property
    def variant(self) -> str:
        """The trained part, where it is not the default."""
        return "" if self.trainable == "last-stage" else self.trainable

    def planned(self, shadow: int) -> int:
        """All steps, and what is prepared; see `WeightAttack.planned`."""
        moving = self.references * self._moving
        prepared = min(shadow, METRIC_ROWS) * (self.optimizer == "natural")
        return self.steps * (self.batch + self.views + moving) + prepared

    def corrupt(
        self,
        encoder: Encoder,
        target: Tensor,
        references: Images,
        shadow: Images,
        seed: int,
        runtime: Runtime,
        progress: Progress = quiet,
    ) -> Corruption:
        """Edit a copy of the encoder, see `WeightAttack.corrupt`; a tenth of the shadow set only measures utility.

        Raises:
            SpecError: no references or of several classes, the target among them or of another shape, too few shadow
                images, or no weight to train.
            AttackError: the loss only diverged, or the target came no closer to the references.
        """
        check_scene(target, references, shadow, self.batch)
        ground = prepare(encoder, shadow, runtime, self.trainable, self.optimizer == "natural")
        random = stream(seed, "attack")
        chosen = references.pixels[torch.randperm(len(references), generator=random)[: self.references]]
        scene = Scene(target, chosen, embed(encoder, chosen, runtime), shadow.pixels, ground, runtime)
        edited = copy.deepcopy(encoder)
        before = self._look(edited, scene)
        curve = self._descend(edited, scene, random, progress)
        after = self._look(edited, scene)
        if not after["target_loss"] < before["target_loss"]:
            raise AttackError(
                f"{self.name}: a target closer to the references than before",
                got=f"L_te {before['target_loss']:.4g} before and {after['target_loss']:.4g} after {len(curve)} steps",
                do="use more steps, a smaller step or a smaller utility weight",
            )
        state = {key: value.detach().cpu().contiguous().clone() for key, value in edited.body.state_dict().items()}
        changed, figures = difference(encoder.body.state_dict(), state)
        figures |= {f"{key}_before": before[key] for key in ("target_loss", "similarity")} | after
        together = self.batch + self.views + len(chosen) * self._moving
        looks = 2 * (1 + len(chosen) + len(ground.held_out))
        ledger = Ledger(
            changed=changed,
            objective=curve,
            objective_name="L_te + lambda L_mu" if not self.anchor else "L_te + lambda (L_mu + anchor L_an)",
            better="lower",
            figures=figures,
            passes=ground.passes + len(chosen) + len(curve) * together + looks,
        )
        return Corruption(state, ledger)

    @property
    def _rates(self) -> tuple[float, float]:
        """Step and utility, with the optimiser's defaults filled in."""
        step, utility = DEFAULTS[self.optimizer]
        return self.step or step, utility if self.utility is None else self.utility

    @property
    def _moving(self) -> bool:
        """Whether the references go through the edited encoder at each step."""
        return self.reference_side != "clean" or self.anchor > 0

    def _descend(self, edited: Encoder, scene: Scene, random: torch.Generator, progress: Progress) -> list[float]:
        """Train the chosen weights in place; returns the loss before each step."""
        ground, runtime = scene.ground, scene.runtime
        weights = ground.unlock(edited.body)
        step, utility = self._rates
        curve = list[float]()
        optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(weights, lr=step)
            if self.optimizer == "adam"
            else torch.optim.SGD(weights, lr=step, momentum=0.9)
        )
        start = [weight.detach().clone() for weight in weights]
        references = scene.references if self._moving else scene.references[:0]
        for rows in islice(ground.batches(self.batch, random), self.steps):
            views = views_of(scene.target, self.views, random)
            with runtime.autocast():
                z = edited(runtime.images(torch.cat([scene.shadow[rows], views, references])))
            clean = ground.z[rows].to(z)
            effectiveness, rest = self._losses(z, clean, scene, len(views))
            loss = effectiveness + utility * rest
            curve.append(float(loss.detach()))
            progress(len(curve), self.steps)
            if not curve[-1] <= DIVERGED * curve[0]:  # or not a number
                for weight, clean_weight in zip(weights, start, strict=True):
                    weight.data.copy_(clean_weight)
                optimizer.state.clear()
                optimizer.param_groups[0]["lr"] /= 4
                continue
            z_shadow, z_views = z.detach()[: len(rows)], z.detach()[len(rows) : len(rows) + len(views)]
            kept = float(cosine_similarity(z_shadow, clean).mean())
            if kept >= self.kept and scene.similarity(z_views) >= self.enough:
                break
            if len(curve) > self.steps // 2:
                utility *= RELAX
            gradients = torch.autograd.grad(loss, weights)
            steered = gradients if ground.metric is None else ground.metric.steer(gradients)
            if ground.metric is not None and len(curve) == 1:
                # The clean encoder is the minimum of all but L_te, so this gradient is that of L_te alone.
                slope = sum(float((g * s).sum()) for g, s in zip(gradients, steered, strict=True))
                rate = slope / float(effectiveness.detach())
                utility *= rate * z.shape[1] / 4
                optimizer.param_groups[0]["lr"] = step / rate
            for weight, gradient in zip(weights, steered, strict=True):
                weight.grad = gradient
            optimizer.step()
        return curve

    def _losses(self, z: Tensor, clean: Tensor, scene: Scene, views: int) -> tuple[Tensor, Tensor]:
        """L_te, and L_mu + anchor L_an.

        Args:
            z: [b + views + m, d], edited features of shadow images, views of the target and, if they move, references.
            clean: [b, d], clean features of those shadow images.
            scene: has the references' clean features.
            views: how many.
        """
        b = len(clean)
        x, x_clean, r_clean = (self._units(part, scene) for part in (z, clean, scene.z_references.to(z)))
        x_shadow, x_views, r = x[:b], x[b : b + views], x[b + views :]
        side = {"clean": r_clean, "detached": r.detach(), "moving": r}[self.reference_side]
        rest = dissimilarity(x_shadow, x_clean, self.similarity).mean()
        if self.anchor:
            rest = rest + self.anchor * dissimilarity(r, r_clean, self.similarity).mean()
        return target_loss(x_views, side, self.similarity, self.aggregation), rest

    def _units(self, z: Tensor, scene: Scene) -> Tensor:
        return scene.ground.scaler.apply(z) if self.similarity == "standardised" else z

    def _look(self, network: Encoder, scene: Scene) -> dict[str, float]:
        """Figures for the ledger, on the plain target and the held-out shadow rows."""
        ground, runtime = scene.ground, scene.runtime
        z_target = embed(network, scene.target[None], runtime)
        z_references = (
            scene.z_references if self.reference_side == "clean" else embed(network, scene.references, runtime)
        )
        z, clean = embed(network, scene.shadow[ground.held_out], runtime), ground.z[ground.held_out]
        pair = self._units(z_target, scene), self._units(z_references, scene)
        return {
            "target_loss": float(target_loss(*pair, self.similarity, self.aggregation)),
            "similarity": scene.similarity(z_target),
            "held_out_cosine": float(cosine_similarity(z, clean).mean()),
            "held_out_shift": float((ground.scaler.apply(z) - ground.scaler.apply(clean)).square().mean()),
        }


@dataclass(frozen=True, eq=False)
class Scene:
    """One target before its attack: uint8 [3, H, W], [m, 3, H, W] and [n, 3, H, W]; z_references [m, d] is clean."""

    target: Tensor
    references: Tensor
    z_references: Tensor
    shadow: Tensor
    ground: Ground
    runtime: Runtime

    def similarity(self, z: Tensor) -> float:
        """Cosine of a target's mean feature, z [v, d], and the class mean of the clean references in standard units."""
        apply = self.ground.scaler.apply
        return float(cosine_similarity(apply(z).mean(0), apply(self.z_references.to(z)).mean(0), dim=0))


def dissimilarity(a: Tensor, b: Tensor, similarity: Similarity) -> Tensor:
    """D over the last dimension, >= 0; a and b broadcast."""
    return 1 - cosine_similarity(a, b, dim=-1) if similarity == "cosine" else (a - b).square().mean(-1)


def target_loss(views: Tensor, references: Tensor, similarity: Similarity, aggregation: Aggregation) -> Tensor:
    """L_te, a scalar, of views [v, d] and references [m, d].

    >>> t, r = torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    >>> [float(target_loss(t, r, "standardised", how)) for how in ("class-mean", "mean", "max")]
    [2.0, 2.5, 0.5]
    """
    if aggregation == "class-mean":
        return dissimilarity(views, references.mean(0), similarity).mean()
    each = dissimilarity(views[:, None], references[None], similarity)  # [v, m]
    return each.mean() if aggregation == "mean" else each.amin(1).mean()
