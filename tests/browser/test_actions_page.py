"""Acting on the page in a real browser: with a token, without, and with a wrong one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.events import Progress, SideView
from bridge.ledger.records import EndedAs, Entry, StudyNote
from bridge.ledger.store import Ledger
from bridge.model import Study
from tests.acting import IDS, TOKEN, Acting
from tests.browser.chromium import Browser, Page
from tests.browser.conftest import Photographer, overflow, violations

WORKING = Progress(checkpoint=800, last=900, phase="following", caught_up=False)


@pytest.fixture
def acting(tmp_path: Path) -> Iterator[Acting]:
    found = Acting(tmp_path)
    with Ledger(found.path) as ledger:
        note = StudyNote(Study("1.2.3", IDS[4]), IDS[4], EndedAs.PARKED, time.time(), 0.0)
        ledger.commit(Entry(studies=(note,)))
    up = SideView(up=True, version="1.12.7")
    now = time.time()
    found.board.on_progress(
        replace(WORKING, source=up, target=up, last_progress_at=now, feed_read_at=now)
    )
    yield found
    found.close()


@pytest.fixture
def page(acting: Acting, browser: Browser) -> Iterator[Page]:
    with browser.page() as opened:
        opened.go(f"{acting.server.url}/")
        opened.wait("document.getElementById('versions')?.textContent")
        yield opened


def unlock(page: Page, token: str) -> None:
    page.ask(f"document.getElementById('token').value = '{token}'")
    click(page, "#login button")


def click(page: Page, selector: str) -> None:
    page.ask(f"document.querySelector('{selector}').click()")


def answer(page: Page, button: str) -> str:
    """Wait for the question, and answer it; returns the question."""
    page.wait("document.getElementById('confirm').open")
    asked = page.text("#confirm-text")
    click(page, f"#confirm-{button}")
    return asked


def test_a_wrong_token_opens_nothing(page: Page, acting: Acting) -> None:
    assert page.ask("document.querySelectorAll('td[data-label=Act]').length") == 0
    unlock(page, "x" * 30)
    page.wait_text("#acted", "That is not a token of BRIDGE_ADMIN_TOKEN.")
    assert page.ask("document.getElementById('acting').hidden")
    assert page.ask("document.getElementById('token').value") == ""
    assert not acting.paused()


def test_pause_and_resume_after_a_yes(page: Page, acting: Acting, photograph: Photographer) -> None:
    unlock(page, TOKEN)
    page.wait("!document.getElementById('acting').hidden")
    assert page.text("#who") == "anna"
    page.wait("document.querySelectorAll('#parked-last td[data-label=Act]').length === 5")
    photograph(page, "unlocked")
    click(page, "#act-pause")
    assert "will start no new instance" in answer(page, "no")
    page.wait_text("#acted", "Nothing was done.")
    assert not acting.paused()
    click(page, "#act-pause")
    page.wait("document.getElementById('confirm').open")
    assert overflow(page) == []
    assert violations(page, "document.getElementById('confirm')", passes_min=3) == []
    click(page, "#confirm-yes")
    page.wait_text("#acted", "Paused. Instances in progress finish.")
    assert acting.paused()
    acting.board.on_progress(replace(acting.board.progress, hold="paused"))
    page.wait("!document.getElementById('act-resume').hidden")
    click(page, "#act-resume")
    answer(page, "yes")
    page.wait_text("#acted", "Resumed.")
    assert not acting.paused()
    assert [one for one in page.errors if "409" not in one] == []


def test_a_parked_one_is_dropped_from_its_row(page: Page, acting: Acting) -> None:
    study = "document.querySelector('#parked-last td[data-label=Study] a')?.getAttribute('href')"
    assert page.ask(study) == "studies?search=1.2.3"
    unlock(page, TOKEN)
    buttons = (
        "[...document.querySelectorAll('#parked-last tr')].find((row) => "
        f"row.innerText.includes('{IDS[2]}'))?.querySelectorAll('td[data-label=Act] button')"
    )
    page.wait(f"{buttons}?.length === 2")
    page.ask(f"{buttons}[1].click()")
    assert "This drops 1 parked instance:" in answer(page, "yes")
    page.wait_text("#acted", "Dropped 1 instance.")
    assert acting.parked() == [IDS[0], IDS[1], IDS[3], IDS[4]]
    page.wait(f"{buttons} === undefined")


def test_a_replay_runs_beside_and_its_end_is_told(page: Page, acting: Acting) -> None:
    unlock(page, TOKEN)
    page.wait("!document.getElementById('acting').hidden")
    page.ask("document.getElementById('first').value = '5'")
    page.ask("document.getElementById('last').value = '901'")
    click(page, "#replay button")
    page.wait_text("#acted", "The range is beyond the feed: its last change is 900.")
    page.ask("document.getElementById('last').value = ''")
    click(page, "#replay button")
    assert "sequences 5 to the end" in answer(page, "yes")
    assert acting.ended.wait(30)
    page.wait_text("#command-beside", "Last command: replay 5 to the end: done, 3 instances")


def test_the_token_is_nowhere_but_in_memory_and_gone_with_the_page(
    page: Page, acting: Acting
) -> None:
    unlock(page, TOKEN)
    page.wait("!document.getElementById('acting').hidden")
    kept = (
        "[document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), "
        "location.href, document.documentElement.outerHTML].join()"
    )
    assert TOKEN not in page.ask(kept)
    page.go(f"{acting.server.url}/")
    page.wait("document.getElementById('versions')?.textContent")
    assert page.ask("document.getElementById('acting').hidden")


def test_the_keyboard_goes_on_where_it_was(page: Page) -> None:
    """What had the focus is hidden: it fell to the body of the page.

    Planted, seen to fail: the focus is not moved.
    """
    page.ask("document.getElementById('token').focus()")
    unlock(page, TOKEN)
    page.wait("!document.getElementById('acting').hidden")
    assert page.ask("document.activeElement.id") == "lock"
    click(page, "#lock")
    assert page.ask("document.activeElement.id") == "token"
    unlock(page, "x" * 30)
    page.wait_text("#acted", "That is not a token of BRIDGE_ADMIN_TOKEN.")
    assert page.ask("document.activeElement.id") == "token"
