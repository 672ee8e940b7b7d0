"""The report in headless Chromium: drawn plots, a silent console, no request, names as text, keyboard and paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from foretaste import report
from foretaste.record import Alarm, Screening
from foretaste.statistics import wilson
from tests import records_fixture as planted

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TRACES = {  # traces per figure: points of a scatter, or bars
    "curve-0": 3,
    "curve-1": 3,
    "curve-2": 2,
    "steered": 2,
    "projection-0": 11,
    "projection-1": 11,
    "objective-0": 3,
    "objective-1": 3,
    "objective-2": 5,
}


@dataclass
class Visit:
    """An open page and everything it did that a report must not do."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no headless browser: none of {', '.join(BROWSERS)} is installed")
    with driver.sync_playwright() as running:
        # The sandbox needs privileges that containers lack; the page is our own file.
        opened = running.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report.render(planted.audit()).html, encoding="utf-8")
    return path


def visit(browser: Any, file: Path, **options: Any) -> Visit:
    page = browser.new_page(**options)
    seen = Visit(page)
    page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.console.append(f"error: {error}"))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(file.as_uri())
    page.wait_for_function(
        "document.querySelectorAll('.canvas .main-svg').length >= document.querySelectorAll('.canvas').length"
    )
    return seen


@pytest.fixture(scope="module")
def opened(browser: Any, file: Path) -> Iterator[Visit]:
    seen = visit(browser, file, viewport={"width": 1280, "height": 900})
    yield seen
    seen.page.close()


def test_every_plot_is_drawn(opened: Visit) -> None:
    drawn = opened.page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.canvas')].map(place => [place.id, "
        "place.querySelectorAll('.scatterlayer .trace, .barlayer .trace').length]))"
    )
    assert drawn == TRACES
    marks = opened.page.locator("#curve-0 .scatterlayer .points path.point").count()
    assert marks == 3 * 4  # three attacks, the clean start and three budgets
    assert opened.page.locator("#curve-0 .errorbars .yerror").count() >= 9


def test_page_is_silent_and_sends_nothing(opened: Visit, file: Path) -> None:
    assert opened.console == []
    assert opened.dialogs == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]


def test_names_stay_text_in_tables_and_plots(opened: Visit) -> None:
    page = opened.page
    assert page.locator("#pairs td", has_text=planted.NASTY).first.inner_text() == planted.NASTY
    legend = page.locator("#projection-0 .legendtext").evaluate_all("all => all.map(one => one.textContent)")
    assert legend == [*planted.CLASSES, "poison"]
    assert page.locator("#projection-0 a, #projection-0 script, #projection-0 b").count() == 0
    scripts = page.evaluate("[...document.scripts].filter(one => one.type !== 'application/json').length")
    assert scripts == 2


def test_hover_shows_names_as_text(opened: Visit) -> None:
    page = opened.page
    page.evaluate("Plotly.Fx.hover('projection-0', [{curveNumber: 0, pointNumber: 0}])")
    assert page.locator("#projection-0 .hovertext").first.text_content() == f"clean: {planted.NASTY}"


def test_policy_stops_a_script_that_got_in(browser: Any, file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    inserted = "<script>alert(9)</script><img src='https://example.org/x.png'></main>"
    broken.write_text(file.read_text(encoding="utf-8").replace("</main>", inserted, 1), encoding="utf-8")
    seen = visit(browser, broken)
    assert seen.dialogs == []
    assert len(seen.console) >= 2
    assert all("Content Security Policy" in line for line in seen.console)
    seen.page.close()


def test_keyboard_reaches_the_skip_link_and_the_commands(browser: Any, file: Path) -> None:
    page = visit(browser, file).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "verdict"
    first = page.locator("#labelled details").first
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    assert first.evaluate("part => part.open")
    assert "--seed 0" in first.locator("code").inner_text()
    page.close()


def test_paper_gets_narrow_plots_and_open_commands(opened: Visit) -> None:
    page = opened.page
    width = "document.querySelector('#curve-0 .main-svg').getBoundingClientRect().width"
    folded = "document.querySelectorAll('details:not([open])').length"
    before = page.evaluate(width), page.evaluate(folded)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(width) == 670
    assert page.evaluate(folded) == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"{width} === {before[0]}")
    assert page.evaluate(folded) == before[1] > 0
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_phone_needs_no_sideways_scrolling(browser: Any, file: Path) -> None:
    page = visit(browser, file, viewport={"width": 390, "height": 844}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('#curve-0 .main-svg').getBoundingClientRect().width") <= 390
    page.close()


def test_names_of_filters_stay_in_one_piece(browser: Any, tmp_path: Path) -> None:
    alarms = [
        Alarm(rate=rate, threshold=1.0, clean=wilson(1, 99), scores=planted.scores(1600), predictions="")
        for rate in (0.01, 0.05)
    ]
    found = Screening(filter={"name": "activation"}, calibration="own", calibration_rows=200, alarms=alarms)
    twin, *others = planted.audit()
    path = tmp_path / "report.html"
    path.write_text(report.render([twin.model_copy(update={"defences": {"activation": found}}), *others]).html)
    page = visit(browser, path, viewport={"width": 700, "height": 900}).page
    cell = page.locator("#defences td", has_text="activation").first
    lines = """cell => {
        const text = document.createRange();
        text.selectNodeContents(cell);
        return new Set([...text.getClientRects()].map(one => one.top)).size;
    }"""
    assert cell.evaluate(lines) == 1
    page.close()
