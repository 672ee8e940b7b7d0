"""Small parsers that the commands share; the options that they share are in `cli.shared`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from foretaste.errors import SpecError

if TYPE_CHECKING:
    from foretaste.data import SplitSpec

Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads to compute with; default: the cores of this process.")
]


def split_spec(values: dict[str, Any]) -> SplitSpec:
    """The split of a command that has no audit.

    Raises:
        SpecError: a value out of its range.
    """
    from pydantic import ValidationError

    from foretaste.data import SplitSpec
    from foretaste.method import describe

    try:
        return SplitSpec(**values)
    except ValidationError as error:
        expected = "--split, --split-seed and --limit: shares, a seed and a number of rows"
        raise SpecError(expected, got=describe(error)) from None


def extra_fields(words: list[str], command: str) -> dict[str, str]:
    """`--field value` pairs that a command does not know itself: hyperparameters of the method.

    Raises:
        SpecError: a word that is no field, or a field without a value.
    """
    fields: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or (not equals and not rest):
            raise SpecError(
                f"{command}: flags of the form --field value", got=repr(word), do="see `foretaste list NAME`"
            )
        fields[key.replace("-", "_")] = value if equals else rest.pop(0)
    return fields
