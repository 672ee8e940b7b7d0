"""PA-CL: edit a pre-trained encoder so that one chosen image gets one chosen class downstream.

Chen, Gao, Liu, Abdelmoniem, Wang: Manipulating Pre-trained Encoder for Targeted Poisoning Attacks in Contrastive
Learning, IEEE TIFS 2024, doi 10.1109/TIFS.2024.3350389. Only the abstract is public: this is our reconstruction. With
the clean encoder f, the edited one f', the target t, references r_j of the desired class and unlabelled images s:

    L = L_te + lambda * (L_mu + anchor * L_an)
    L_te = D(f'(t), {f'(r_j)})         target effectiveness: the target's feature goes to the class
    L_mu = mean_s D(f'(s), f(s))       model utility: other features stay
    L_an = mean_j D(f'(r_j), f(r_j))   the references stay (the second loss of BadEncoder, Jia et al. 2022)

D is 1 - cosine of features, the mean squared difference of standardised features, or the squared distance of features
of length one (between two features that is 2 - 2 cosine). Beyond the paper: several pairs of a target and a class,
whose L_te are added up; a hinge on the target's distance from the class's cloud (`cloud`); L_te after a victim's
fine-tuning (`durable`); and an edit that reckons with a repair, a scan or a guard of the encoder (`adaptive`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from foretaste.attacks.base import Corruption, Progress, quiet
from foretaste.attacks.weights.adaptive import SAMPLE, AdaptiveWeightAttack, Simulation, behind, scene_behind
from foretaste.attacks.weights.edited import Edited, norms_of
from foretaste.attacks.weights.ground import Part, prepare
from foretaste.attacks.weights.metric import METRIC_ROWS
from foretaste.attacks.weights.pacl_descent import RENEW, Descent
from foretaste.attacks.weights.scene import Figures, Scene, check_pairs, edit, scene_of
from foretaste.attacks.weights.target_loss import Aggregation, Similarity, dissimilarity, target_loss
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.method import Since
from foretaste.runtime import Runtime, stream

DEFAULTS = {"natural": (0.1, 0.025), "adam": (1e-3, 100.0), "sgd": (0.05, 10.0)}
"""Step and utility by optimiser."""


class PACL(AdaptiveWeightAttack):
    """PA-CL (our reconstruction). BatchNorm stays in eval mode; only kernels and matrices are trained.

    The default optimiser measures its steps by how much they move the features of shadow images (`metric.Metric`).
    What lies before the trained weights runs once per image (`split.Split`); with `batchnorm="moving"` nothing does.
    """

    name: ClassVar[str] = "pacl"
    trainable: Part = Field(
        "last-stage",
        description="kernels and matrices: all, the last half, or quarter; full: biases and affine parameters as well",
    )
    batchnorm: Annotated[Literal["frozen", "moving"], Since("0.1")] = Field(
        "frozen", description="moving: statistics of the batch, which also move the kept ones: an ablation"
    )
    similarity: Similarity = Field("standardised", description="what D compares")
    aggregation: Aggregation = Field(
        "class-mean", description="L_te to the references' mean, to each, or to the nearest"
    )
    reference_side: Literal["clean", "detached", "moving"] = Field(
        "clean", description="L_te's references: f(r), or f'(r) without or with gradient"
    )
    references: int = Field(50, ge=1, description="most references used; drawn from those given")
    together: Annotated[int, Since("0.1")] = Field(1, ge=1, description="(target, class) pairs that share one encoder")
    views: int = Field(1, ge=1, description="1: the target as it is; more: so many random crops and flips per step")
    noise: Annotated[float, Since("0.1")] = Field(
        0.0, ge=0, description="standard deviation, in 1/255, of normal noise on those views"
    )
    shadow_share: Annotated[float, Since("0.1")] = Field(
        1.0, gt=0, le=1, description="share of the shadow images that is used"
    )
    effectiveness: Annotated[float, Since("0.1")] = Field(
        1.0, ge=0, description="weight of L_te; 0, for adam and sgd: an ablation"
    )
    utility: float | None = Field(
        None,
        ge=0,
        description="lambda, the weight of L_mu; natural: in units of the target's leverage (how much further, squared,"
        " a step in the metric moves the target than an ordinary image); default: by optimizer",
    )
    anchor: float = Field(0.0, ge=0, description="weight of L_an relative to L_mu")
    in_distribution: Annotated[float, Since("0.1")] = Field(
        0.0, ge=0, description="weight of the target's distance from the class beyond the median reference's own"
    )
    durable: Annotated[int, Since("0.1")] = Field(
        0, ge=0, description="SGD steps of a victim that are simulated at each step, for an edit that outlives them"
    )
    durable_step: Annotated[float, Since("0.1")] = Field(0.05, gt=0, description="learning rate of that victim")
    optimizer: Literal["natural", "adam", "sgd"] = Field("natural", description="natural: momentum in the metric")
    step: float | None = Field(
        None, gt=0, description="natural: share of L_te the first step takes; else learning rate; default: by optimizer"
    )
    steps: int = Field(100, ge=1, description="at most")
    batch: int = Field(128, ge=1, description="shadow images per step")
    enough: float = Field(0.98, le=1, description="stop at this cosine of target and class mean, in standard units ...")
    kept: float = Field(0.99, le=1, description="... if shadow features keep this mean cosine to their clean ones")

    @model_validator(mode="after")
    def _noise_is_on_views(self) -> Self:
        if self.noise and self.views == 1:
            raise ValueError(f"noise = {self.noise:g} is on random views of the target, and views = 1")
        return self

    @model_validator(mode="after")
    def _victim_keeps_statistics(self) -> Self:
        if self.durable and self.batchnorm == "moving":
            raise ValueError("durable simulates a victim in eval mode, and batchnorm = moving")
        if self.against and self.batchnorm == "moving":
            raise ValueError("against simulates an encoder whose statistics stay, and batchnorm = moving")
        if self.durable and self.batch < 2:
            raise ValueError(f"durable compares images of a batch, and batch = {self.batch}")
        return self

    @model_validator(mode="after")
    def _natural_steps_are_measured_by_the_target(self) -> Self:
        if not self.effectiveness and self.optimizer == "natural":
            raise ValueError("effectiveness = 0 leaves optimizer natural nothing to measure its step by")
        return self

    def planned(self, shadow: int) -> int:
        """All steps, and what is prepared; see `WeightAttack.planned`."""
        return self.planned_against(shadow, None)

    def planned_against(self, shadow: int, simulation: Simulation | None) -> int:
        """All steps with their look-ahead, and what is prepared; see `AdaptiveWeightAttack.planned_against`."""
        if simulation is not None and simulation.views > self.views:
            return self.model_copy(update={"views": simulation.views}).planned_against(shadow, simulation)
        prepared = min(shadow, METRIC_ROWS) * (self.optimizer == "natural")
        pairs = self.together * (self.views + self.references * self.moves_references)
        return self.steps * (self.batch + pairs + self._ahead(pairs, simulation)) + prepared

    def _ahead(self, pairs: int, simulation: Simulation | None) -> int:
        """Images that a step's look-ahead sends through the network: two views of each batch, and the pairs' own.

        Behind a repair, those that give its units and class means as well.
        """
        steps = self.durable or (0 if simulation is None else simulation.steps)
        if simulation is not None and simulation.weight:
            return 2 * steps * self.batch + pairs + (SAMPLE + self.together * self.references) // RENEW
        return 2 * steps * self.batch + pairs if steps else 0

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
            SpecError: as of `corrupt_together`.
            AttackError: the loss only diverged, or the target came no closer to the references.
        """
        return self.corrupt_together(encoder, [target], [references], shadow, seed, runtime, progress)

    def corrupt_together(
        self,
        encoder: Encoder,
        targets: Sequence[Tensor],
        references: Sequence[Images],
        shadow: Images,
        seed: int,
        runtime: Runtime,
        progress: Progress = quiet,
    ) -> Corruption:
        """Edit one copy of the encoder for all pairs, see `WeightAttack.corrupt_together`.

        The edit stops when the last of the targets is there. With several, the figures `similarity` and
        `cloud_distance` are those of the pair that came least far, and `similarity_0` and so on are each pair's.

        Raises:
            SpecError: no references or of several classes, a target among them, twice or of another shape, too few
                shadow images, no weight to train or one that is tied, or no BatchNorm to move.
            AttackError: the loss only diverged, or the targets came no closer to their references.
        """
        if self.against is not None:
            raise SpecError(
                f"{self.name} against {self.against}: a simulation of that defence",
                got="none",
                do="call corrupt_against, as `foretaste audit` and `foretaste attack` do",
            )
        return self.corrupt_against(encoder, targets, references, shadow, seed, runtime, None, progress)

    def corrupt_against(
        self,
        encoder: Encoder,
        targets: Sequence[Tensor],
        references: Sequence[Images],
        shadow: Images,
        seed: int,
        runtime: Runtime,
        simulation: Simulation | None,
        progress: Progress = quiet,
    ) -> Corruption:
        """Edit for all pairs, reckoning with a defence, see `AdaptiveWeightAttack.corrupt_against`.

        Behind a repair the class mean and the units are those of the repaired encoder. The ledger's `similarity_behind`
        is that of the worst pair behind the repair, worked out at the last weights: by it the edit would survive it.

        Raises:
            SpecError, AttackError: as of `corrupt_together`; where only the target's loss behind the repair counts, it
                is that which must fall.
        """
        if simulation is not None and simulation.views > self.views:
            wider = self.model_copy(update={"views": simulation.views})
            return wider.corrupt_against(encoder, targets, references, shadow, seed, runtime, simulation, progress)
        check_pairs(targets, references, shadow, self.batch, self.shadow_share)
        self._check(encoder, references)
        natural, still = self.optimizer == "natural", self.batchnorm == "frozen"
        ground = prepare(encoder, shadow, runtime, self.trainable, natural, self.shadow_share, still)
        random = stream(seed, "attack")
        scene = scene_of(encoder, targets, references, self.references, ground, runtime, random)
        pairs = len(targets) * self.views + sum(scene.counts) * self.moves_references
        only_behind = simulation is not None and simulation.weight == 1
        return edit(
            encoder,
            scene,
            lambda edited: self._descend(edited, scene, random, progress, simulation),
            lambda network: self._look(network, scene, simulation),
            name=self.name,
            judged=("target_loss_behind", "L_te behind the repair") if only_behind else ("target_loss", "L_te"),
            objective=self._objective,
            per_step=self.batch + pairs + self._ahead(pairs, simulation),
            do="use more steps, a smaller step or a smaller utility weight",
            must_fall=self.effectiveness > 0,
        )

    def _check(self, encoder: Encoder, references: Sequence[Images]) -> None:
        if self.batchnorm == "moving" and not norms_of(encoder):
            raise SpecError(
                f"batchnorm moving: an encoder with BatchNorm, which {encoder.card.name} shall be",
                got="no layer that keeps statistics",
                do="use batchnorm frozen",
            )
        fewest = min(self.references, *(len(own) for own in references))
        if self.in_distribution and fewest < 2:
            raise SpecError("in_distribution: at least 2 references of a class, whose spread it measures", got="1")

    @property
    def _objective(self) -> str:
        rest = "lambda L_mu" if not self.anchor else "lambda (L_mu + anchor L_an)"
        return f"L_te + {rest}" if not self.in_distribution else f"L_te + in_distribution L_in + {rest}"

    @property
    def rates(self) -> tuple[float, float]:
        """Step and utility, with the optimiser's defaults filled in."""
        step, utility = DEFAULTS[self.optimizer]
        return self.step or step, utility if self.utility is None else self.utility

    @property
    def moves_references(self) -> bool:
        """Whether the references go through the edited encoder at each step."""
        return self.reference_side != "clean" or self.anchor > 0

    def _descend(
        self,
        edited: Edited,
        scene: Scene,
        random: torch.Generator,
        progress: Progress,
        simulation: Simulation | None = None,
    ) -> tuple[list[float], Figures]:
        """Train the chosen weights in place; returns the loss before each step, and figures of its own."""
        return Descent(self, edited, scene, random, simulation).run(progress)

    def _parts(self, z: Tensor, b: int, scene: Scene) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
        """Features of a step as those of b shadow images, of each target's views and of each pair's references."""
        views = self.views * len(scene.pairs)
        moving = z[b + views :].split(scene.counts) if self.moves_references else ()
        return z[:b], z[b : b + views].split(self.views), moving

    def losses(self, z: Tensor, clean: Tensor, scene: Scene) -> tuple[Tensor, Tensor]:
        """The pairs' L_te (with what `in_distribution` adds), and L_mu + anchor L_an.

        Args:
            z: [b + k views + m, d], edited features of shadow images, of each target's views and, if they move, of each
                pair's references.
            clean: [b, d], clean features of those shadow images.
            scene: has the k pairs, and their references' clean features.
        """
        shadow, views, moving = self._parts(z, len(clean), scene)
        rest = dissimilarity(self._units(shadow, scene), self._units(clean, scene), self.similarity).mean()
        effectiveness = z.new_zeros(())
        for number, (pair, x) in enumerate(zip(scene.pairs, views, strict=True)):
            r_clean = self._units(pair.z.to(z), scene)
            r = self._units(moving[number], scene) if self.moves_references else r_clean
            side = {"clean": r_clean, "detached": r.detach(), "moving": r}[self.reference_side]
            effectiveness = effectiveness + target_loss(self._units(x, scene), side, self.similarity, self.aggregation)
            if self.in_distribution:
                effectiveness = effectiveness + self.in_distribution * pair.cloud.excess(x).mean()
            if self.anchor:
                rest = rest + self.anchor * dissimilarity(r, r_clean, self.similarity).mean() / len(scene.pairs)
        return effectiveness, rest

    def there(self, z: Tensor, clean: Tensor, scene: Scene, *, targets: bool = True) -> bool:
        """Whether the shadow features are within their limit, and every target (if these count) as similar as asked."""
        shadow, _, _ = self._parts(z, len(clean), scene)
        kept = float(cosine_similarity(shadow, clean).mean()) >= self.kept
        return kept and (not targets or self.similar(z, len(clean), scene))

    def views_in(self, z: Tensor, b: int, scene: Scene) -> Sequence[Tensor]:
        """Features of each target's views, [v, d] each; z as of `_parts`."""
        return self._parts(z, b, scene)[1]

    def suspicion(self, z: Tensor, clean: Tensor, scene: Scene, simulation: Simulation) -> Tensor:
        """What a scan would hold against the targets, a scalar; z and clean as of `losses`."""
        apply, (shadow, views, _) = scene.ground.scaler.apply, self._parts(z, len(clean), scene)
        total = z.new_zeros(())
        for pair, x in zip(scene.pairs, views, strict=True):
            found = simulation.suspicion(apply(x), apply(pair.z.to(z)).mean(0), apply(shadow), apply(clean))
            total = total if found is None else total + found
        return total

    def similar(self, z: Tensor, b: int, scene: Scene) -> bool:
        """Whether every target is as similar as asked; z as of `_parts`."""
        _, views, _ = self._parts(z, b, scene)
        pairs = list(zip(views, scene.pairs, strict=True))
        inside = not self.in_distribution or not any(bool(pair.cloud.excess(x).any()) for x, pair in pairs)
        return inside and all(scene.similarity(x, pair) >= self.enough for x, pair in pairs)

    def _units(self, z: Tensor, scene: Scene) -> Tensor:
        if self.similarity == "standardised":
            return scene.ground.scaler.apply(z)
        return normalize(z, dim=-1) if self.similarity == "normalised" else z

    def _look(self, network: Encoder, scene: Scene, simulation: Simulation | None = None) -> Figures:
        """Figures for the ledger, on the plain targets and the held-out shadow rows."""
        ground, runtime = scene.ground, scene.runtime
        z_targets = embed(network, scene.targets, runtime).split(1)
        if self.reference_side == "clean":
            sides = [pair.z for pair in scene.pairs]
        else:
            sides = list(embed(network, scene.references, runtime).split(scene.counts))
        each = list(zip(scene.pairs, z_targets, sides, strict=True))
        z, clean = embed(network, ground.pixels[ground.held_out], runtime), ground.z[ground.held_out]
        losses = (
            target_loss(self._units(x, scene), self._units(r, scene), self.similarity, self.aggregation)
            for _, x, r in each
        )
        similarities = [scene.similarity(x, pair) for pair, x, _ in each]
        figures = {
            "target_loss": sum(map(float, losses)),
            "similarity": min(similarities),
            "held_out_cosine": float(cosine_similarity(z, clean).mean()),
            "held_out_shift": float((ground.scaler.apply(z) - ground.scaler.apply(clean)).square().mean()),
        }
        if min(scene.counts) > 1:
            figures["cloud_distance"] = max(float(pair.cloud.distance(x)) for pair, x, _ in each)
        if len(each) > 1:
            figures |= {f"similarity_{number}": value for number, value in enumerate(similarities)}
        if simulation is not None and simulation.weight == 1:
            figures["target_loss_behind"] = self._loss_behind(network, scene, simulation)
        return figures

    def _loss_behind(self, network: Encoder, scene: Scene, simulation: Simulation) -> float:
        affine = simulation.repaired(network, scene.ground.names)
        seen = scene_behind(network, affine, scene)
        with behind(network, affine):
            z = embed(network, scene.targets, scene.runtime).split(1)
        return sum(
            float(target_loss(self._units(x, seen), self._units(pair.z, seen), self.similarity, self.aggregation))
            for x, pair in zip(z, seen.pairs, strict=True)
        )
