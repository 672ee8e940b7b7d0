"""A configured method is a frozen value: its fields are its hyperparameters, its flags and its entry in the record."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from foretaste.errors import SpecError

LONGEST = 60
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True)
class Since:
    """Marks a field that came after the first records: `depth: Annotated[int, Since("0.1")] = Field(default=1)`.

    An identity leaves such a field out at its default (`identity_entry`), so trials from before it keep theirs.

    Attributes:
        version: the release that brought the field.
    """

    version: str


def since(model: type[BaseModel]) -> dict[str, str]:
    """The fields of a model that carry the mark, with the version of each."""
    return {
        name: mark.version
        for name, field in model.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Since)
    }


def identity_entry(model: BaseModel, without: Collection[str] = ()) -> dict[str, Any]:
    """A model as identities and records keep it: JSON types, marked fields only where they are not at their defaults.

    Args:
        model: its fields may be models, or tuples of models, with marked fields of their own.
        without: further fields to leave out.
    """
    entry: dict[str, Any] = _older(model, model.model_dump(mode="json", exclude=set(without)))
    return entry


def _older(value: Any, dumped: Any) -> Any:
    """`dumped`, which pydantic made of `value`, without the marked fields of models that are at their defaults."""
    if isinstance(value, tuple | list) and isinstance(dumped, list):
        return [_older(*pair) for pair in zip(value, dumped, strict=True)]
    if not isinstance(value, BaseModel) or not isinstance(dumped, dict):
        return dumped
    fields, marked = type(value).model_fields, since(type(value))
    return {
        key: _older(getattr(value, key), entry)
        for key, entry in dumped.items()
        if key not in marked or getattr(value, key) != fields[key].get_default(call_default_factory=True)
    }


@dataclass(frozen=True)
class Origin:
    """Where a method from outside comes from.

    Attributes:
        reference: what names it: `file.py:Class` as typed, `package.module:Class`, or the name of an entry point.
        code: what distinguishes it from other versions of itself, in the entry of a trial.
    """

    reference: str
    code: str


class Method(BaseModel):
    """Base of every attack, defence and probe: keyword-only, immutable, unknown fields are errors.

    Subclasses set `name` (as on the command line) and declare their hyperparameters as pydantic fields with a
    description, a range and the default of the paper.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    origin: ClassVar[Origin | None] = None
    """Set by `plugins` on a class from outside, and not inherited."""

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
                do=f"see `foretaste list {reference_of(cls)}`",
            ) from None

    def entry(self) -> dict[str, Any]:
        """The method as the record keeps it: its name and every field (but see `Since`), JSON types only.

        One from outside has its code there as well: edited, it is another method.
        """
        origin = type(self).__dict__.get("origin")
        return {"name": self.name, **identity_entry(self), **({} if origin is None else {"code": origin.code})}

    def settings(self, *said: str) -> list[str]:
        """Every field that is not at its default, as `field value`, but for those that are said otherwise."""
        others = self.model_dump(exclude_defaults=True, exclude=set(said))
        return [
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in others.items()
        ]


def reference_of(method: type[Method]) -> str:
    """What finds the class again: its name, or for one from outside where it is."""
    origin = method.__dict__.get("origin")
    return method.name if origin is None else str(origin.reference)


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
