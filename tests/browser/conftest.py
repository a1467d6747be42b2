"""One browser for all tests of the status page, and where its screenshots go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Browser, Page
from tests.integration.conftest import Pair, pair

__all__ = ["Pair", "pair"]

ARTIFACTS = Path(__file__).resolve().parents[2] / "artifacts" / "status-page"
PHONE_WIDTH = 360
AXE = resources.files("axe_core_python") / "axe.min.js"

Photographer = Callable[[Page, str], None]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return the browser; its start takes a second or two."""
    with Browser() as started:
        yield started


@pytest.fixture
def photograph() -> Photographer:
    """Check and photograph a state: on a desk and on a phone, light and dark."""

    def take(page: Page, name: str) -> None:
        for width, height in ((1280, 900), (PHONE_WIDTH, 740)):
            page.resize(width, height)
            for dark in (False, True):
                page.prefer(dark=dark, still=True)
                where = f"{name}-{'phone' if width == PHONE_WIDTH else 'desk'}"
                where += "-dark" if dark else ""
                page.screenshot(ARTIFACTS / f"{where}.png")
                assert overflow(page) == [], where
                if width != PHONE_WIDTH or not dark:  # colours are the same, and axe is slow
                    assert violations(page) == [], where
        page.resize(1280, 900)
        page.prefer()

    return take


def overflow(page: Page) -> list[Any]:
    """Return the elements that stick out of the window: each would make it scroll sideways."""
    found: list[Any] = page.ask(
        "[...document.body.querySelectorAll('*')]"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map((e) => e.outerHTML.slice(0, 100))"
    )
    if page.ask("document.documentElement.scrollWidth > innerWidth"):
        found.append("the page scrolls sideways")
    return found


def violations(page: Page, within: str = "document", *, passes_min: int = 11) -> list[str]:
    """Return what axe-core finds against WCAG 2.1 A and AA and good practice.

    ``within``: an expression for what is looked at; behind an open dialog it cannot judge colours.
    """
    if not page.ask("Boolean(window.axe)"):
        page.ask(f"{AXE.read_text('utf-8')}; null")
    report = page.ask(f"axe.run({within}, {{resultTypes: ['violations', 'incomplete']}})")
    assert len(report["passes"]) >= passes_min, "axe-core has looked at nothing"
    return [
        f"{found['id']}: {node['html'][:120]}: {node['failureSummary']}"
        for found in (*report["violations"], *report["incomplete"])
        for node in found["nodes"]
    ]
