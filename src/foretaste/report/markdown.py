"""The report as Markdown: the same verdict and tables, and each row's commands below its table."""

from __future__ import annotations

import re

from foretaste.report.summary import Summary
from foretaste.report.tables import Table, accuracy, certified, checks, defences, targeted
from foretaste.report.threats import THREATS
from foretaste.report.verdict import Sentence


def page(summary: Summary, verdict: list[Sentence], advice: list[Sentence], heading: str) -> str:
    """The whole file as one string."""
    parts = [f"# {text(heading)}"]
    if advice:
        parts += ["## Recommendation", *_bullets([line.text for line in advice])]
    parts += ["## Verdict", *_bullets([line.text for line in verdict])]
    rows = accuracy.labelled(summary)
    parts += ["## Labelled rows", *(table_of(rows) if rows.lines else ["Not part of this audit."])]
    if rows.lines and (judged := accuracy.judged(summary)):
        parts += table_of(judged)
    if crossed := accuracy.matrix(summary):
        parts += table_of(crossed)
    if screened := defences.filters(summary):
        parts += table_of(screened)
    if proven := certified.table(summary):
        parts += table_of(proven)
    for threat in THREATS:
        found = threat.rows(summary)
        if not found and threat.key != "weights":
            continue
        parts += [
            f"## {threat.title}",
            *(table_of(targeted.table(threat, found)) if found else ["Not part of this audit."]),
        ]
        more = defences.of_encoder(threat, found, summary.clean)
        for table in (targeted.by_probe(threat, found), *more, targeted.pairs(threat, found)):
            parts += table_of(table) if table and table.lines else []
    parts += ["## Warnings", *(_bullets([_warning(w.text, w.trials) for w in summary.warnings]) or ["None."])]
    if summary.failures:
        parts += ["## Failed trials", *table_of(checks.failures(summary))]
    parts += ["## Cost", *table_of(checks.cost(summary)), "## Evidence"]
    for table in (
        accuracy.clean(summary),
        checks.dropped(summary),
        checks.ledgers(summary),
        checks.referee(summary),
        *checks.cards(summary),
    ):
        parts += table_of(table) if table.lines else []
    return "\n\n".join(parts) + "\n"


def text(value: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no link, on one line."""
    flat = " ".join(value.split())
    flat = re.sub(r"([\\`*_|~])", r"\\\1", flat)
    # A bracket alone is text; only what follows it makes a link.
    flat = re.sub(r"\](?=[(\[:])", r"]\\", flat)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _bullets(lines: list[str]) -> list[str]:
    return ["\n".join(f"- {text(line)}" for line in lines)] if lines else []


def _warning(message: str, trials: list[str]) -> str:
    return f"{message} ({'; '.join(trials)})" if trials else message


def table_of(table: Table) -> list[str]:
    """Caption and table, and a block of its commands where it has any."""
    rule = ["---" if place < table.text else "---:" for place in range(len(table.columns))]
    rows = [[text(column) for column in table.columns], rule]
    rows += [[text(cell) for cell in line.cells] for line in table.lines]
    parts = [text(table.caption), "\n".join("| " + " | ".join(row) + " |" for row in rows)]
    blocks = [command for line in table.lines for command in line.commands]
    return parts + (["To reproduce, in the order of the rows:", _code(blocks)] if blocks else [])


def _code(commands: list[str]) -> str:
    """A fenced block whose fence is longer than any run of backticks inside it."""
    inside = "\n".join(commands)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", inside)), default=0))
    return f"{fence}sh\n{inside}\n{fence}"
