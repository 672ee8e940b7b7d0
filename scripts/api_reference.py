"""Write docs/api.md, the reference of the public names, from their signatures and docstrings.

python -m scripts.api_reference
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import foretaste

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
GROUPS = {
    "What one does": "Functions.",
    "What one has": "Values; none of them changes after it was made.",
    "What one extends": "Base classes of attacks, defences and probes, with what they are given and give back.",
    "What goes wrong": "Errors; each has `expected`, `got` and `do`.",
}
"""Headings of the page, which are the comments in `foretaste/__init__.py`, with what follows them."""
HIDDEN = {"model_post_init", "model_config"}
HEAD = """# The public names

Made by `python -m scripts.api_reference` from signatures and docstrings; [python.md](python.md) shows them in use.
`import foretaste as ft` gives all of them and loads none before it is used. [n, d] is a shape, shares are fractions.
"""


def groups() -> dict[str, list[str]]:
    """Public names by the comments above them in `foretaste/__init__.py`."""
    source = Path(inspect.getfile(foretaste)).read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for line in source.splitlines():
        if (comment := re.fullmatch(r"    # (What .*)\.", line)) and comment[1] in GROUPS:
            found.setdefault(comment[1], [])
        elif (entry := re.fullmatch(r'    "(\w+)": "[\w.]+",', line)) and found:
            found[list(found)[-1]].append(entry[1])
    return found


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for group, names in groups().items():
        parts.append(f"## {group}\n\n{GROUPS[group]} " + ", ".join(f"[`{n}`](#{anchor(n)})" for n in names) + ".\n")
        parts += [entry(name, getattr(foretaste, name)) for name in names]
    return "\n".join(parts)


def anchor(name: str) -> str:
    """Of the heading of a name, as Markdown renderers make it."""
    return name.lower()


def entry(name: str, thing: Any) -> str:
    """One public name."""
    if not inspect.isclass(thing):
        return f"### `{name}`\n\n{code(f'{name}{signature(thing)}')}\n{text(thing)}"
    bases = [
        base.__name__ for base in thing.__bases__ if base is not object and base.__module__.startswith("foretaste")
    ]
    lines = [f"### `{name}`\n", f"Extends {', '.join(f'`{base}`' for base in bases)}.\n" if bases else ""]
    lines += [code(f"{name}{signature(thing)}") if shows_constructor(thing) else "", text(thing), fields(thing)]
    for key, member in members(thing):
        lines.append(method(name, key, member))
    return "\n".join(line for line in lines if line)


def shows_constructor(thing: type) -> bool:
    """Users make errors and frozen values themselves; methods are extended, and models are read from records."""
    return not issubclass(thing, BaseModel) and not inspect.isabstract(thing)


def method(owner: str, key: str, member: Any) -> str:
    """One method or property of a class."""
    if isinstance(member, property | cached_property):
        function = member.fget if isinstance(member, property) else member.func
        kind = annotation(inspect.signature(function).return_annotation)
        return f"#### `{owner}.{key}`\n\n{code(f'{key}: {kind}')}\n{text(function)}"
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    hidden = 0 if isinstance(member, staticmethod) else 1
    return f"#### `{owner}.{key}`\n\n{code(f'{key}{signature(function, hidden)}')}\n{text(function)}"


def members(thing: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class defines itself."""
    for key, member in vars(thing).items():
        public = not key.startswith("_") and key not in HIDDEN
        if public and (inspect.isfunction(member) or isinstance(member, property | cached_property | classmethod)):
            yield key, member


def fields(thing: type) -> str:
    """The fields of a pydantic model with type, default and description."""
    if not issubclass(thing, BaseModel) or not thing.model_fields:
        return ""
    lines = []
    for key, field in thing.model_fields.items():
        kind = annotation(thing.__annotations__.get(key, field.annotation))
        lines.append(f"- `{key}`: `{kind}`{default(field)}{f': {field.description}' if field.description else ''}")
    return "Fields:\n\n" + "\n".join(lines) + "\n"


def default(field: FieldInfo) -> str:
    """What a field is where it is not given."""
    if field.default is PydanticUndefined:
        return "" if field.default_factory is None else ", by default an empty one"
    return f", by default `{field.default!r}`" if len(repr(field.default)) < 60 else ""


def signature(thing: Callable[..., Any], skip: int = 0) -> str:
    """Arguments and result as they are written, one argument a line where they do not fit into one."""
    found = inspect.signature(thing)
    star, parts = False, []
    for parameter in list(found.parameters.values())[skip:]:
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            parts.append("*")
        star = star or parameter.kind is parameter.VAR_POSITIONAL
        mark = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        value = "" if parameter.default is parameter.empty else f" = {shown(parameter.default)}"
        kind = "" if parameter.annotation is parameter.empty else f": {annotation(parameter.annotation)}"
        parts.append(f"{mark}{parameter.name}{kind}{value}")
    back = found.return_annotation
    arrow = "" if back in (found.empty, None, "None") else f" -> {annotation(back)}"
    line = f"({', '.join(parts)}){arrow}"
    return line if len(line) < 90 else "(\n" + "".join(f"    {part},\n" for part in parts) + f"){arrow}"


def shown(value: Any) -> str:
    """A default; a function by its name, since its address changes."""
    return value.__name__ if inspect.isfunction(value) else repr(value)


def annotation(kind: Any) -> str:
    """A type as it is written in the source."""
    written = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return re.sub(r"^Annotated\[(.*), Since\(.*\)\]$", r"\1", written.replace("typing.", ""))


def code(line: str) -> str:
    """A block of Python."""
    return f"```python\n{line}\n```\n"


def text(thing: Any) -> str:
    """A docstring as Markdown: sections become lists, examples blocks."""
    lines = inspect.cleandoc(getattr(thing, "__doc__", None) or "").splitlines()
    found, i = [], 0
    while i < len(lines):
        if re.fullmatch(r"(Args|Attributes|Returns|Raises):", lines[i]):
            end = next((j for j in range(i + 1, len(lines)) if lines[j] and not lines[j].startswith(" ")), len(lines))
            found.append(section(lines[i][:-1], dedent("\n".join(lines[i + 1 : end])).strip("\n")))
            i = end
        elif lines[i].startswith(">>>"):
            end = next((j for j in range(i, len(lines)) if not lines[j]), len(lines))
            found.append("```pycon\n" + "\n".join(lines[i:end]) + "\n```\n")
            i = end
        else:
            found.append(lines[i])
            i += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(found)).strip() + "\n"


def section(title: str, body: str) -> str:
    """One section of a docstring; items `name: what` become a list."""
    words = {"Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Raises": "Raises"}
    if title == "Returns":
        return f"{words[title]}: {' '.join(body.split())}\n"
    items: list[str] = []
    for line in body.splitlines():
        if line.startswith(" ") and items:
            items[-1] += f" {line.strip()}"
        elif line:
            items.append(line)
    listed = [re.sub(r"^([\w, *]+?):", lambda hit: f"`{hit[1]}`:", item, count=1) for item in items]
    return f"{words[title]}:\n\n" + indent("\n".join(listed), "- ") + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
