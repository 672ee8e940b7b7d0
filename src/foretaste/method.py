"""A configured method is a frozen value: its fields are its hyperparameters, its flags and its entry in the record."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from foretaste.errors import SpecError

LONGEST = 60
"""Characters of a wrong value that a message shows."""


class Method(BaseModel):
    """Base of every attack, defence and probe: keyword-only, immutable, unknown fields are errors.

    Subclasses set `name` (as on the command line) and declare their hyperparameters as pydantic fields with a
    description, a range and the default of the paper.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    younger: ClassVar[tuple[str, ...]] = ()
    """Fields younger than the first records, which change nothing at their defaults."""

    @classmethod
    def configure(cls, **fields: Any) -> Self:
        """Build the method from fields that a user typed.

        Raises:
            SpecError: a field is unknown or out of its range; the message lists what there is.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            raise SpecError(
                f"{cls.name}: fields {', '.join(cls.model_fields) or '(none)'}",
                got=describe(error),
                do=f"see `foretaste list {cls.name}`",
            ) from None

    def entry(self) -> dict[str, Any]:
        """The method as the record keeps it: its name and every field, JSON types only.

        `younger` fields are left out where all are at their defaults: trials from before them keep their identities.
        """
        fields = type(self).model_fields
        idle = all(getattr(self, key) == fields[key].default for key in self.younger)
        return {"name": self.name, **self.model_dump(mode="json", exclude=set(self.younger) if idle else None)}


def describe(error: ValidationError) -> str:
    """One line that says which fields of a pydantic model are wrong, and how."""
    return ", ".join(_wrong(item) for item in error.errors(include_url=False))


def _wrong(item: ErrorDetails) -> str:
    where = ".".join(str(part) for part in item["loc"])
    reason = item["msg"].removeprefix("Value error, ")
    if not where:  # a rule between fields; its text names them
        return reason
    if item["type"] == "missing":
        return f"no {where}"
    value = repr(item["input"])
    shown = value if len(value) <= LONGEST else f"{value[:LONGEST]}..."
    return f"{where} = {shown} ({reason[:1].lower()}{reason[1:]})"
