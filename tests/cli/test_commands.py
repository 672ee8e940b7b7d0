from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from foretaste import __version__, attacks, defences, probes
from foretaste.attacks import ATTACKS
from foretaste.audits.grid import configured
from foretaste.audits.spec import AuditSpec
from foretaste.defences import DEFENCES
from foretaste.features.cache import FeatureCache
from foretaste.probes import PROBES
from foretaste.record import read
from tests.audits.audit_fixture import command, numbers

pytestmark = pytest.mark.usefixtures("here")

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ["--data", "images.npz", "--encoder", "net.py:make", "--precision", "float32"]
PROGRAM = "from foretaste.cli import main; main()"


def test_list_shows_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 0
    text = capsys.readouterr().out
    for name in (*ATTACKS, *PROBES, *DEFENCES, "digits", "timm:NAME", "simclr"):
        assert f"\n  {name} " in text


def test_list_shows_fields_with_ranges_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list", "exact") == 0
    text = capsys.readouterr().out
    assert "--constraint  none | box | ball, default box" in text
    assert "--quantile  float > 0 and <= 1, default 0.95" in text
    assert "--ridge  float > 0, default 0.001" in text  # the probe of the same name
    finders = {attacks.find: ATTACKS, probes.find: PROBES, defences.find: DEFENCES}
    for find, table in finders.items():
        for name in table:
            assert command("list", name) == 0
            shown = capsys.readouterr().out
            found = find(name)
            for key, field in found.model_fields.items():
                assert f"--{key.replace('_', '-')}  " in shown
                assert str(field.description) in shown


def test_schema_is_the_published_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("schema") == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "record.schema.json").read_text(encoding="utf-8")


def test_the_page_about_the_command_is_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its audit file can be read, its flags exist, and so do its commands."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    (tmp_path / "audit.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    configured(AuditSpec.read(tmp_path / "audit.yaml"))
    known = ["--debug", "--help"]
    for name in ("audit", "attack", "pretrain", "repair", "reproduce", "scan", "report"):
        assert command(name, "--help") == 0
        known += re.findall(r"--[a-z-]+", capsys.readouterr().out)
    for name in ATTACKS:
        known += [f"--{field.replace('_', '-')}" for field in attacks.find(name).model_fields]
    for name, (kind, *_) in DEFENCES.items():
        if kind == "repair":
            known += [f"--{field.replace('_', '-')}" for field in defences.find(name).model_fields]
    assert not set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page)) - set(known)
    assert set(re.findall(r"foretaste ([a-z]+)", page)) <= {
        *("audit", "attack", "pretrain", "repair", "reproduce", "scan", "list", "report", "schema", "cache"),
    }


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    assert capsys.readouterr().out == f"foretaste {__version__}\n"
    assert command("--help") == command() == 0
    plain = capsys.readouterr().out
    for name in ("audit", "attack", "pretrain", "repair", "scan", "list", "report", "schema", "cache"):
        assert f"\n  {name} " in plain
        assert command(name, "--help") == 0
        assert "Usage: foretaste" in capsys.readouterr().out


def test_cache_clear_frees_what_an_audit_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--attacks", "label-flip", "--budgets", "0.1", "--seeds", "1"]
    assert command("audit", *IMAGES, *flags, "--out", tmp_path / "a") == 0
    folder = FeatureCache().folder
    assert len(list(folder.glob("*.npy"))) == 4
    capsys.readouterr()
    assert command("cache", "clear") == 0
    assert re.fullmatch(rf"freed 0\.0 MiB in {re.escape(str(folder))}\n", capsys.readouterr().out)
    assert not list(folder.glob("*"))
    # Computed again or kept: the same numbers.
    assert command("audit", *IMAGES, *flags, "--out", tmp_path / "b") == 0
    assert numbers(read(tmp_path / "a")) == numbers(read(tmp_path / "b"))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"]], ids=lambda words: words[0])
def test_the_command_starts_fast(arguments: list[str]) -> None:
    """Under half a second of a processor's time, the best of three: neighbours must not decide."""
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        pytest.skip("without bytecode every import is compiled")
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.5
