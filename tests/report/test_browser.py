"""In a browser, the page asks for nothing, has nothing to complain about, and fits every screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.browser import Browser, browser, chromium
from tests.helpers.diagnoses import deepened, diagnosed, residual

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium on the path")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sj_ann2snn import html_report

    folder = tmp_path_factory.mktemp("pages")
    found = diagnosed(residual())
    page = found.to_html(folder / "hostile.html")
    html_report(deepened(found.to_dict(observed=True), 60), folder / "deep.html")
    image = '<img src="http://example.invalid/pixel.png"/><script>console.log("run")</script>'
    (folder / "broken.html").write_text(page.replace("</body>", f"{image}</body>"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("name", ["hostile", "deep"])
def test_the_page_keeps_quiet_and_fits(chrome: Browser, pages: Path, name: str, width: int) -> None:
    page = pages / f"{name}.html"
    seen = chrome.visit(page, width=width)
    assert [one for one in seen.requests if not one.startswith("data:")] == [page.resolve().as_uri()]
    assert seen.console == []
    assert seen.width <= width
    assert seen.wide == []


def test_light_and_dark(chrome: Browser, pages: Path) -> None:
    light = chrome.visit(pages / "hostile.html", width=1280)
    dark = chrome.visit(pages / "hostile.html", width=1280, dark=True)
    assert _brightness(light.background) > 200
    assert _brightness(dark.background) < 50


def test_the_browser_would_notice(chrome: Browser, pages: Path) -> None:
    seen = chrome.visit(pages / "broken.html", width=1280)
    assert any("example.invalid" in one for one in seen.console)
    assert any("script" in one for one in seen.console)
    assert not any("'run'" in one for one in seen.console)


def _brightness(colour: str) -> float:
    parts = [float(one) for one in colour.removeprefix("rgb(").rstrip(")").split(",")]
    return sum(parts) / len(parts)
