"""Tables of methods: a name, and where its class is. Importing this is as cheap as reading a table should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from foretaste.errors import SpecError


def look_up(kind: str, places: Mapping[str, str], name: str) -> Any:
    """The class at `package.module:Class` that a table of methods gives for a name; imported only now.

    Raises:
        SpecError: there is no such name; the message lists what there is.
    """
    if name not in places:
        raise unknown(kind, name, places)
    module, _, attribute = places[name].partition(":")
    return getattr(import_module(module), attribute)


def unknown(kind: str, name: str, known: Iterable[str]) -> SpecError:
    """The error about a name that is in no table: what there is, and what may have been meant.

    >>> print(unknown("probe", "mpl", ["exact", "mlp"]))
    probe: one of exact, mlp; got 'mpl'; did you mean mlp? See `foretaste list`.
    """
    names = list(known)
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? See `foretaste list`" if close else "see `foretaste list`"
    return SpecError(f"{kind}: one of {', '.join(names)}", got=repr(name), do=hint)
