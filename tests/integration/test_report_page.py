"""A report as people open it: offline, on a desk and on a phone, light, dark and printed."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from study.comparison_report import Asked, Compared, report_of
from study.report_html import html
from tests.integration.conftest import CHROMIUM, screenshot
from tests.study.results import result_of, run_of

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")

GRID = ((5e-4, 100), (1e-2, 100))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report on two sweeps of five seeds, as a file."""
    results = tuple(
        result_of(
            model,
            [
                run_of(seed, 0.97 + 0.001 * seed - shift, values)
                for values in GRID
                for seed in range(1, 6)
            ],
        )
        for model, shift in (("vit", 0.0), ("vitbn", 0.01))
    )
    names = tuple(result.name for result in results)
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html(report_of(Compared(results, {}, (), Asked(names)))))
    return path.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_it_opens_offline_without_an_error(
    browser: Browser, address: str, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]  # one of those it knows
        offline=True,
    )
    page = context.new_page()
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    expect(page.get_by_text("Verdict", exact=True)).to_be_visible()
    expect(page.get_by_text("vitbn against vit at lr 0.0005").first).to_be_visible()
    expect(page.locator(".chart-plot svg.main-svg").first).to_be_visible()
    drawn = page.locator(".chart-plot").count()
    assert drawn == 9  # four panels for each learning rate, and the times
    assert page.locator(".chart-plot:has(svg)").count() == drawn
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert errors == []
    screenshot(page, f"report-{width}-{scheme}")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(22, 22, 23)" if scheme == "dark" else "rgb(255, 255, 255)")
    context.close()


def test_it_can_be_printed(browser: Browser, address: str, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(address)
    expect(page.locator(".chart-plot svg.main-svg").first).to_be_visible()
    printed = tmp_path / "report.pdf"
    page.pdf(path=printed, format="A4")
    assert printed.read_bytes().startswith(b"%PDF")
    page.close()
