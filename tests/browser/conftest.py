"""Pages in headless Chromium: errors, requests, screenshots and accessibility."""

import pathlib
from collections.abc import Callable, Iterator

import pytest

CHROMIUM = pathlib.Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture
def open_page() -> Iterator[Callable]:
    """Open pages in Chromium; a test fails if one logs an error or requests anything but its own file.

    The browser lives for one test: Playwright keeps an event loop running, with which Orbax cannot save.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is in tests/requirements.txt")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no {CHROMIUM}: install Debian's package chromium")
    errors, requests = [], []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def open_(path: pathlib.Path, *, width: int = 1440, height: int = 900, dark: bool = False):
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on(
                "request", lambda request: requests.append(request.url) if _leaves(request.url, path.as_uri()) else None
            )
            page.goto(path.as_uri())
            return page

        yield open_
        browser.close()
    assert errors == []
    assert requests == []


def _leaves(url: str, own: str) -> bool:
    return url.partition("#")[0] != own and not url.startswith(("data:", "blob:"))


@pytest.fixture
def screenshots(open_page, tmp_path) -> Callable[[pathlib.Path], list[pathlib.Path]]:
    """Take screenshots of a whole page at 390 and 1440 pixels, light and dark; no width may scroll sideways."""

    def take(path: pathlib.Path, folder: pathlib.Path = tmp_path) -> list[pathlib.Path]:
        taken = []
        for width in (390, 1440):
            for dark in (False, True):
                page = open_page(path, width=width, dark=dark)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                taken.append(folder / f"{path.stem}_{width}_{'dark' if dark else 'light'}.png")
                page.screenshot(path=taken[-1], full_page=True)
                page.context.close()
        return taken

    return take


@pytest.fixture
def violations(open_page) -> Callable[[pathlib.Path], list[str]]:
    """Return what axe finds against WCAG 2 A and AA and its best practices, light and dark, narrow and wide."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is in tests/requirements.txt")

    def check(path: pathlib.Path) -> list[str]:
        found = []
        for width, dark in ((1440, False), (1440, True), (390, False)):
            page = open_page(path, width=width, dark=dark)
            for violation in axe.Axe().run(page).response["violations"]:
                where = [node["html"][:200] for node in violation["nodes"][:3]]
                found.append(f"{width} px, {'dark' if dark else 'light'}: {violation['help']}: {where}")
            page.context.close()
        return found

    return check
