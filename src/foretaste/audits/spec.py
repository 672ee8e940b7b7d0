"""`AuditSpec`: what the user asks for, as flags or as a YAML file. Importing this needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foretaste.audits.spec_parts import (
    COUNTERMEASURES,
    DEFAULT_COUNTERMEASURES,
    AttackerSpec,
    PretrainingSpec,
    ShadowSpec,
    chosen_countermeasures,
    typed_value,
)
from foretaste.data import SplitSpec
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import SpecError
from foretaste.method import Method, Since, describe, identity_entry, reference_of
from foretaste.plugins import divided
from foretaste.record import digest_of

DEMO_ATTACKS = ("label-flip", "exact", "exact:carrier=pixels", "pacl")
FEATURE_ATTACKS = ("label-flip", "exact")
IMAGE_KEYS = ("data", "data_dir", "download", "encoder")
GRID_AND_PLACE = ("attacks", "budgets", "seeds", "targets", "download", "device", "data_dir")
"""Keys in which audits of one folder may differ."""
MOST_BUDGET = 10


class MethodSpec(BaseModel):
    """A method by name, with the fields that differ from its defaults."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """`exact:carrier=pixels:epsilon=8` or `mine.py:Mine:epsilon=8` as a spec; values are read as in YAML.

        Raises:
            SpecError: no name, or a field without `=`.
        """
        name, fields = divided(text)
        pairs = [field.partition("=") for field in fields]
        if not name.strip() or any(not equals or not key.strip() for key, equals, _ in pairs):
            raise SpecError("method: name or name:field=value:field=value", got=repr(text))
        return cls(name=name.strip(), **{key.strip(): typed_value(value) for key, _, value in pairs})

    @classmethod
    def of(cls, method: Method) -> Self:
        """A configured method with the fields that differ from its defaults."""
        return cls(name=reference_of(type(method)), **method.model_dump(mode="json", exclude_defaults=True))

    @classmethod
    def key_of(cls, method: Method) -> str:
        """What a record calls it: its own name, also where it is from outside, with those fields."""
        return str(cls.of(method).model_copy(update={"name": method.name}))

    def __str__(self) -> str:
        """What `parse` reads."""
        return ":".join([self.name, *(f"{key}={value}" for key, value in self.fields.items())])

    @property
    def fields(self) -> dict[str, Any]:
        """What goes to the method's constructor."""
        return dict(self.model_extra or {})


