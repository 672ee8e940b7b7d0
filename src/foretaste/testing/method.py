"""What every method promises, whatever its kind: a name, frozen fields with help, an entry that makes it again."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path, PosixPath, WindowsPath
from typing import Any, TypeVar

from pydantic import ValidationError

from foretaste.errors import ConformanceError, SpecError
from foretaste.method import Method, since
from foretaste.testing.promise import keep

M = TypeVar("M", bound=Method)


def configured(method: Any, fields: dict[str, Any], find: Callable[[Any], Any], kind: str) -> Any:
    """The value to check, after all that can be said of it before it does anything.

    Args:
        method: a class, a configured value, or a name.
        fields: beside a class or a name.
        find: the table's look-up, which refuses what is no method of the kind.
        kind: for messages.

    Raises:
        ConformanceError: a promise is broken.
    """
    try:
        cls = find(type(method) if isinstance(method, Method) else method)
        if isinstance(method, Method) and fields:
            raise SpecError(f"{kind}: fields beside a class or a name", got="a configured value", do="set them there")
        value: Method = method if isinstance(method, Method) else cls.configure(**fields)
    except SpecError as error:
        raise ConformanceError(error.expected, got=error.got, do=error.do) from error
    _frozen(value)
    _closed(value)
    _described(value)
    _entry(value)
    _repr(value)
    return value


def _frozen(value: Method) -> None:
    moved = "" if type(value).model_config.get("frozen") else "frozen=False in its model_config"
    for name in type(value).model_fields:
        try:
            setattr(value, name, getattr(value, name))
        except (ValidationError, AttributeError):
            continue
        moved = f"{name}, which can be set"
    keep(not moved, f"{value.name}: a frozen value", got=moved, do="leave model_config as Method has it")


def _closed(value: Method) -> None:
    unknown = "no_such_field"
    try:
        type(value).configure(**value.model_dump(), **{unknown: 1})
    except SpecError:
        return
    keep(
        False,
        f"{value.name}: an unknown field is an error",
        got=f"{unknown}=1 accepted",
        do="leave model_config as Method has it",
    )


def _described(value: Method) -> None:
    bare = [name for name, field in type(value).model_fields.items() if not field.description]
    keep(
        not bare,
        f"{value.name}: every field has its help text",
        got=f"none for {', '.join(bare)}",
        do='write Field(default, description="...")',
    )


def _entry(value: Method) -> None:
    """Through JSON and back: that is how a record, a file and a worker get it."""
    name, fields = value.name, set(type(value).model_fields)
    try:
        entry = json.loads(json.dumps(value.entry(), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConformanceError(
            f"{name}: an entry of JSON types", got=str(error), do="use numbers, texts, and lists of them as fields"
        ) from error
    keep(entry.pop("name", None) == name, f"{name}: its name in its entry", got="another", do="do not override entry()")
    entry.pop("code", None)
    lost = fields - set(entry) - set(since(type(value)))
    more = set(entry) - fields
    keep(
        not lost and not more,
        f"{name}: every field in its entry and nothing else",
        got=", ".join(sorted(lost | more)),
        do="do not override entry()",
    )
    try:
        again: Method | None = type(value).configure(**entry)
    except SpecError as error:
        raise ConformanceError(f"{name}: an entry that makes it again", got=error.got) from error
    keep(again == value, f"{name}: an entry that makes it again", got=repr(again), do="use fields of JSON types")


def _repr(value: Method) -> None:
    parts = [getattr(value, name) for name in type(value).model_fields]
    names = {
        **vars(sys.modules[type(value).__module__]),
        **{type(part).__name__: type(part) for part in (value, *parts)},
    }
    names |= {"inf": math.inf, "Path": Path, "PosixPath": PosixPath, "WindowsPath": WindowsPath}
    try:
        again = eval(repr(value), names)
    except Exception:
        again = None
    keep(again == value, f"{value.name}: a repr that makes it again", got=repr(value), do="do not override __repr__")
