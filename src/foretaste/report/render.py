"""The two verbs of the report: `render` for records in memory, `write` for the folder of an audit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from foretaste.record import TrialRecord, read
from foretaste.report import html, markdown
from foretaste.report.recommend import recommendation
from foretaste.report.summary import summarise
from foretaste.report.verdict import sentences

HTML_NAME = "report.html"
MARKDOWN_NAME = "report.md"


@dataclass(frozen=True)
class Report:
    """A rendered report.

    Attributes:
        html: one page that opens offline and loads nothing; scripts other than its own are forbidden by its policy.
        markdown: the same verdict and tables as text.
        verdict: what was found, in plain words.
        recommendation: what the figures say about defences, which stands on top; may be empty.
    """

    html: str
    markdown: str
    verdict: list[str]
    recommendation: list[str]


def render(records: list[TrialRecord], *, title: str = "") -> Report:
    """Render the trials of one audit.

    Args:
        records: trials of one data set and one encoder, in any order; failed ones are shown as such.
        title: heading of the report; by default the names of the data and of the encoder.

    Raises:
        RecordError: no trial at all, or trials of more than one data set or encoder.
    """
    summary = summarise(records)
    lines, advice = sentences(summary), recommendation(summary)
    heading = title or f"{summary.data.name} · {summary.encoder.name if summary.encoder else 'features from a file'}"
    return Report(
        html=html.page(summary, lines, advice, heading),
        markdown=markdown.page(summary, lines, advice, heading),
        verdict=[line.text for line in lines],
        recommendation=[line.text for line in advice],
    )


def write(folder: Path, *, title: str = "") -> tuple[Path, Path]:
    """Read `folder/record.jsonl` and write `report.html` and `report.md` beside it, each whole or not at all.

    Returns:
        The paths of the HTML and of the Markdown file.

    Raises:
        RecordError: the record is missing, damaged, empty or mixes audits.
    """
    report = render(read(folder), title=title)
    return _replace(folder / HTML_NAME, report.html), _replace(folder / MARKDOWN_NAME, report.markdown)


def _replace(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
