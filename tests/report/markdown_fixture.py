"""The Markdown report as an independent parser sees it."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.token import Token


def markdown_tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)


def markdown_tables(text: str) -> list[list[list[str]]]:
    tables: list[list[list[str]]] = []
    cell = False
    for token in markdown_tokens(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("td_open", "th_open"):
            cell = True
        elif token.type == "inline" and cell:
            tables[-1][-1].append("".join(child.content for child in token.children or []))
            cell = False
    return tables
