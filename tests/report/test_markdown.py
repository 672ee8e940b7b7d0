"""The report as Markdown: names stay text, and a command stays in its block."""

from __future__ import annotations

from foretaste import report
from foretaste.record import TrialRecord
from tests import records_fixture as planted
from tests.report.markdown_fixture import markdown_tables, markdown_tokens


def test_markdown_shows_names_as_text(rendered: report.Report) -> None:
    tokens = [child for token in markdown_tokens(rendered.markdown) for child in [token, *(token.children or [])]]
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "em_open", "strong_open", "code_inline"}
    pairs = next(table for table in markdown_tables(rendered.markdown) if "wanted class" in table[0])
    assert [row[2] for row in pairs[1:11]] == planted.CLASSES
    assert all(len(row) == len(table[0]) for table in markdown_tables(rendered.markdown) for row in table)
    bullets = [token.content for token in markdown_tokens(rendered.markdown) if token.type == "inline"]
    assert any(text.startswith("10 % of poisoned rows can take accuracy from 83.1 to 39.7 %") for text in bullets)


def test_a_command_cannot_leave_its_code_block(audit: list[TrialRecord]) -> None:
    hostile = audit[1].model_copy(update={"command": "foretaste `````\n<script>alert(3)</script>\n`````"})
    tokens = markdown_tokens(report.render([audit[0], hostile]).markdown)
    assert [token.content for token in tokens if token.type == "fence"] == [hostile.command + "\n"]
    assert not any(token.type.startswith("html") for token in tokens)
