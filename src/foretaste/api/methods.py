"""Methods as one passes them in Python: a name, `file.py:Class`, a class, or a configured value."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from foretaste.audits.spec import MethodSpec
from foretaste.errors import SpecError
from foretaste.method import Method


def configured(table: ModuleType, method: str | type[Method] | Method, fields: dict[str, Any]) -> Any:
    """A method as it was named, with its fields.

    Args:
        table: where it is looked up: `foretaste.attacks`, `foretaste.defences` or `foretaste.probes`.
        method: a name, with fields after colons or not, a class, or a configured value.
        fields: of a name or a class.

    Raises:
        SpecError: no such method or field, a class of another kind, or fields beside a configured value.
    """
    if isinstance(method, Method):
        table.find(type(method))  # of another kind, or from outside: it says so, or gets to know where it is from
        if fields:
            got, do = f"a configured {method.name}", "set them there"
            raise SpecError("fields beside a name or a class", got=got, do=do)
        return method
    if isinstance(method, str):
        said = MethodSpec.parse(method)
        return table.configure(said.name, {**said.fields, **fields})
    if isinstance(method, type):
        return table.configure(method, fields)
    raise SpecError("a name, a class or a configured method", got=repr(method), do="see foretaste.list_attacks()")
