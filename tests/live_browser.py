"""A real browser for tests of pages: Debian's Chromium, driven by Playwright. Tests skip where either is missing."""

import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip


@contextmanager
def open_browser():
    """Yield a browser, which one module of tests shares."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


class OpenedPage:
    """A page from disk, and what went wrong in it: errors, messages of the console, and requests of anything else."""

    def __init__(self, browser, path, *, fragment="", width=1280, height=900):
        self.tab = browser.new_page(viewport={"width": width, "height": height})
        self.faults = []
        self.tab.on("console", lambda message: self.faults.append(message.text))
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("request", lambda request: self._check_request(request.url, Path(path).as_uri()))
        self.tab.goto(Path(path).as_uri() + fragment)
        self.tab.wait_for_selector("#main:not([hidden])", timeout=20_000)

    def _check_request(self, url, own):
        if not url.startswith((own, "data:", "blob:")):
            self.faults.append(url)

    def read(self):
        """Return what the page shows: its state, and each shown map's values, prefix, title and scale."""
        return self.tab.evaluate(
            "new Promise(done => requestAnimationFrame(() => { const { state, shown } = viewer.read(); done({ state, "
            "maps: shown.map(({ heat, scale }) => ({ ...heat, values: [...heat.values], "
            "prefix: heat.prefix && [...heat.prefix], scale })) }) }))"
        )

    def wait_until(self, expression, seconds=10):
        """Wait until an expression is true. The page's own policy forbids Playwright's wait_for_function."""
        end = time.monotonic() + seconds
        while not self.tab.evaluate(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def hover(self, row, column, rows, columns):
        """Move the pointer to the centre of a patch."""
        box = self.tab.locator("#stage").bounding_box()
        self.tab.mouse.move(
            box["x"] + (column + 0.5) * box["width"] / columns, box["y"] + (row + 0.5) * box["height"] / rows
        )
