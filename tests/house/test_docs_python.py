"""The page "Foretaste from Python" and the README's lines of Python run, and print what they say."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, str, str | None]]:
    """Line, code and expected output of each block of Python."""
    return [(text[: hit.start("code")].count("\n"), hit["code"], hit["output"]) for hit in BLOCK.finditer(text)]


def execute(text: str, page: str, names: dict[str, Any]) -> int:
    """Run the blocks of a page in one namespace; how many there were. `...` stands for any output."""
    found = blocks(text)
    for line, code, expected in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, page, "exec"), names)
        if expected is None:
            assert printed.getvalue() == "", f"{page}, line {line}: the page does not show what is printed"
        elif not doctest.OutputChecker().check_output(expected, printed.getvalue(), doctest.ELLIPSIS):
            pytest.fail(f"{page}, line {line}: expected\n{expected}\ngot\n{printed.getvalue()}")
    return len(found)


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "python.md"
    text = page.read_text(encoding="utf-8")
    assert execute(text, str(page), {"__name__": "notebook"}) == text.count("```python\n") > 15


def test_a_wrong_output_and_a_hidden_one_are_found() -> None:
    execute("```python\nprint(3)\n```\n\n```text\n3\n```\n", "page", {})
    execute("```python\nprint('a b')\n```\n\n```text\na ...\n```\n", "page", {})
    with pytest.raises(pytest.fail.Exception, match=r"page, line 1: expected\n4"):
        execute("```python\nprint(3)\n```\n\n```text\n4\n```\n", "page", {})
    with pytest.raises(AssertionError, match="does not show"):
        execute("```python\nprint(3)\n```\n", "page", {})


def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = blocks(text)
    assert len([line for line in found[1].splitlines() if line and not line.startswith("import")]) <= 10
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(found[1], "README.md", "exec"), {"__name__": "notebook"})
    assert printed.getvalue().rstrip().endswith("demo/report.html") and (tmp_path / "demo" / "report.html").is_file()
