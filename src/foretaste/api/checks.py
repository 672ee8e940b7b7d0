"""Arguments of the public functions, checked before anything is computed."""

from __future__ import annotations

from numbers import Real
from operator import index
from typing import Any, get_args

from foretaste.audits.spec import MOST_BUDGET
from foretaste.audits.victim import Victim
from foretaste.errors import SpecError


def a_victim(what: str, value: Any, *, clean: bool = False) -> Victim:
    """The argument as a victim.

    Args:
        what: the function and the argument.
        value: as it was passed.
        clean: nobody may have attacked it.

    Raises:
        SpecError: it is none, or was attacked.
    """
    if not isinstance(value, Victim):
        raise SpecError(f"{what}: a foretaste.Victim", got=a_kind(value), do="make one with Victim.from_features")
    if clean and value.attacked:
        raise SpecError(f"{what}: a victim that nobody has attacked", got=repr(value), do="pass the one before")
    return value


def a_whole(what: str, value: Any, least: int | None = None) -> int:
    """The argument as an integer, of Python, numpy or torch.

    Raises:
        SpecError: it is none, or below the least.
    """
    expected = f"{what}: an integer" + ("" if least is None else f" of at least {least}")
    try:
        if isinstance(value, bool):
            raise TypeError
        number = index(value)
    except TypeError:
        raise SpecError(expected, got=repr(value)) from None
    if least is not None and number < least:
        raise SpecError(expected, got=repr(number))
    return number


def a_budget(value: Any) -> float:
    """The argument as a share of rows; one that leaves no row is refused where the rows are known.

    Raises:
        SpecError: it is no number, or above `MOST_BUDGET`.
    """
    expected = f"budget: a share above 0 and at most {MOST_BUDGET}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SpecError(expected, got=repr(value), do="pass for instance budget=0.03")
    share = float(value)
    if share > MOST_BUDGET:
        raise SpecError(expected, got=f"{share:g}")
    return share


def one_of(what: str, value: Any, literal: Any, do: str = "") -> None:
    """Raise SpecError, with what to do, unless the value is one of a `Literal`."""
    if value not in (allowed := get_args(literal)):
        raise SpecError(f"{what}: {' or '.join(allowed)}", got=repr(value), do=do)


def a_kind(value: Any) -> str:
    """What a value is, in two words."""
    return "None" if value is None else f"a {type(value).__name__}"
