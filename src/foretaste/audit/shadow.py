"""Part of `AuditSpec`: the unlabelled images whose features an attack on the weights keeps. Needs no torch."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from foretaste.audit.options import typed_value
from foretaste.errors import SpecError


class ShadowSpec(BaseModel):
    """A shadow set of another origin than the attacker's own rows of the audited data.

    Attributes:
        data: name of a data set, an .npz file or an image folder; labels and test part are not used.
        limit: use so many of its images, drawn at random; None: all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    data: str = Field(description="images whose features must stay: a name, an .npz file or a folder")
    limit: int | None = Field(default=None, ge=2, description="use so many of them, drawn at random")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`cifar10,limit=2000` as a spec.

        Raises:
            SpecError: no data, or a field without `=`.
        """
        data, *fields = text.split(",")
        pairs = [field.partition("=") for field in fields]
        if not data.strip() or any(not equals or not key.strip() for key, equals, _ in pairs):
            raise SpecError("shadow: DATA or DATA,limit=ROWS", got=repr(text))
        values: dict[str, Any] = {key.strip(): typed_value(value) for key, _, value in pairs}
        return cls(data=data.strip(), **values)
