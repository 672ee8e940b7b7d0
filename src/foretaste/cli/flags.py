"""Flags made from the fields of `AuditSpec`: the field is the type, the default, the help text and the entry.

Importing this imports the spec; `cli.app` does so only when a command that has such flags is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from foretaste.audits.spec import AuditSpec
from foretaste.errors import SpecError

AUDITED, DOES, KNOWS = "What is audited", "What the attacker does", "What the attacker knows"
DEFENDER, RUN, OUT = "What the defender does", "How it is run", "Where it goes"

PANELS: dict[str, dict[str, str]] = {
    # question: flag: the field of AuditSpec that it sets; several fields: one number of the flag for each
    AUDITED: {
        "--data": "data",
        "--data-dir": "data_dir",
        "--download": "download",
        "--encoder": "encoder.reference",
        "--weights": "encoder.weights",
        "--width": "encoder.width",
        "--mean": "encoder.mean",
        "--std": "encoder.std",
        "--input-size": "encoder.input_size",
        "--features": "features",
        "--validation": "validation",
        "--test": "test",
        "--split": "split.train split.validation split.clean",
        "--split-seed": "split.seed",
        "--limit": "split.limit",
        "--probes": "probes",
        "--ridge": "ridge",
    },
    DOES: {
        "--attacks": "attacks",
        "--budgets": "budgets",
        "--seeds": "seeds",
        "--targets": "targets",
        "--pretraining": "pretraining",
    },
    KNOWS: {
        "--attacker-rows": "attacker.rows",
        "--attacker-share": "attacker.share",
        "--attacker-encoder": "attacker.encoder.reference",
        "--attacker-weights": "attacker.encoder.weights",
        "--references": "references",
        "--shadow": "shadow",
    },
    DEFENDER: {
        "--countermeasures": "countermeasures",
        "--defences": "defences",
        "--other": "other.reference",
        "--other-weights": "other.weights",
        "--null": "null",
    },
    RUN: {"--device": "device", "--precision": "precision"},
    OUT: {},
}

WITHOUT_FLAG = {
    "split.test": "for sources without a test part; the shares of a file say it",
    **{
        f"{owner}.{field}": "another encoder with such details is described in a file"
        for owner in ("attacker.encoder", "other")
        for field in ("width", "mean", "std", "input_size")
    },
}
"""Fields that only a file sets, and why."""

FLAGS: dict[str, tuple[str, ...]] = {
    flag: tuple(paths.split()) for flags in PANELS.values() for flag, paths in flags.items()
}
"""Flag -> the fields that it sets."""


def fields(model: type[BaseModel] = AuditSpec, prefix: str = "") -> dict[str, FieldInfo]:
    """All fields of the spec by their paths: those of a model that has a text of its own (`parse`) count as one."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        inner = _inner(field)
        if isinstance(inner, type) and issubclass(inner, BaseModel) and not hasattr(inner, "parse"):
            found |= fields(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def option(flag: str, *, default: bool = False, panel: str | None = None) -> Any:
    """What typer is to make of one of `FLAGS`, for an annotation.

    Args:
        flag: with its hyphens.
        default: whether the help tells the default of an audit; other commands have none.
        panel: heading under which the help has it.
    """
    text = _help(flag)
    if default and (value := _default(flag)):
        text += f"; default {value}"
    choices = get_args(_inner(fields()[FLAGS[flag][0]]))
    literal = get_origin(_inner(fields()[FLAGS[flag][0]])) is Literal
    return typer.Option(
        flag,
        help=f"{text[:1].upper()}{text[1:]}.",
        rich_help_panel=panel,
        show_default=False,
        metavar="|".join(choices) if literal else None,
    )


def with_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command that ends in `**typed` all flags of an audit, after its first parameter, by panels."""
    own = get_type_hints(function, include_extras=True)
    first, *others = [
        parameter.replace(annotation=own[parameter.name])
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    parameters = [first]  # the argument
    for panel, flags in PANELS.items():
        for flag in flags:
            kind = _kind(flag)
            parameters.append(
                inspect.Parameter(
                    _parameter(flag),
                    inspect.Parameter.KEYWORD_ONLY,
                    default=False if kind is bool else None,
                    annotation=Annotated[
                        bool if kind is bool else kind | None, option(flag, default=True, panel=panel)
                    ],
                )
            )
    parameters += [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others]
    made: Any = function
    made.__signature__ = inspect.Signature(parameters)
    made.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def values_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, as values for `AuditSpec`; what was not typed is absent.

    Args:
        said: parameter -> value, as typer hands it over.

    Raises:
        SpecError: numbers that are none, or not as many as there should be; details of an encoder that is not named.
    """
    found: dict[str, Any] = {}
    for flag, paths in FLAGS.items():
        value = said.get(_parameter(flag))
        if value is None or value is False:
            continue
        for path, one in zip(paths, _read(flag, value), strict=True):
            *parents, last = path.split(".")
            place = found
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = one
    _check_encoders(found)
    return found


def over(values: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file with those that were typed over them: an encoder as a whole, shares and knowledge singly."""
    merged = dict(values)
    for key, value in said.items():
        single = isinstance(value, dict) and "reference" not in value
        merged[key] = {**(values.get(key) or {}), **value} if single else value
    return merged


def numbers(text: str | None, flag: str, count: int | None = None) -> list[float] | None:
    """Comma-separated numbers.

    Raises:
        SpecError: not numbers, or not so many.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or (count is not None and len(values) != count):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise SpecError(f"{flag}: {wanted} separated by commas", got=repr(text))
    return values


def _check_encoders(found: Mapping[str, Any]) -> None:
    """Details of an encoder are nothing without the encoder."""
    owners = {flag: paths[0].split(".")[:-1] for flag, paths in FLAGS.items() if paths[0].endswith(".reference")}
    for owner, parents in owners.items():
        said: Any = found
        for parent in parents:
            said = said.get(parent, {})
        if not said or "reference" in said:
            continue
        path = ".".join([*parents, next(iter(said))])
        flag = next(flag for flag, paths in FLAGS.items() if path in paths)
        only_weights = sum(paths[0].startswith(".".join(parents) + ".") for paths in FLAGS.values()) == 2
        raise SpecError(
            f"{owner}: the encoder that the {'weights are of' if only_weights else 'other flags are about'}",
            got=f"{flag} without it",
            do="pass it",
        )


def _read(flag: str, value: Any) -> list[Any]:
    """What a flag's text means, for each of its fields."""
    paths = FLAGS[flag]
    if len(paths) > 1:
        return list(numbers(value, flag, len(paths)) or [])
    inner = _inner(fields()[paths[0]])
    if get_origin(inner) is tuple:
        parts = get_args(inner)
        if parts[0] is float:
            return [numbers(value, flag, None if parts[-1] is ... else len(parts))]
        return [[part for part in value.split(",") if part]]
    return [value]


def _inner(field: FieldInfo) -> Any:
    """A field's type without its None."""
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    return kind


def _kind(flag: str) -> type:
    """What typer checks: numbers, paths and switches; all else is a text that the spec reads."""
    inner = _inner(fields()[FLAGS[flag][0]])
    return inner if inner in (bool, int, float, Path) and len(FLAGS[flag]) == 1 else str


def _parameter(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _help(flag: str) -> str:
    """The field's description: of the whole where the flag sets its parts, or names an encoder."""
    paths = FLAGS[flag]
    *parents, last = paths[0].split(".")
    if len(paths) == 1 and last != "reference":
        text = str(fields()[paths[0]].description)
        owner = next((name for name, other in FLAGS.items() if other == (".".join([*parents, "reference"]),)), None)
        return f"of {owner}: {text}" if owner else text
    model: Any = AuditSpec
    for parent in parents[:-1]:
        model = _inner(model.model_fields[parent])
    return str(model.model_fields[parents[-1]].description)


def _default(flag: str) -> str:
    """The default as it would be typed; empty where there is none to type."""
    found = []
    for path in FLAGS[flag]:
        value: Any = AuditSpec()
        for part in path.split("."):
            value = getattr(value, part, None)
        found += list(value) if isinstance(value, tuple) else [value]
    if found in ([None], [False]):
        return ""
    return ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in found) or "none"
