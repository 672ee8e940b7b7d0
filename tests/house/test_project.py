"""The house rules that no linter knows: size of files, what is committed, what the command line imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import foretaste

ROOT = Path(__file__).resolve().parents[2]
HARD_LINES, SOFT_LINES = 400, 250
HEAVY = ("lightly", "plotly", "scipy", "sklearn", "timm", "torch", "torchvision")
PLACES = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:root|work|Users)/|(?<![\w.])/home/\w"),
    "the address of a package index": re.compile(
        r"--(?:extra-)?index(?:-url)?[ =]|--find-lin[k]s"
        r"|\b(?:files\.pythonhosted|download\.pytorch)\.org|\bpypi\.org/simple"
    ),
}


@pytest.fixture(scope="module")
def committed() -> list[Path]:
    """Files that git has, or would take with `git add .`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts(files: list[Path]) -> list[tuple[Path, str]]:
    found = []
    for path in files:
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path.relative_to(ROOT), content.decode(errors="replace")))
    return found


def misplaced(text: str) -> list[str]:
    """What a committed file must not hold, as `what: where it stands`."""
    return [
        f"{what}: {text[max(0, hit.start() - 20) : hit.end() + 30]!r}"
        for what, pattern in PLACES.items()
        for hit in pattern.finditer(text)
    ]


def test_no_source_file_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "src").rglob("*.py")}
    assert lengths, "no source found"
    too_long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > HARD_LINES}
    assert not too_long, f"over {HARD_LINES} lines: {too_long}"
    for path, n in lengths.items():
        if n > SOFT_LINES:
            warnings.warn(f"{path.relative_to(ROOT)} has {n} lines; split it before {HARD_LINES}", stacklevel=1)


@pytest.mark.parametrize(
    ("text", "bad"),  # split, so that this file passes its own scan
    [
        ("see /wo" + "rk/main", True),
        ('"/ro' + 'ot/.cache"', True),
        ("/ho" + "me/ada/data", True),
        ("--ind" + "ex-url x", True),
        ("--extra-ind" + "ex-url=x", True),
        ("../shared/data/x.npz", False),
        ("src/work/x, docs/root/y, frame/home/z", False),
        ("$HOME/.cache and ~/data", False),
    ],
)
def test_scan_finds_what_it_is_for(text: str, bad: bool) -> None:
    assert bool(misplaced(text)) == bad


def test_nothing_committed_names_a_machine_or_an_index(committed: list[Path]) -> None:
    found = {str(path): hits for path, text in texts(committed) if (hits := misplaced(text))}
    assert not found, json.dumps(found, indent=1)


def test_nothing_committed_is_large(committed: list[Path]) -> None:
    large = {str(path.relative_to(ROOT)): size for path in committed if (size := path.stat().st_size) > 10_000_000}
    assert not large, "keep big files out of the repository"


def test_citation_and_package_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"] == foretaste.__version__
    assert citation["license"] == project["license"]
    assert foretaste.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_pinned_within_its_range() -> None:
    """A lower bound raised without `make lock`, or a dependency added without it, is found here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if re.match(r"\w", line)]
    pins: dict[str, list[str]] = {}
    for pin in map(Requirement, lines):
        (specifier,) = pin.specifier
        assert specifier.operator == "==" and pin.url is None, f"not a pin: {pin}"
        pins.setdefault(pin.name.lower(), []).append(specifier.version)
    for want in wanted:
        versions = pins.get(want.name.lower(), [])
        assert versions, f"{want.name} is not in requirements.txt; run `make lock`"
        assert all(Version(version) in want.specifier for version in versions), f"{want} against {versions}"


def test_documents_name_only_what_exists(committed: list[Path]) -> None:
    missing = []
    for path, text in texts([path for path in committed if path.suffix == ".md"]):
        links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text)
        named = [ROOT / path.parent / link for link in links]
        # A record is named by its path from the root, also outside links; a trailing stop is punctuation.
        named += [ROOT / name.rstrip(".") for name in re.findall(r"(?<![\w/])records/[\w./-]*\w", text)]
        missing += [f"{path}: {target}" for target in named if not target.exists()]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--help"], "audit"), (["--version"], foretaste.__version__), (["list"], "label-flip")],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_command_starts_without_heavy_imports(arguments: list[str], expected: str) -> None:
    """In its own process: nothing that this test run has imported can hide an import, or be blamed for one."""
    program = (
        "import sys\n"
        f"sys.argv = ['foretaste', *{arguments!r}]\n"
        "from foretaste.cli import main\n"
        "try:\n"
        "    code = main() or 0\n"
        "except SystemExit as stop:\n"
        "    code = stop.code or 0\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "print(f'heavy={heavy} code={code}', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith("heavy=[] code=0"), done.stderr
    assert expected in done.stdout


def test_results_page_is_what_the_records_say() -> None:
    from scripts import results

    assert results.PAGE.read_text(encoding="utf-8") == results.page(), "run python -m scripts.results"
    assert set(results.measured()) == set(results.HEADS)
    for name in results.HEADS:
        text = (results.FOLDER / f"{name}.md").read_text(encoding="utf-8")
        assert text == results.study(name), "run python -m scripts.results"
    assert {path.stem for path in results.FOLDER.glob("*.md")} == {"index", "audits", *results.HEADS}
