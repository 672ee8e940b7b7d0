"""Methods of an audit as a caller may pass them: names, classes and configured values, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretaste import attacks as attack_table
from foretaste import defences as defence_table
from foretaste import probes as probe_table
from foretaste.audits.spec import MethodSpec
from foretaste.method import Method

TABLES = {"attacks": attack_table, "defences": defence_table, "probes": probe_table}
"""Keys of an audit that hold methods -> where they are looked up."""


def listed(key: str, value: Any) -> list[Any]:
    """The methods of a key of an audit as its file has them; what is neither class nor value is left to the spec.

    Args:
        key: of `TABLES`.
        value: a method, or a sequence of some.

    Raises:
        SpecError: a class or a value that is no method of that key.
    """
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [_entry(key, item) for item in items]


def _entry(key: str, item: Any) -> Any:
    if isinstance(item, Method):
        TABLES[key].find(type(item))
        return MethodSpec.of(item)
    if isinstance(item, type):
        return MethodSpec.of(TABLES[key].configure(item, {}))
    return item
