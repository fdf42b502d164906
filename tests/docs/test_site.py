"""The built site in a real Chromium: it is read, clicked and searched as its readers do."""

import functools
import http.server
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser import Reader, overflow

pytestmark = pytest.mark.processes
SHOTS = os.environ.get("FEDTRAIN_SHOTS")
"""A folder for pictures of the pages, to be looked at by a person; none are taken without it."""


@dataclass
class Opened:
    """The site, in a browser."""

    page: Page
    root: str

    def go(self, path: str = "") -> None:
        self.page.goto(f"{self.root}/{path}", wait_until="load")

    def shoot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=Path(SHOTS) / f"docs-{name}.png")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing: what matters is what the browser says."""


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(params=["light"])
def opened(reader: Reader, served: str, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Fails the test if a script of the page fails, or if anything is asked of another server."""
    reader.complaints.clear()
    with reader.reading(served, width=1280, scheme=request.param) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served)
        yield Opened(page, served)
    assert reader.complaints == []


def test_the_search_finds_a_field_and_leads_to_it(opened: Opened) -> None:
    opened.go()
    opened.page.get_by_placeholder("Search").first.fill("idleTimeout")
    found = opened.page.locator(".md-search-result__link", has_text="FederatedTraining").first
    found.wait_for()
    opened.shoot("search")
    found.click()
    opened.page.wait_for_url("**/reference/training/**")
    row = opened.page.locator("tr", has=opened.page.locator("code", has_text="idleTimeout")).first
    assert "had nothing to do for so long" in row.inner_text()


def test_the_four_parts_are_a_click_away(opened: Opened) -> None:
    opened.go()
    tabs = opened.page.locator(".md-tabs__link")
    assert [t.strip() for t in tabs.all_inner_texts()] == [
        "fedtrain",
        "Tutorial",
        "How-to",
        "Reference",
        "Explanation",
    ]
    for part in ("Tutorial", "How-to", "Reference", "Explanation"):
        opened.page.locator(".md-tabs__link", has_text=part).click()
        opened.page.wait_for_url(f"**/{part.lower()}/")
        assert opened.page.locator("h1").inner_text().startswith(part)
    opened.page.locator("article").get_by_role("link", name="How a round works").click()
    opened.page.wait_for_url("**/explanation/round/")
    assert "decide(training, records, observed, now)" in opened.page.locator("article").inner_text()


def test_dark_and_light_change_places_and_are_remembered(opened: Opened) -> None:
    opened.go("explanation/numerics/")
    body, background = opened.page.locator("body"), "e => getComputedStyle(e).backgroundColor"
    assert body.get_attribute("data-md-color-scheme") == "default"
    light = body.evaluate(background)
    opened.shoot("numerics-light")
    opened.page.locator("label[title=Dark]").click()
    assert body.get_attribute("data-md-color-scheme") == "slate"
    assert body.evaluate(background) != light
    opened.go("reference/failures/")
    assert body.get_attribute("data-md-color-scheme") == "slate"
    opened.shoot("failures-dark")


@pytest.mark.parametrize(
    ("page", "of", "copied"),
    [
        ("tutorial/laptop/", "fedtrain validate", "fedtrain validate federation.yaml"),
        (
            "how-to/tracking/",
            "is tracked by MLflow",
            "pip install -c constraints.txt -e '.[local,tracking]'\n"
            "export MLFLOW_TRACKING_URI=http://127.0.0.1:5000\n"
            "fedtrain run federation.yaml --out runs/digits\n"
            "tensorboard --logdir runs/digits/tensorboard",
        ),
    ],
)
def test_commands_are_copied_without_prompts_and_answers(
    opened: Opened, page: str, of: str, copied: str
) -> None:
    opened.go(page)
    block = opened.page.locator(".highlight", has_text=of).first
    block.hover()
    block.locator(".md-clipboard, .md-code__button").first.click()
    opened.page.wait_for_function("navigator.clipboard.readText().then(t => t !== '')")
    text = opened.page.evaluate("navigator.clipboard.readText()")
    assert [line for line in text.splitlines() if line] == copied.splitlines()


def test_a_script_is_copied_as_it_stands(opened: Opened) -> None:
    opened.go("tutorial/laptop/")
    opened.page.locator(".highlight", has_text="from sklearn.datasets").first.hover()
    block = opened.page.locator(".highlight", has_text="from sklearn.datasets").first
    block.locator("[data-clipboard-target], .md-clipboard, .md-code__button").first.click()
    opened.page.wait_for_function(
        "navigator.clipboard.readText().then(t => t.startsWith('import os'))"
    )
    opened.shoot("tutorial-light")


LONG = (
    "",
    "reference/training/",
    "reference/contract/",
    "explanation/comparison/",
    "explanation/threats/",
    "how-to/from-flower/",
    "results/2026-11-28-rounds/",
)
"""Pages with wide tables and long lines of code."""


@pytest.mark.parametrize(("opened", "width"), [("light", 360), ("dark", 1600)], indirect=["opened"])
def test_no_page_is_wider_than_its_window(
    opened: Opened, width: int, request: pytest.FixtureRequest
) -> None:
    dark = request.node.callspec.params["opened"] == "dark"
    opened.page.set_viewport_size({"width": width, "height": 900})
    for path in LONG:
        opened.go(path)
        over = overflow(opened.page)
        assert over <= 0, f"{path or 'the first page'} is {over} px too wide at {width}"
        scheme = opened.page.locator("body").get_attribute("data-md-color-scheme")
        assert scheme == ("slate" if dark else "default")
        name = re.sub(r"\W+", "-", path).strip("-") or "index"
        opened.shoot(f"{name}-{width}-{'dark' if dark else 'light'}")
