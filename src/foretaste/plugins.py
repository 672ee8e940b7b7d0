"""Methods by name: of our own tables, of installed packages, or of a file or module of the user's. Needs no torch."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from foretaste.errors import SpecError
from foretaste.tables import look_up, unknown
from foretaste.user_modules import cause, digest_of_class, digest_of_source, file_of, load

if TYPE_CHECKING:
    from foretaste.method import Origin

KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_GIVEN: dict[str, Any] = {}
"""Classes that were passed in Python, by what names them since: one of a notebook or a function has no place to be
imported from."""
TAKEN = ("name", "code", "origin")
"""What a method says of itself beside its fields."""


def is_code(name: str) -> bool:
    """Whether a method is named by where its code is: `file.py:Class`, `package.module:Class`."""
    return ":" in name


def divided(text: str) -> tuple[str, list[str]]:
    """A method as it is typed, as its name and what follows it between colons.

    >>> divided("exact:carrier=pixels"), divided("mine.py:Mine:step=3"), divided("their.attacks:Mine")
    (('exact', ['carrier=pixels']), ('mine.py:Mine', ['step=3']), ('their.attacks:Mine', []))
    """
    name, *rest = text.split(":")
    if name and rest and rest[0] and "=" not in rest[0] and ("." in name or rest[0][0].isupper()):
        return f"{name}:{rest[0]}", rest[1:]
    return name, rest


def resolve(
    kind: str, group: str, name: str | type, places: Mapping[str, str], bases: Iterable[str], taken: Iterable[str] = ()
) -> Any:
    """The class that a name means; our own names come first.

    Args:
        kind: for messages.
        group: of entry points.
        name: a name in `places` or of an entry point, `file.py:Class`, `package.module:Class`, or the class itself.
        places: our own, name -> `package.module:Class`.
        bases: `package.module:Class` of the classes of which it has to be one.
        taken: further names that are ours.

    Raises:
        SpecError: there is no such method; its code cannot be imported; or it is no complete method of that kind.
    """
    if isinstance(name, str):
        if name in places:
            return look_up(kind, places, name)
        if is_code(name):
            found, reference = _GIVEN.get(name) or _from_code(kind, name, bases), name
        elif name.endswith(".py"):
            raise SpecError(f"{kind}: a class of {name}", got="the file alone", do=f"name it, as in {name}:Mine")
        else:
            found, reference = _from_entry_point(kind, group, name, places), name
    elif not hasattr(name, "__qualname__"):
        raise SpecError(f"{kind}: a name, a class or a configured value", got=f"a {type(name).__name__}")
    elif f"{name.__module__}:{name.__qualname__}" in places.values():
        return name
    else:
        found, reference = name, f"{name.__module__}:{name.__qualname__}"
        _GIVEN[reference] = name
    _check(f"{kind} {reference}", found, [at(base) for base in bases])
    if found.name in {*places, *taken}:
        own = places.get(found.name, "another of Foretaste's")
        raise SpecError(
            f"{kind} {reference}: a name that is not one of ours",
            got=f"{found.name!r}, as {own} is called",
            do="give the class another name",
        )
    found.origin = _origin(found, reference)
    return found


def installed(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """What installed packages offer: name -> its entry points, of which there should be one. Nothing is imported."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(_points(tuple(sys.path)).select(group=group), key=lambda point: (point.name, point.value)):
        others = found.get(point.name, ())
        if point.value not in [other.value for other in others]:
            found[point.name] = (*others, point)
    return found


@cache
def _points(path: tuple[str, ...]) -> Any:
    """All entry points of what is installed on a path; reading them takes a tenth of a second."""
    return entry_points()


def lines(group: str, own: Iterable[str]) -> dict[str, str]:
    """What `foretaste list` says about each installed plug-in of a group; nothing is imported."""
    ours = set(own)
    return {
        name: _source(points) + ("; not used, the name is ours" if name in ours else "")
        for name, points in installed(group).items()
    }


def _source(points: tuple[EntryPoint, ...]) -> str:
    return " and ".join(f"{point.value} of {point.dist.name if point.dist else 'a package'}" for point in points)


def _from_entry_point(kind: str, group: str, name: str, places: Mapping[str, str]) -> Any:
    offered = installed(group)
    if name not in offered:
        raise unknown(kind, name, [*places, *offered])
    points = offered[name]
    if len(points) > 1:
        raise SpecError(f"{kind} {name}: one package with that name", got=_source(points), do="name the class itself")
    try:
        return points[0].load()
    except (Exception, SystemExit) as failure:
        raise SpecError(
            f"{kind} {name}: code that can be imported", got=f"{cause(failure)} ({_source(points)})", do="correct it"
        ) from failure


def _from_code(kind: str, name: str, bases: Iterable[str]) -> Any:
    place, _, attribute = name.rpartition(":")
    module = load(place, f"{kind} {name}", SpecError)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        wanted = tuple(at(base) for base in bases)
        own = [
            key
            for key, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, wanted) and value.__module__ == module.__name__
        ]
        raise SpecError(
            f"{kind} {name}: a class of {place}",
            got=f"no {attribute!r}",
            do=f"it has {', '.join(own)}" if own else f"it has no class that extends {_either(wanted)}",
        )
    return found


def _check(what: str, found: Any, bases: list[Any]) -> None:
    """A whole method of the right kind, with a name of its own."""
    if not (inspect.isclass(found) and issubclass(found, tuple(bases))):
        shown = f"a {type(found).__name__}"
        if inspect.isclass(found):
            parents = [base.__name__ for base in found.__bases__ if base is not object]
            shown = f"{found.__name__}, which extends {', '.join(parents) or 'nothing'}"
        raise SpecError(f"{what}: a class that extends {_either(bases)}", got=shown, do="extend it")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise SpecError(f"{what}: a class with the methods of its base", got=f"no {', '.join(missing)}", do="add")
    name = getattr(found, "name", None)
    if not isinstance(name, str) or not KEBAB.fullmatch(name):
        raise SpecError(
            f"{what}: a class attribute `name` in small letters, digits and hyphens",
            got="none" if name is None else repr(name),
            do='write for instance name: ClassVar[str] = "my-method"',
        )
    fields: Any = getattr(found, "model_fields", {})
    if clash := [field for field in TAKEN if field in fields]:
        raise SpecError(f"{what}: fields other than {', '.join(TAKEN)}", got=f"a field {clash[0]}", do="rename it")


def _origin(found: Any, reference: str) -> Origin:
    from foretaste.method import Origin  # needs pydantic, which the tables do without

    module = sys.modules.get(found.__module__)
    digest = ("" if module is None else digest_of_source(module)) or digest_of_class(found)
    code = f"{found.__module__}:{found.__qualname__}@{digest}"
    path = reference.rpartition(":")[0]
    if file_of(path) is None:
        return Origin(reference, code)
    named = load(path, reference, SpecError)  # executed before, and not again
    own = digest_of_source(named)
    return Origin(reference, own if named is module else f"{own}+{code}")


def at(place: str) -> Any:
    """What is at `package.module:Class`; imported only now."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def _either(classes: Iterable[Any]) -> str:
    return " or ".join(one.__name__ for one in classes)
