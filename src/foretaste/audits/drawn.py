"""Parts of `AuditSpec` that name images beside the audited ones. Importing this needs no torch."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from foretaste.audits.options import typed_value
from foretaste.errors import SpecError


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
