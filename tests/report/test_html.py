"""The page as an independent parser sees it: complete, quiet, and with the names of user data as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from foretaste import report
from foretaste.record import TrialRecord
from foretaste.report.html import embed
from tests import records_fixture as planted
from tests.report.markdown_fixture import markdown_tables

LIMIT = 6_000_000


class Page(HTMLParser):
    """The page as an independent parser sees it: elements, scripts, and the text of table cells."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._table, self._cell, self._script = "", False, False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.elements.append((tag, values))
        self._script = tag == "script"
        if self._script:
            self.scripts.append((values, ""))
        if tag == "table":
            self._table = values["id"] or ""
            self.tables[self._table] = []
        if self._table and tag == "tr":
            self.tables[self._table].append([])
        if self._table and tag in ("td", "th"):
            self._cell = True
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = ""
        if tag in ("td", "th"):
            self._cell = False
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            values, text = self.scripts[-1]
            self.scripts[-1] = values, text + data
        elif self._cell:
            self.tables[self._table][-1][-1] += data


@pytest.fixture(scope="module")
def page(rendered: report.Report) -> Page:
    return Page(rendered.html)


def test_page_is_small_and_loads_nothing(rendered: report.Report, page: Page) -> None:
    assert len(rendered.html.encode()) < LIMIT
    loading = [
        (tag, name, value)
        for tag, values in page.elements
        for name, value in values.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "background")
    ]
    assert loading
    assert all(value and value.startswith(("#", "data:image/png;base64,")) for _, _, value in loading)
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, values in page.elements for name in values if name.startswith("on")]


def test_names_from_user_data_stay_text(rendered: report.Report, page: Page) -> None:
    code = [text for values, text in page.scripts if values.get("type") != "application/json"]
    assert len(code) == 2  # plotly and the page's own
    assert not any("alert(" in text for text in code[1:])
    plots = [json.loads(text) for values, text in page.scripts if values.get("type") == "application/json"]
    assert len(plots) == len([values for _, values in page.elements if values.get("class") == "canvas"]) == 9
    names = {trace["name"] for plot in plots for trace in plot["data"] if "name" in trace}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in names
    assert "&lt;b&gt;bold&lt;/b&gt; &amp;lt;i&amp;gt;" in names
    assert page.tables["pairs"][1][2] == planted.NASTY
    assert page.tables["failures"][1][1] == f"AttackError: objective is not finite for class {planted.NASTY}"
    assert all(name in page.tables["data"][3][1] for name in planted.CLASSES)


def test_policy_allows_only_the_scripts_of_the_page(page: Page) -> None:
    policy = next(v["content"] for tag, v in page.elements if tag == "meta" and v.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    code = [text for values, text in page.scripts if values.get("type") != "application/json"]
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in code}
    assert set(rules["script-src"].split()) == hashes
    assert not any(word in policy for word in ("http", "unsafe-eval", "connect-src", "*"))


def test_embedded_json_cannot_end_its_block_and_reads_back() -> None:
    value = {"name": "</script><!-- <script> & \u2028\u2029 \\ \" '", "x": [1.5, None]}
    text = str(embed(value))
    assert not re.search(r"[<>&\u2028\u2029]", text)
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="Out of range"):
        embed({"x": float("nan")})


def test_html_and_markdown_tables_have_the_planted_numbers(rendered: report.Report, page: Page) -> None:
    row = ["exact (features, box)", "3 %", "150", "83.1", "74.0", "−9.1"]
    line = next(line for line in page.tables["labelled"] if line[:2] == row[:2])
    assert line[:6] == row
    assert line[7:] == ["2,000", "3 (1 failed)"]
    tables = markdown_tables(rendered.markdown)
    assert next(line for line in tables[0] if line[:2] == row[:2])[:6] == row
    assert page.tables["weights"][1][:6] == ["pacl", "20", "17", "16", "94 % [73, 99]", "3 of 20"]
    assert tables[2][1] == page.tables["weights"][1]
    commands = [line[0] for line in page.tables["labelled"] if "foretaste audit" in line[0]]
    assert len(commands) == len(planted.RIGHT)
    assert all(f"--seed {seed}" in commands[0] for seed in planted.SEEDS)
    assert len(page.tables["pairs"]) == 1 + 2 * planted.PAIRS


def test_cost_is_the_mean_over_trials(page: Page) -> None:
    line = next(line for line in page.tables["cost"] if line[:2] == ["exact (pixels, [0,1])", "10 %"])
    assert line == ["exact (pixels, [0,1])", "10 %", "3", "–", "1.0 s", "9.0 s", "0.2 s", "10 s", "30,000"]


def test_page_is_accessible_to_a_parser(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == tags.count("main") == 1
    assert tags.count("caption") == tags.count("table") == len(page.tables)
    assert all(values.get("scope") in ("row", "col") for tag, values in page.elements if tag == "th")
    assert all(values.get("alt") for tag, values in page.elements if tag == "img")
    ids = [values["id"] for _, values in page.elements if "id" in values]
    assert len(ids) == len(set(ids))
    pointed = {(values.get("href") or "#")[1:] for tag, values in page.elements if tag == "a"}
    pointed |= {
        values[name] or "" for _, values in page.elements for name in values if name.startswith("aria-labelledby")
    }
    assert pointed <= set(ids)
    first_link = next(values for tag, values in page.elements if tag == "a")
    assert first_link["class"] == "skip"


def test_a_large_audit_stays_under_the_limit(audit: list[TrialRecord]) -> None:
    clean, exact = audit[0], next(trial for trial in audit if trial.projection and trial.exhibits)
    assert exact.projection is not None
    assert exact.ledger is not None
    many = exact.projection.model_copy(
        update={
            name: getattr(exact.projection, name) * 20 for name in ("clean", "clean_labels", "poison", "poison_labels")
        }
    )
    long = exact.ledger.model_copy(update={"objective": exact.ledger.objective * 50})
    big = {"projection": many, "ledger": long, "exhibits": exact.exhibits * 4}
    records = [clean]
    for number in range(12):
        for budget in (0.01, 0.03, 0.1):
            own = {"trial": f"{number} {budget}", "variant": f"variant {number}", "budget": budget}
            records.append(exact.model_copy(update={**big, **own}))
    pacl = next(trial for trial in audit if trial.threat == "weights")
    records += [pacl.model_copy(update={"trial": f"pair {number}"}) for number in range(400)]
    rendered = report.render(records)
    assert len(rendered.html.encode()) < LIMIT
    assert "200 more pairs are in record.jsonl" in rendered.html
    assert "400 chosen" not in rendered.html  # one image many times: pairs, not images
    assert "more in record.jsonl" in rendered.html
