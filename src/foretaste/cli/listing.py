"""What `foretaste list` shows, from the tables and the entry points of installed packages."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from foretaste import attacks, defences, plugins, pretrain, probes
from foretaste.attacks import ATTACKS
from foretaste.audits.spec_parts import COUNTERMEASURES
from foretaste.data.sources import SOURCES
from foretaste.defences import DEFENCES
from foretaste.encoders import ARCHITECTURES
from foretaste.method import Method
from foretaste.pretrain import METHODS
from foretaste.probes import PROBES
from foretaste.tables import unknown

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


ATTACK = "foretaste attack {name} --FIELD VALUE, or in an audit --attacks {name}:FIELD=VALUE"
PROBE = "foretaste audit --probes {name}:FIELD=VALUE"
SET_BY = {
    "filter": "foretaste audit --defences {name}:FIELD=VALUE",
    "certified": "foretaste audit --defences {name}:FIELD=VALUE",
    "scan": "foretaste scan --scans {name}:FIELD=VALUE",
    "repair": "foretaste repair {name} SUSPECT.safetensors --FIELD VALUE",
    "guard": 'in Python, foretaste.defences.configure("{name}", {{"FIELD": VALUE}})',
}
"""How the fields of a defence are set, by its kind."""


def everything() -> str:
    """All tables."""
    blocks = {
        "attacks": {name: f"[{threat}] {line}" for name, (threat, _, line) in ATTACKS.items()},
        "probes": {name: line for name, (_, line) in PROBES.items()},
        "data (--data)": {
            **SOURCES,
            "FILE.npz": "x_train, y_train, x_test, y_test, or x, y",
            "FILE.npz@A[:B]": "its rows of domain A (test rows: of domain B), by domains, domain_train, domain_test",
            "FOLDER": "FOLDER/class/*.png",
        },
        "countermeasures (--countermeasures)": dict(COUNTERMEASURES),
        "defences (filter, certified: audit --defences; scan: scan; repair: repair)": {
            name: f"[{entry.kind}] {entry.line}" for name, entry in DEFENCES.items()
        },
        "encoders (--encoder)": dict(ARCHITECTURES),
        "pre-training (foretaste pretrain --method)": {name: line for name, (_, line) in METHODS.items()},
    }
    for title, group, own in (
        ("attacks of installed packages", attacks.GROUP, ATTACKS),
        ("probes of installed packages", probes.GROUP, PROBES),
        ("defences of installed packages", defences.GROUP, DEFENCES),
    ):
        if found := plugins.lines(group, own):
            blocks[title] = found
    lines = []
    for title, rows in blocks.items():
        width = max(map(len, rows))
        lines += [title, *(f"  {name:<{width}}  {line}" for name, line in rows.items()), ""]
    return "\n".join(
        [
            *lines,
            "foretaste list NAME shows the fields of an attack, probe, defence or method; your own may be named as",
            "FILE.py:CLASS or package.module:CLASS wherever a name is.",
        ]
    )


def fields_of(name: str) -> str:
    """Hyperparameters of a method: name, range, default and meaning, and how to set them.

    Raises:
        SpecError: no such method.
    """
    if plugins.is_code(name):
        return _from_outside(name)
    found: list[tuple[type[Method], str]] = []
    if name in ATTACKS or (name in plugins.installed(attacks.GROUP)):
        found.append((attacks.find(name), ATTACK.format(name=name)))
    if name in PROBES or (name in plugins.installed(probes.GROUP)):
        found.append((probes.find(name), PROBE.format(name=name)))
    if name in DEFENCES or (name in plugins.installed(defences.GROUP)):
        method = defences.find(name)
        found.append((method, SET_BY[_kind_of(method)].format(name=name)))
    if name in METHODS:
        found.append((pretrain.find(name), f"foretaste pretrain --method {name} --FIELD VALUE"))
    if not found:
        known = dict.fromkeys([*ATTACKS, *PROBES, *DEFENCES, *METHODS])
        raise unknown("list", name, known)
    return "\n\n".join(_fields(method, how) for method, how in found)


def _from_outside(name: str) -> str:
    """A class in a file or module of the user's, which may be an attack, a defence or a probe."""
    bases = [*attacks.BASES, *probes.BASES, *defences.BASES.values()]
    found = plugins.resolve("list", "", name, {}, bases)
    if issubclass(found, tuple(map(plugins.at, attacks.BASES))):
        return _fields(attacks.find(name), ATTACK.format(name=name))
    if issubclass(found, tuple(map(plugins.at, probes.BASES))):
        return _fields(probes.find(name), PROBE.format(name=name))
    return _fields(defences.find(name), SET_BY[_kind_of(found)].format(name=name))


def _kind_of(defence: type[Method]) -> str:
    return next(kind for kind, base in defences.BASES.items() if issubclass(defence, plugins.at(base)))


def _fields(method: type[Method], how: str) -> str:
    lines = [inspect.cleandoc(method.__doc__ or ""), ""]
    for key, field in method.model_fields.items():
        default = "none" if field.default is None else str(field.default)
        lines += [f"  --{key.replace('_', '-')}  {_kind(field)}, default {default}", f"      {field.description or ''}"]
    return "\n".join([*lines, "", f"Set fields by: {how}"])


def _kind(field: FieldInfo) -> str:
    """The values that a field takes: its choices, or its type with its range."""
    if get_origin(field.annotation) is Literal:
        return " | ".join(map(str, get_args(field.annotation)))
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = [
        f"{sign} {getattr(rule, key):g}" for rule in field.metadata for key, sign in signs.items() if hasattr(rule, key)
    ]
    return " ".join([" or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds), " and ".join(limits)]).strip()
