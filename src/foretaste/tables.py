"""Tables of methods: a name, and where its class is. Importing this is as cheap as reading a table should be."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from foretaste.errors import SpecError


def look_up(kind: str, places: Mapping[str, str], name: str) -> Any:
    """The class at `package.module:Class` that a table of methods gives for a name; imported only now.

    Raises:
        SpecError: there is no such name; the message lists what there is.
    """
    if name not in places:
        raise SpecError(f"{kind}: one of {', '.join(places)}", got=repr(name), do="see `foretaste list`")
    module, _, attribute = places[name].partition(":")
    return getattr(import_module(module), attribute)
