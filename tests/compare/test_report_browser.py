"""The pages in a browser: no message in the console, in the light and in the dark, on a narrow screen."""

from pathlib import Path

import pytest

from analyse.chromium import Browser, Page
from compare.test_report import FIGURES, whole
from unrolled.compare.report import live_page, write_report
from unrolled.compare.results import CurvePoint

pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra report)")
pytest.importorskip("scipy", reason="scipy is not installed (the extra report)")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(whole(), folder)
    return folder / "report.html"


def narrow(page: Page) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    page.settle()
    assert page.eval("document.documentElement.scrollWidth <= 390"), "the page itself does not scroll sideways"


@pytest.mark.parametrize("dark", [False, True])
def test_the_report_opens(browser: Browser, report: Path, dark: bool) -> None:
    page = browser.open(report, dark)
    assert page.eval("document.title") == "Is a better than b?"
    assert page.eval("document.querySelectorAll('figure svg').length") == len(FIGURES)
    assert page.eval("document.querySelectorAll('svg i, svg script, td i').length") == 0, "names stay text"
    assert "c<i> | $x$" in page.eval("document.querySelector('svg[aria-label^=Every]').textContent")
    ink = "rgb(236, 236, 236)" if dark else "rgb(26, 26, 26)"
    assert page.eval("getComputedStyle(document.querySelector('svg text')).fill") == ink
    assert page.eval("new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size") == page.eval(
        "document.querySelectorAll('[id]').length"
    )
    assert page.eval("getComputedStyle(document.querySelector('svg text')).fontSize") == "9px"
    narrow(page)
    assert page.eval("[...document.querySelectorAll('figure svg')].every((s) => s.getBoundingClientRect().height > 80)")
    assert page.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_live_page_opens_and_reads_itself_again(browser: Browser, tmp_path: Path, dark: bool) -> None:
    path = tmp_path / "live.html"
    curve = [CurvePoint(1000 * i, 1.0 * i, 2 + 1 / i) for i in range(1, 9)]
    states = {
        "run.a.letters.s1": "done",
        "run.<i>b</i>.letters.s1": "running here",
        "run.a.letters.s2": "waiting",
    }
    path.write_text(live_page({"a, seed 1": curve, "<i>b</i>": curve[:3]}, states, "t <b>", seconds=1))
    page = browser.open(path, dark)
    assert page.eval("document.title") == "t <b>"
    assert page.eval("document.querySelectorAll('polyline').length") == 2
    assert page.eval("getComputedStyle(document.querySelector('polyline')).fill") == "none"
    stroke = "rgb(255, 140, 66)" if dark else "rgb(213, 94, 0)"
    assert page.eval("getComputedStyle(document.querySelector('polyline')).stroke") == stroke
    assert page.eval("document.querySelectorAll('i').length") == 0
    narrow(page)
    path.write_text(live_page({}, {"run.a.letters.s1": "done"}, "later", seconds=1))
    page.until("document.title === 'later'")
    assert "No run has been validated yet." in page.eval("document.body.innerText")
    assert page.complaints() == []
