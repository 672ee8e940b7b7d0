"""Part of `AuditSpec`: what the attacker of the labelled data knows. Importing this needs no torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foretaste.encoders.spec import EncoderSpec


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
