"""docs/api.md is what signatures and docstrings say, and has every public name."""

from __future__ import annotations

import inspect
import re

from scripts import api_reference

import foretaste


def test_the_page_is_up_to_date() -> None:
    assert api_reference.PAGE.read_text(encoding="utf-8") == api_reference.page(), "run python -m scripts.api_reference"


def test_every_public_name_has_a_heading() -> None:
    grouped = [name for names in api_reference.groups().values() for name in names]
    assert sorted(grouped) == sorted(set(foretaste.__all__) - {"__version__", "testing"})
    text = api_reference.PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^### `(\w+)`$", text, re.MULTILINE) == grouped
    links = set(re.findall(r"\]\(#([\w-]+)\)", text))
    assert links == {name.lower() for name in grouped}


def test_what_is_public_is_documented() -> None:
    for name in foretaste.__all__:
        thing = getattr(foretaste, name)
        if name == "__version__" or inspect.ismodule(thing):
            continue
        assert inspect.getdoc(thing), name
        for key, member in api_reference.members(thing) if inspect.isclass(thing) else ():
            assert (getattr(member, "__func__", None) or member).__doc__ or getattr(member, "func", member).__doc__, (
                f"{name}.{key}"
            )
        if inspect.isfunction(thing):
            arguments = set(inspect.signature(thing).parameters)
            described = set(re.findall(r"^    (\w+): ", inspect.getdoc(thing) or "", re.MULTILINE))
            assert arguments <= described or not arguments, (name, arguments - described)
