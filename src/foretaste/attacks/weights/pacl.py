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
whose L_te are added up; a hinge on the target's distance from the class's cloud (`editing.terms`); L_te after a
victim's fine-tuning (`editing.unrolled_finetuning`); and an edit that reckons with a repair, a scan or a guard of the
encoder (`editing.adaptive`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch.nn.functional import cosine_similarity

from foretaste.attacks.base import Progress, quiet
from foretaste.attacks.editing.adaptive import SAMPLE, AdaptiveWeightAttack, prepared_behind
from foretaste.attacks.editing.descent import RENEW, Descent, Schedule
from foretaste.attacks.editing.editable_encoder import norms_of
from foretaste.attacks.editing.natural_metric import METRIC_ROWS
from foretaste.attacks.editing.objective import Objective, Side
from foretaste.attacks.editing.problem import Figures, PreparedProblem, check_pairs, edit, prepare_problem
from foretaste.attacks.editing.shadow_cache import Part, prepare_shadow
from foretaste.attacks.editing.terms import Aggregation, Similarity
from foretaste.attacks.knowledge import EditProblem
from foretaste.attacks.results import Corruption
from foretaste.attacks.surrogates import EncoderSurrogate
from foretaste.encoders.affine import mapped
from foretaste.encoders.base import Encoder
from foretaste.errors import SpecError
from foretaste.features.embed import embed
from foretaste.images import Images
from foretaste.method import Since
from foretaste.runtime import stream

DEFAULTS = {"natural": (0.1, 0.025), "adam": (1e-3, 100.0), "sgd": (0.05, 10.0)}
"""Step and utility by optimiser."""


class PACL(AdaptiveWeightAttack):
    """PA-CL (our reconstruction). BatchNorm stays in eval mode; only kernels and matrices are trained.

    The default optimiser measures its steps by how much they move the features of shadow images
    (`editing.natural_metric`). What lies before the trained weights runs once per image (`editing.frozen_prefix`); with
    `batchnorm="moving"` nothing does.
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
    reference_side: Side = Field("clean", description="L_te's references: f(r), or f'(r) without or with gradient")
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

    def planned(self, shadow: int, surrogate: EncoderSurrogate | None = None) -> int:
        """All steps with their look-ahead, and what is prepared; see `WeightAttack.planned`."""
        if surrogate is not None and surrogate.views > self.views:
            return self.model_copy(update={"views": surrogate.views}).planned(shadow, surrogate)
        prepared = min(shadow, METRIC_ROWS) * (self.optimizer == "natural")
        pairs = self.together * (self.views + self.references * self.objective.moves_references)
        return self.steps * (self.batch + pairs + self._ahead(pairs, surrogate)) + prepared

    def _ahead(self, pairs: int, surrogate: EncoderSurrogate | None) -> int:
        """Images that a step's look-ahead sends through the network: two views of each batch, and the pairs' own.

        Behind a repair, those that give its units and class means as well.
        """
        steps = self.durable or (0 if surrogate is None else surrogate.steps)
        if surrogate is not None and surrogate.weight:
            return 2 * steps * self.batch + pairs + (SAMPLE + self.together * self.references) // RENEW
        return 2 * steps * self.batch + pairs if steps else 0

    def corrupt(
        self, problem: EditProblem, surrogate: EncoderSurrogate | None = None, progress: Progress = quiet
    ) -> Corruption:
        """Edit one copy of the encoder for all pairs, see `WeightAttack.corrupt`.

        The edit stops when the last of the targets is there; a tenth of the shadow set only measures utility. With
        several targets, the figures `similarity` and `cloud_distance` are those of the pair that came least far, and
        `similarity_0` and so on are each pair's. Behind a repair the class mean and the units are those of the repaired
        encoder. The ledger's `similarity_behind` is that of the worst pair behind the repair, worked out at the last
        weights: by it the edit would survive it.

        Raises:
            SpecError: `against` names a defence and there is no surrogate; no references or of several classes, a
                target among them, twice or of another shape, too few shadow images, no weight to train or one that is
                tied, or no BatchNorm to move.
            AttackError: the loss only diverged, or the targets came no closer to their references; where only the
                target's loss behind the repair counts, it is that which must fall.
        """
        self.needs_surrogate(surrogate)
        if surrogate is not None and surrogate.views > self.views:
            return self.model_copy(update={"views": surrogate.views}).corrupt(problem, surrogate, progress)
        check_pairs(problem, self.batch, self.shadow_share)
        encoder, runtime = problem.encoder, problem.runtime
        self._check(encoder, problem.references)
        natural, still = self.optimizer == "natural", self.batchnorm == "frozen"
        cache = prepare_shadow(encoder, problem.shadow, runtime, self.trainable, natural, self.shadow_share, still)
        random = stream(problem.seed, "attack")
        prepared = prepare_problem(problem, self.references, cache, random)
        pairs = len(problem.targets) * self.views + sum(prepared.counts) * self.objective.moves_references
        only_behind = surrogate is not None and surrogate.weight == 1
        return edit(
            encoder,
            prepared,
            lambda edited: self._descend(
                Descent(self.objective, self._schedule, edited, prepared, random, surrogate), progress
            ),
            lambda network: self._look(network, prepared, surrogate),
            name=self.name,
            judged=("target_loss_behind", "L_te behind the repair") if only_behind else ("target_loss", "L_te"),
            objective=self._objective,
            per_step=self.batch + pairs + self._ahead(pairs, surrogate),
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
    def objective(self) -> Objective:
        """The losses, and when the edit is far enough."""
        return Objective(
            similarity=self.similarity,
            aggregation=self.aggregation,
            reference_side=self.reference_side,
            anchor=self.anchor,
            in_distribution=self.in_distribution,
            views=self.views,
            enough=self.enough,
            kept=self.kept,
        )

    @property
    def _schedule(self) -> Schedule:
        step, utility = self.rates
        return Schedule(
            optimizer=self.optimizer,
            step=step,
            effectiveness=self.effectiveness,
            utility=utility,
            steps=self.steps,
            batch=self.batch,
            moving=self.batchnorm == "moving",
            noise=self.noise,
            durable=self.durable,
            durable_step=self.durable_step,
        )

    def _descend(self, descent: Descent, progress: Progress) -> tuple[list[float], Figures]:
        """Train the chosen weights in place; returns the loss before each step, and figures of its own."""
        return descent.run(progress)

    def _look(self, network: Encoder, prepared: PreparedProblem, surrogate: EncoderSurrogate | None = None) -> Figures:
        """Figures for the ledger, on the plain targets and the held-out shadow rows."""
        objective, cache, runtime = self.objective, prepared.cache, prepared.runtime
        z_targets = embed(network, prepared.targets, runtime).split(1)
        if self.reference_side == "clean":
            sides = [pair.z for pair in prepared.pairs]
        else:
            sides = list(embed(network, prepared.references, runtime).split(prepared.counts))
        each = list(zip(prepared.pairs, z_targets, sides, strict=True))
        z, clean = embed(network, cache.pixels[cache.held_out], runtime), cache.z[cache.held_out]
        losses = (objective.distance(x, r, prepared) for _, x, r in each)
        similarities = [prepared.similarity(x, pair) for pair, x, _ in each]
        figures = {
            "target_loss": sum(map(float, losses)),
            "similarity": min(similarities),
            "held_out_cosine": float(cosine_similarity(z, clean).mean()),
            "held_out_shift": float((cache.scaler.apply(z) - cache.scaler.apply(clean)).square().mean()),
        }
        if min(prepared.counts) > 1:
            figures["cloud_distance"] = max(float(pair.cloud.distance(x)) for pair, x, _ in each)
        if len(each) > 1:
            figures |= {f"similarity_{number}": value for number, value in enumerate(similarities)}
        if surrogate is not None and surrogate.weight == 1:
            figures["target_loss_behind"] = self._loss_behind(network, prepared, surrogate)
        return figures

    def _loss_behind(self, network: Encoder, prepared: PreparedProblem, surrogate: EncoderSurrogate) -> float:
        affine = surrogate.repaired(network, prepared.cache.names)
        seen = prepared_behind(network, affine, prepared)
        with mapped(network, affine):
            z = embed(network, prepared.targets, prepared.runtime).split(1)
        return sum(float(self.objective.distance(x, pair.z, seen)) for x, pair in zip(z, seen.pairs, strict=True))
