"""Parts of `AuditSpec`: values as typed, what the defender does to rows, other images, and what the attacker knows.

Importing this needs no torch.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from foretaste.encoders.spec import EncoderSpec
from foretaste.errors import SpecError

COUNTERMEASURES: dict[str, str] = {
    "clipped": "each feature of the poison clipped to the range of the clean training rows",
    "pixel-clipped": "each colour channel of the training images clipped to the range of the clean ones",
    "norm-filtered": "training rows dropped whose feature norm lies outside the 0.5 and 99.5 % quantiles",
    "centroid-filtered": "training rows dropped that are further from the centroid of their label than 99 % are",
}
"""Name -> one line; what they compute is in `audit.countermeasures`."""

DEFAULT_COUNTERMEASURES = ("clipped",)


def typed_value(text: str) -> Any:
    """A field's value as YAML reads it (8 is a number), or the text itself."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def chosen_countermeasures(said: Any) -> Any:
    """Names in the order of the table, so that the order in which they were said makes no other audit.

    Args:
        said: names, or one name; `none` alone stands for no name. What is neither is given back for pydantic to refuse.

    Raises:
        SpecError: an unknown name, one twice, or `none` beside others.
    """
    names = [said] if isinstance(said, str) else said
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return said
    known = ", ".join([*COUNTERMEASURES, "none"])
    for name in names:
        if name not in COUNTERMEASURES and name != "none":
            raise SpecError(f"countermeasures: {known}", got=repr(name), do="correct the name")
    if len(set(names)) < len(names) or ("none" in names and len(names) > 1):
        raise SpecError("countermeasures: each one once, or `none` alone", got=", ".join(names), do="drop one")
    return tuple(name for name in COUNTERMEASURES if name in names)


class DrawnSpec(BaseModel):
    """Images of a data set, all or some of them; labels and test part are not used.

    Attributes:
        data: name of a data set, an .npz file or an image folder.
        limit: use so many of its images, drawn at random; None: all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    form: ClassVar[str]
    """What `parse` reads, for the message."""
    data: str = Field(description="a name, an .npz file or a folder")
    limit: int | None = Field(default=None, ge=2, description="use so many of them, drawn at random")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`cifar10,limit=2000,epochs=5` as a spec; values are read as in YAML.

        Raises:
            SpecError: no data, or a field without `=`.
        """
        data, *fields = text.split(",")
        pairs = [field.partition("=") for field in fields]
        if not data.strip() or any(not equals or not key.strip() for key, equals, _ in pairs):
            raise SpecError(cls.form, got=repr(text))
        values: dict[str, Any] = {key.strip(): typed_value(value) for key, _, value in pairs}
        return cls(data=data.strip(), **values)


class PretrainingSpec(DrawnSpec):
    """Pre-training that an attacker of its images can poison: the audited encoder, continued on `data`.

    Every other key is a field of `SimCLR` (`foretaste list simclr`), such as epochs, lr or batch.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    form: ClassVar[str] = "pretraining: DATA or DATA,field=value,field=value"

    @property
    def fields(self) -> dict[str, Any]:
        """What goes to `SimCLR`."""
        return dict(self.model_extra or {})


class ShadowSpec(DrawnSpec):
    """The unlabelled images whose features an attack on the weights keeps, of another origin than the audited data."""

    form: ClassVar[str] = "shadow: DATA or DATA,limit=ROWS"


class AttackerSpec(BaseModel):
    """Which rows and which encoder the attacker works on; the head is always retrained on the victim's own.

    Rows `surrogate`: none of the victim's; half of the attacker's own rows stands for them, and the other half is its
    validation part. The encoder is in the place of the victim's; None: the victim's own (white box).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    rows: Literal["full", "subset", "surrogate"] = Field(default="full", description="training rows that it knows")
    share: float = Field(default=0.1, gt=0, le=1, description="share of each class, for rows subset")
    encoder: EncoderSpec | None = Field(default=None, description="its own encoder; default: the victim's")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, values: Any) -> Any:
        """A name stands for an encoder."""
        if isinstance(values, dict) and isinstance(values.get("encoder"), str):
            return {**values, "encoder": {"reference": values["encoder"]}}
        return values

    @model_validator(mode="after")
    def _share_of_a_subset(self) -> Self:
        if self.rows != "subset" and self.share != type(self).model_fields["share"].default:
            raise ValueError(f"share is one of rows subset, got rows {self.rows} and share {self.share:g}")
        return self

    @property
    def default(self) -> bool:
        """The attacker knows everything but the test rows and the defender's."""
        return self == AttackerSpec()
