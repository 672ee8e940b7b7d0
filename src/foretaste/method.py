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
    younger: ClassVar[frozenset[str]] = frozenset()
    """Fields that came after the first records: entries leave them out at their defaults, so trials keep identities."""

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
        """The method as the record keeps it: its name and every field (see `younger`), JSON types only."""
        every = self.model_dump(mode="json")
        told = self.model_dump(exclude_defaults=True)
        return {"name": self.name, **{key: every[key] for key in every if key not in self.younger or key in told}}

    def settings(self, *said: str) -> list[str]:
        """Every field that is not at its default, as `field value`, but for those that are said otherwise."""
        others = self.model_dump(exclude_defaults=True, exclude=set(said))
        return [
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in others.items()
        ]


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