class AuditSpec(BaseModel):
    """Everything that decides the numbers of an audit; where it is written to is not part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(default="digits", description="name of a data set (foretaste list), FILE.npz or a folder")
    data_dir: Path | None = Field(default=None, description="where the files of a standard data set are")
    download: bool = Field(default=False, description="fetch a standard data set that is not there")
    encoder: EncoderSpec = Field(
        default=EncoderSpec(reference="digits-simclr"), description="the encoder, see foretaste list"
    )
    features: Path | None = Field(default=None, description="features, without an encoder: npz with z [n, d] and y [n]")
    validation: Path | None = Field(default=None, description="the attacker's own rows, in the form of the input")
    test: Path | None = Field(default=None, description="the test rows, in the form of --features")
    split: SplitSpec = Field(
        default=SplitSpec(),
        description="shares train,validation,clean: the victim's, the attacker's and the defender's rows",
    )
    attacks: tuple[MethodSpec, ...] = Field(
        default=tuple(MethodSpec.parse(text) for text in DEMO_ATTACKS),
        description="names, each with its fields after colons (exact:carrier=pixels:epsilon=8); on features the "
        "default is label-flip,exact",
    )
    budgets: tuple[float, ...] = Field(default=(0.01, 0.03, 0.1), description="added or replaced rows / training rows")
    seeds: int = Field(default=3, ge=1, description="seeds 0, 1, ... of each labelled-data attack")
    targets: int = Field(
        default=20, ge=1, description="(target, class) pairs of each attack that steers one image, whatever its threat"
    )
    references: Annotated[Literal["own", "training"], Since("0.1")] = Field(
        default="own",
        description="images of the wanted class that the attacker holds: its own, or the head's training rows",
    )
    pretraining: Annotated[PretrainingSpec | None, Since("0.1")] = Field(
        default=None,
        description="images that the encoder goes on learning from, for attacks on them: DATA,limit=5000,epochs=5 (see "
        "foretaste list simclr)",
    )
    shadow: Annotated[ShadowSpec | None, Since("0.1")] = Field(
        default=None,
        description="images whose features attacks on the weights keep: DATA,limit=5000; default: its own rows",
    )
    probes: tuple[MethodSpec, ...] = Field(
        default=(MethodSpec(name="exact"),),
        description="as --attacks: the victims; the first is the headline",
    )
    ridge: float = Field(
        default=1e-3, gt=0, description="L2 weight of the exact head, and of the head that attacks assume"
    )
    attacker: Annotated[AttackerSpec, Since("0.1")] = Field(
        default=AttackerSpec(), description="what the attacker of the labelled data knows"
    )
    countermeasures: Annotated[tuple[str, ...], Since("0.1")] = Field(
        default=DEFAULT_COUNTERMEASURES,
        description=f"scored beside the headline: {', '.join(COUNTERMEASURES)}, or none",
    )
    defences: Annotated[tuple[MethodSpec, ...], Since("0.1")] = Field(
        default=(),
        description="as --attacks: filters of the training rows and certified heads (sphere,dpa); "
        "repairs, guards and scans of the encoder where an attack changed it (distil,views-vote,drift)",
    )
    other: Annotated[EncoderSpec | None, Since("0.1")] = Field(
        default=None, description="the defender's second encoder, of another origin, for agreement and neighbours"
    )
    null: Annotated[Path | None, Since("0.1")] = Field(
        default=None, description="folder of clean encoders, for the false-alarm rates of scans"
    )
    device: str = Field(default="auto", description="where to compute: auto, cpu or cuda")
    precision: str = Field(
        default="auto",
        pattern="^(auto|float32|bfloat16|bfloat16-channels-last|float32-channels-last)$",
        description="inside the encoder: auto, float32 or bfloat16",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        """Let a name stand for a method or an encoder; attacks that start from features do without an encoder."""
        if isinstance(values, dict):
            values = dict(values)
            if values.get("features") is not None and values.get("attacks") is None:
                values["attacks"] = FEATURE_ATTACKS
            for key in ("attacks", "probes", "defences"):
                items = values.get(key)
                if isinstance(items, list | tuple):
                    values[key] = [MethodSpec.parse(item) if isinstance(item, str) else item for item in items]
            if values.get("countermeasures") is not None:
                values["countermeasures"] = chosen_countermeasures(values["countermeasures"])
            for key in ("encoder", "other"):
                if isinstance(values.get(key), str):
                    values[key] = {"reference": values[key]}
            if isinstance(values.get("pretraining"), str):
                values["pretraining"] = PretrainingSpec.parse(values["pretraining"])
            if isinstance(values.get("shadow"), str):
                values["shadow"] = ShadowSpec.parse(values["shadow"])
        return values

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        for key in ("attacks", "probes", "budgets"):
            if not getattr(self, key):
                raise SpecError(f"{key}: at least one", got="none")
        for budget in self.budgets:
            if not 0 < budget <= MOST_BUDGET:
                raise SpecError(f"budgets: shares above 0 and at most {MOST_BUDGET}", got=f"{budget:g}")
        if len(set(self.budgets)) < len(self.budgets):
            raise SpecError("budgets: each one once", got=", ".join(f"{budget:g}" for budget in self.budgets))
        self._one_source()
        return self

    def _one_source(self) -> None:
        """Images through an encoder, or features; nothing that was said is ignored."""
        said = self.model_fields_set
        if self.features is None:
            if self.validation or self.test:
                raise SpecError(
                    "validation and test: files of features, beside `features`",
                    got="no features",
                    do="pass the training features too, or data and encoder without these",
                )
            if "data" in said and self.data != "digits" and "encoder" not in said:
                raise SpecError("encoder: the encoder to audit on these data", got="none", do="see `foretaste list`")
            return
        if both := [key for key in IMAGE_KEYS if key in said and getattr(self, key)]:
            raise SpecError(
                "features, or data with an encoder", got=f"features and {', '.join(both)}", do="pass one of them"
            )
        if self.pretraining is not None:
            raise SpecError("pretraining of an encoder", got="features from a file", do="drop it")
        if self.shadow is not None:
            raise SpecError("shadow images of attacks on an encoder", got="features from a file", do="drop it")
        if self.attacker.encoder is not None:
            raise SpecError("attacker of features, without an encoder", got="an encoder of its own", do="drop it")
        if "pixel-clipped" in self.countermeasures:
            raise SpecError("countermeasures on features", got="pixel-clipped, which is of images", do="drop it")
        if self.split.limit is not None:
            raise SpecError(
                "limit: rows of images", got=f"features and a limit of {self.split.limit}", do="save fewer features"
            )

    @classmethod
    def make(cls, values: dict[str, Any], source: str = "audit") -> Self:
        """Check values from a file or from flags.

        Raises:
            SpecError: an unknown key (the message lists the keys), or a value out of its range.
        """
        try:
            return cls.model_validate(values)
        except SpecError as error:
            raise SpecError(f"{source}: {error.expected}", got=error.got, do=error.do) from None
        except ValidationError as error:
            unknown = any(item["type"] == "extra_forbidden" for item in error.errors(include_url=False))
            expected = f"the keys {', '.join(cls.model_fields)}" if unknown else "values in their range"
            raise SpecError(f"{source}: {expected}", got=describe(error), do="correct it") from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """An audit from a YAML file.

        Raises:
            SpecError: no such file, not YAML, not a mapping, or as `make`.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise SpecError(f"{path}: a readable YAML file", got=reason, do="see `foretaste audit --dry-run`") from None
        if not isinstance(values, dict):
            raise SpecError(f"{path}: keys and values", got=type(values).__name__, do="see `foretaste audit --dry-run`")
        if None in values:  # what YAML makes of the key `null` without quotes
            values["null"] = values.pop(None)
        return cls.make(values, str(path))

    def to_yaml(self) -> str:
        """The whole spec, defaults included; `read` gives it back."""
        return yaml.safe_dump(self._entries(), sort_keys=False, allow_unicode=True)

    def base(self) -> dict[str, Any]:
        """What all trials of the audit share: their records may stand in one folder only if this is equal."""
        return identity_entry(self, [*GRID_AND_PLACE, *self._no_part()])

    def _entries(self) -> dict[str, Any]:
        """JSON types."""
        return self.model_dump(mode="json", exclude=set(self._no_part()))

    def _no_part(self) -> tuple[str, ...]:
        """The keys of images where the audit starts from features."""
        return () if self.features is None else IMAGE_KEYS


class Group(BaseModel):
    """Consecutive pairs that share one run of an attack.

    Attributes:
        first: number of its first pair, which seeds the run.
        pairs: (test row, desired class) each; one run's result depends on all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    first: int
    pairs: tuple[tuple[int, int], ...]


class TrialSpec(BaseModel):
    """One cell of the grid; its digest is the trial's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base: dict[str, Any]
    inputs: dict[str, str]
    attack: dict[str, Any]
    budget: float | None = None
    seed: int = 0
    target: tuple[int, int] | None = Field(default=None, description="(test row, desired class)")
    group: Annotated[Group | None, Since("0.1")] = Field(
        default=None, description="pairs that share its run; none: it has its own"
    )

    @property
    def identity(self) -> str:
        """sha256, shortened to 16 hex digits."""
        return digest_of(self.entry())[:16]

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The pairs of its run, its own among them; none where the attack is after the accuracy."""
        if self.target is None:
            return ()
        return (self.target,) if self.group is None else self.group.pairs

    @property
    def run_seed(self) -> int:
        """Seed of the run that it may share."""
        return self.seed if self.group is None else self.group.first

    def entry(self) -> dict[str, Any]:
        """JSON types."""
        return identity_entry(self)
