"""Tiny audits that take every road give what they gave; remake with `python -m tests.safety.renew audits`."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest

from tests.safety import doors, rendered, tiny
from tests.safety.compare import differences

MADE_ON = json.loads((tiny.FOLDER / "made_on.json").read_text())
HERE = tiny.made_on()
pytestmark = pytest.mark.timeout(900)
"""A minute for all of them on an idle core; on a busy machine one may take minutes."""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.furnish(folder)
    return folder


@pytest.fixture(autouse=True)
def inside(furnished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(furnished)


def recorded(name: str) -> list[dict[str, object]]:
    return [tiny.stripped(record) for record in doors.read(tiny.FOLDER / name)]


@pytest.mark.parametrize("name", tiny.AUDITS)
def test_a_tiny_audit_gives_what_it_gave(name: str, tmp_path: Path) -> None:
    with tiny.calm():
        watched = doors.audit(tiny.spec(name), tmp_path / "audit")
    assert watched.total == len(watched.run) == len(recorded(name))
    found = tiny.outcome(tmp_path / "audit")
    moved = list(differences(recorded(name), found, exactly=MADE_ON == HERE))
    assert not moved, "\n".join([f"{len(moved)} differences", *moved[:20]])
    assert {one["status"] for one in found} == {"ok"}


@pytest.mark.parametrize("name", tiny.AUDITS)
def test_a_folder_from_before_is_continued(name: str, tmp_path: Path) -> None:
    shutil.copytree(tiny.FOLDER / name, tmp_path / "audit")
    with tiny.calm():
        watched = doors.audit(doors.AuditSpec.read(tmp_path / "audit" / "audit.yaml"), tmp_path / "audit")
    assert (watched.done, watched.run) == (watched.total, [])
    assert watched.total == len(recorded(name))


def test_the_committed_audit_of_the_digits_is_continued(tmp_path: Path) -> None:
    shutil.copytree(rendered.RECORDS / "digits", tmp_path / "digits")
    watched = doors.audit(doors.AuditSpec.read(tmp_path / "digits" / "audit.yaml"), tmp_path / "digits")
    assert (watched.done, watched.total, watched.run) == (48, 48, [])


def test_between_them_they_take_every_road() -> None:
    """Every attack, every defence and every kind of trial; a new one belongs here too."""
    from foretaste.attacks import ATTACKS
    from foretaste.defences import DEFENCES

    found = [one for name in tiny.AUDITS for one in doors.read(tiny.FOLDER / name)]
    assert {one.attack for one in found} == {"none", *ATTACKS}
    assert {one.threat for one in found} == {"clean", "labelled", "targeted", "pretraining", "weights"}
    defences = [
        key for one in found for key in (one.defences | one.certified | one.repaired | one.guarded | one.scanned)
    ]
    assert {key.partition(":")[0] for key in defences} == set(DEFENCES)
    assert all(not part.error for one in found for part in (one.repaired | one.guarded | one.scanned).values())


@pytest.mark.parametrize(
    ("key", "value", "here", "elsewhere"),
    [
        ("trial", "0" * 16, True, True),
        ("spec", {}, True, True),
        ("status", "failed", True, True),
        ("seed", 1, True, True),
        ("budget", 0.1004, True, True),
        ("attack", "other", True, True),
        ("warnings", ["new"], True, True),
        ("digests", {"poison": "0" * 64}, True, False),
    ],
)
def test_the_comparison_sees_what_it_is_for(key: str, value: object, here: bool, elsewhere: bool) -> None:
    before = next(one for one in recorded("labelled") if one["attack"] == "exact")
    after = {**before, key: value}
    assert any(differences(before, after, exactly=True)) == here
    assert any(differences(before, after, exactly=False)) == elsewhere
    assert not any(differences(before, copy.deepcopy(before), exactly=True))


def test_elsewhere_numbers_may_round_and_no_more() -> None:
    before = {"a": {"scores": {"value": 0.5}, "ledger": {"x": 1.0}}}
    for value, x, alike in [(0.515, 1.0005, True), (0.53, 1.0, False), (0.5, 1.01, False), (0.5, 1, True)]:
        after = {"a": {"scores": {"value": value}, "ledger": {"x": x}}}
        assert (not any(differences(before, after, exactly=False))) == alike
