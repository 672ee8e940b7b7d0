"""The plan of the house for files, not only for packages: no circle, no arrow upwards, no file that is too long."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import house

MOST_LINES = 400


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    return house.sources()


def test_no_files_import_each_other_in_a_circle(files: dict[str, Path]) -> None:
    assert [sorted(circle) for circle in house.circles(house.arrows(files))] == []


def test_no_arrow_points_upwards(files: dict[str, Path]) -> None:
    assert not house.upward(house.arrows(files))


def test_no_file_is_too_long(files: dict[str, Path]) -> None:
    assert len(files) > 100
    assert not {module: n for module, path in files.items() if (n := house.lines(path)) > MOST_LINES}


def test_every_room_stands_on_a_staircase(files: dict[str, Path]) -> None:
    stairs = {name for staircase in (house.LAYERS, house.PAPER) for layer in staircase for name in layer}
    assert {house.room(module) for module in files} - {house.DOOR} <= stairs


def planted(folder: Path, **texts: str) -> dict[str, set[str]]:
    """Arrows of a small house; `__` in a name stands for `/`."""
    root = folder / "foretaste"
    for name, text in texts.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for parent in path.relative_to(root).parents:
            (root / parent / "__init__.py").touch()
    return house.arrows(house.sources(root))


@pytest.mark.parametrize(
    "text",
    [
        "import foretaste.audits.two",
        "from foretaste.audits import two",
        "from foretaste.audits.two import name",
        "from . import two",
        "from .two import name",
        "from ..audits import two",
        "def inside():\n    from foretaste.audits.two import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from foretaste.audits.two import name",
    ],
)
def test_every_way_to_import_is_an_arrow(text: str, tmp_path: Path) -> None:
    graph = planted(tmp_path, audits__one=text, audits__two="", audits__three="from foretaste.audits.one import name")
    assert graph["foretaste.audits.one"] == {"foretaste.audits.two"}
    assert not house.circles(graph)


def test_a_circle_is_found_however_long_and_apart_from_what_leads_to_it(tmp_path: Path) -> None:
    chain = {f"audits__m{n}": f"from foretaste.audits.m{(n + 1) % 4} import name" for n in range(4)}
    graph = planted(
        tmp_path, **chain, audits__above="import foretaste.audits.m0", errors="", record="import foretaste.errors"
    )
    assert house.circles(graph) == {frozenset(f"foretaste.audits.m{n}" for n in range(4))}


@pytest.mark.parametrize(
    ("lower", "upper", "wrong"),
    [
        ("heads__a", "features__b", True),
        ("defences__a", "attacks__b", True),
        ("attacks__a", "defences__b", True),
        ("audits__a", "report__b", True),
        ("report__a", "runtime", True),
        ("record", "statistics", True),
        ("features__a", "heads__b", False),
        ("report__a", "record", False),
        ("cli__a", "report__b", False),
        ("audits__a", "errors", False),
        ("somewhere__a", "errors", True),
    ],
)
def test_an_arrow_that_does_not_go_down_is_found(lower: str, upper: str, wrong: bool, tmp_path: Path) -> None:
    other = f"foretaste.{upper.replace('__', '.')}"
    graph = planted(tmp_path, **{lower: f"import {other}", upper: ""})
    assert house.upward(graph) == ({(f"foretaste.{lower.replace('__', '.')}", other)} if wrong else set())
