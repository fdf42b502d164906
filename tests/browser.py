"""Debian's Chromium, without a screen, as a reader's browser: pages that complain fail the test."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

Scheme = Literal["light", "dark"]
SECONDS = 60


@dataclass
class Reader:
    """Opens pages. complaints: what their consoles said, what was thrown, and what they asked of
    anybody but the place that they are from."""

    browser: Browser
    complaints: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def reading(self, url: str, *, width: int = 1600, scheme: Scheme = "light") -> Iterator[Page]:
        """A page in a window of that width, which remembers nothing of others; closed then."""
        size: Any = {"width": width, "height": 900}
        context = self.browser.new_context(viewport=size, color_scheme=scheme)
        context.set_default_timeout(SECONDS * 1000)
        page = context.new_page()
        page.on("console", lambda message: self._heard(message))
        page.on("pageerror", lambda error: self.complaints.append(f"thrown: {error}"))
        page.on("request", lambda request: self._asked(url, request))
        try:
            page.goto(url)
            yield page
        finally:
            context.close()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _asked(self, url: str, request: Request) -> None:
        home, asked = urlsplit(url), urlsplit(request.url)
        own = request.url.partition("#")[0] == url.partition("#")[0]
        served = home.scheme != "file" and (asked.scheme, asked.netloc) == (
            home.scheme,
            home.netloc,
        )
        if not (own or served or asked.scheme in ("data", "blob")):
            self.complaints.append(f"asked for {request.url}")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; a root user's has no sandbox, as Chromium demands."""
    program = shutil.which("chromium")
    assert program, "chromium is missing; `make tools` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"], timeout=SECONDS * 1000
        )
        yield browser
        browser.close()


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider
