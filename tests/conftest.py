from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("FORETASTE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the real data sets and encoders; tests that need it skip where it is absent."""
    if not (SHARED / "encoders" / "MANIFEST.md").is_file():
        pytest.skip(f"real data and encoders are not at {SHARED} (set FORETASTE_SHARED)")
    return SHARED


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's feature cache."""
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small data, features and an encoder of the user's own."""
    from tests.audits.audit_fixture import make_world

    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def here(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in that folder."""
    monkeypatch.chdir(world)


@pytest.fixture
def cheats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attacks that cheat or watch are in the table."""
    from foretaste import attacks
    from tests.audits.cheats_fixture import TABLE

    for name, entry in TABLE.items():
        monkeypatch.setitem(attacks.ATTACKS, name, entry)


@pytest.fixture(scope="module")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with an encoder that can be taught images by heart, and pre-training images."""
    from tests.audits.steered_fixture import make_lookup_world

    return make_lookup_world(tmp_path_factory.mktemp("lookup"))


@pytest.fixture
def steering(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attacks with planted success on one image are in the table."""
    from foretaste import attacks
    from tests.audits.steered_fixture import TABLE

    for name, entry in TABLE.items():
        monkeypatch.setitem(attacks.ATTACKS, name, entry)
