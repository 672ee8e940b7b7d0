"""Methods of an audit as a caller may pass them: names, classes and configured values, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from foretaste import attacks as attack_table
from foretaste import defences as defence_table
from foretaste import probes as probe_table
from foretaste.audits.spec import MethodSpec
from foretaste.errors import SpecError
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


def configured(table: ModuleType, method: str | type[Method] | Method, fields: dict[str, Any], what: str) -> Any:
    """A method as it was named, with its fields.

    Args:
        table: where it is looked up, one of `TABLES`.
        method: a name, with fields after colons or not, a class, or a configured value.
        fields: of a name or a class.
        what: what errors call it.

    Raises:
        SpecError: no such method or field, a class of another kind, or fields beside a configured value.
    """
    if isinstance(method, Method):
        table.find(type(method))  # of another kind, or from outside: it says so, or gets to know where it is from
        if fields:
            got, do = f"a configured {method.name}", "set them there"
            raise SpecError(f"{what}: fields beside a name or a class", got=got, do=do)
        return method
    if isinstance(method, str):
        said = MethodSpec.parse(method)
        return table.configure(said.name, {**said.fields, **fields})
    return table.configure(method, fields)


def _entry(key: str, item: Any) -> Any:
    return MethodSpec.of(configured(TABLES[key], item, {}, key)) if isinstance(item, Method | type) else item
