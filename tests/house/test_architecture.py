"""ARCHITECTURE.md fits on a screen, names every room, and names only what exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "foretaste"
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
MOST_LINES, MOST_ROOMS = 60, 8


def test_it_fits_on_a_screen() -> None:
    assert len(TEXT.splitlines()) <= MOST_LINES


def test_every_path_exists() -> None:
    named = re.findall(r"`([\w./]+(?:/|\.py|\.toml))`", TEXT)
    assert len(named) > 40
    places = (ROOT, PACKAGE, PACKAGE / "audits", PACKAGE / "attacks", PACKAGE / "defences")
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert not missing


def test_every_room_is_in_the_table() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    table = re.findall(r"`(\w+)/`", TEXT)
    assert rooms <= set(table)
    for room in ("attacks", "defences"):
        inner = {path.parent.name for path in (PACKAGE / room).glob("*/__init__.py")}
        assert inner <= set(table), room


def test_a_row_and_an_encoder_pass_few_rooms_and_never_climb() -> None:
    for start in ("**One poisoned row**", "**One edited encoder**"):
        path = TEXT.split(start)[1].split("\n\n")[0]
        files = re.findall(r"`src/foretaste/([\w/]+)\.py`", path)
        assert len(files) >= 7
        rooms = [file.split("/")[0] for file in files]
        visits = [room for room, before in zip(rooms, [None, *rooms], strict=False) if room != before]
        assert visits == ["attacks", "audits", "record"]
        assert len({str(Path(file).parent) for file in files}) <= MOST_ROOMS
