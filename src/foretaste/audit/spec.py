"""`AuditSpec`: what the user asks for, as flags or as a YAML file. Importing this needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foretaste.data import SplitSpec
from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import SpecError
from foretaste.method import describe
from foretaste.record import digest_of

DEMO_ATTACKS = ("label-flip", "exact", "exact:carrier=pixels", "pacl")


class MethodSpec(BaseModel):
    """A method by name, with the fields that differ from its defaults."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """`exact:carrier=pixels:epsilon=8` as a spec.

        Raises:
            SpecError: a field without `=`.
        """
        name, *fields = text.split(":")
        pairs = [field.partition("=") for field in fields]
        if any(not equals or not key for key, equals, _ in pairs):
            raise SpecError("method: name or name:field=value:field=value", got=repr(text))
        return cls(name=name.strip(), **{key.strip(): value for key, _, value in pairs})

    @property
    def fields(self) -> dict[str, Any]:
        """What goes to the method's constructor."""
        return dict(self.model_extra or {})


class AuditSpec(BaseModel):
    """Everything that decides the numbers of an audit; where it is written to is not part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(default="digits", description="name of a data set, an .npz file or an image folder")
    data_dir: Path | None = Field(default=None, description="where the files of a standard data set are")
    download: bool = Field(default=False, description="fetch a standard data set that is not there")
    encoder: EncoderSpec = Field(default=EncoderSpec(reference="digits-simclr"), description="the victim's encoder")
    features: Path | None = Field(default=None, description="npz with z and y: audit features, without an encoder")
    validation: Path | None = Field(default=None, description="npz with the attacker's validation features")
    test: Path | None = Field(default=None, description="npz with the test features")
    split: SplitSpec = SplitSpec()
    attacks: tuple[MethodSpec, ...] = Field(
        default=tuple(MethodSpec.parse(text) for text in DEMO_ATTACKS), description="attacks with their fields"
    )
    budgets: tuple[float, ...] = Field(default=(0.01, 0.03, 0.1), description="added rows / training rows")
    seeds: int = Field(default=3, ge=1, description="seeds 0, 1, ... of each labelled-data attack")
    targets: int = Field(default=20, ge=1, description="(target, class) pairs of each attack on the weights")
    probes: tuple[MethodSpec, ...] = Field(
        default=(MethodSpec(name="exact"),), description="victims; the first is the headline"
    )
    ridge: float = Field(
        default=1e-3, gt=0, description="L2 weight of the exact head, and of the head that attacks assume"
    )
    device: str = Field(default="auto", description="auto, cpu or cuda")
    precision: str = Field(
        default="auto", pattern="^(auto|float32|bfloat16|bfloat16-channels-last|float32-channels-last)$"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        """Let a name stand for a method or an encoder."""
        if isinstance(values, dict):
            values = dict(values)
            for key in ("attacks", "probes"):
                items = values.get(key)
                if isinstance(items, list | tuple):
                    values[key] = [MethodSpec.parse(item) if isinstance(item, str) else item for item in items]
            if isinstance(values.get("encoder"), str):
                values["encoder"] = {"reference": values["encoder"]}
        return values

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.attacks or not self.probes or not self.budgets:
            raise ValueError("attacks, probes and budgets must not be empty")
        bad = [budget for budget in self.budgets if not 0 < budget <= 10]
        if bad:
            raise ValueError(f"budgets must be in (0, 10], got {bad[0]:g}")
        if self.features is None and (self.validation or self.test):
            raise ValueError("validation and test files go with features, which is missing")
        return self

    @classmethod
    def make(cls, values: dict[str, Any], source: str = "audit") -> Self:
        """Check values from a file or from flags.

        Raises:
            SpecError: an unknown key or a value out of its range; the message lists the keys.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            keys = ", ".join(cls.model_fields)
            raise SpecError(f"{source}: an audit with the keys {keys}", got=describe(error), do="correct it") from None

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
        return cls.make(values, str(path))

    def to_yaml(self) -> str:
        """The whole spec, defaults included; `read` gives it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def base(self) -> dict[str, Any]:
        """What all trials of the audit share: their records may stand in one folder only if this is equal."""
        grid = {"attacks", "budgets", "seeds", "targets", "download", "device", "data_dir"}
        return self.model_dump(mode="json", exclude=grid)


class TrialSpec(BaseModel):
    """One cell of the grid; its digest is the trial's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base: dict[str, Any]
    inputs: dict[str, str]
    attack: dict[str, Any]
    budget: float | None = None
    seed: int = 0
    target: tuple[int, int] | None = Field(default=None, description="(test row, desired class)")

    @property
    def identity(self) -> str:
        """sha256, shortened to 16 hex digits."""
        return digest_of(self.model_dump(mode="json"))[:16]
