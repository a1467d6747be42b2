"""The page of studies in a real browser: list, search, filter, older ones, parked instances."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.ledger.outbox import EventLedger
from bridge.ledger.records import EndedAs, Entry, Parked, StudyNote, StudyTold
from bridge.model import Move, Reason, Study
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.names import BridgeNames
from bridge.monitoring.server import MonitoringServer, application
from bridge.monitoring.studies import PAGE_STUDIES
from tests.browser.chromium import Browser, Page
from tests.browser.conftest import Photographer

STUDIES = PAGE_STUDIES + 7
STABLE = {"1.2.3", f"1.2.{STUDIES - 2}"}
NAMES = BridgeNames(bridge="Ward 7", source_public_url="http://pacs", command_prefix="sudo")


def identifier(number: int) -> str:
    text = f"{number:040x}"
    return "-".join(text[start : start + 8] for start in range(0, 40, 8))


@pytest.fixture
def page(tmp_path: Path, browser: Browser) -> Iterator[Page]:
    """Open the page of a bridge with many studies, of which the third lacks two instances."""
    with EventLedger(tmp_path / "state.sqlite3") as ledger:
        for number in range(STUDIES):
            study = Study(f"1.2.{number}", identifier(1000 + number))
            lacking = 2 if number == 3 else 0
            notes = [
                StudyNote(
                    study,
                    identifier(number * 10 + place),
                    EndedAs.PARKED if place < lacking else EndedAs.DELIVERED,
                    1e9 + number,
                    0.0,
                )
                for place in range(5)
            ]
            parked = [
                Parked(Move(note.instance_id, place), Reason.UNDECODABLE, "no frame", 1, 1.0, 2.0)
                for place, note in enumerate(notes[:lacking])
            ]
            ledger.commit(Entry(studies=tuple(notes), parked=tuple(parked)))
        for changed in ledger.changed_studies(after=0, limit=100, quiet_since=2e9, now=2e9):
            if changed.record.study.uid in STABLE:
                assert ledger.judged(changed, StudyTold(5), stable_at=2e9, notices=())
    board = Board(tmp_path / "state.sqlite3", HealthLimits(), names=NAMES)
    server = MonitoringServer(application(board, Metrics(board)), host="127.0.0.1", port=0)
    server.start()
    with browser.page() as opened:
        opened.go(f"{server.url}/")
        opened.wait("document.querySelector('nav a')")
        opened.ask("document.querySelector('nav a').click()")
        opened.wait_text("#said", f"{PAGE_STUDIES} studies shown.")
        yield opened
        assert opened.errors == []
    server.stop()


def shown(page: Page) -> list[str]:
    cells = "[...document.querySelectorAll('#studies td[data-label=Study]')]"
    found: list[str] = page.ask(f"{cells}.map((cell) => cell.innerText.trim())")
    return found


def test_the_newest_first_and_older_ones_on_demand(page: Page, photograph: Photographer) -> None:
    newest = [f"1.2.{n}" for n in range(STUDIES - 1, -1, -1)]
    assert shown(page) == newest[:PAGE_STUDIES]
    page.ask("document.getElementById('older').click()")
    page.wait_text("#said", f"{STUDIES} studies shown.")
    assert shown(page) == newest
    assert page.ask("document.getElementById('older').hidden")
    photograph(page, "studies")


def test_whether_the_source_expects_more_of_a_study_is_shown(page: Page) -> None:
    cells = "[...document.querySelectorAll('#studies td[data-label=State]')]"
    shown_states = page.ask(f"{cells}.map((cell) => cell.innerText)")
    assert shown_states[:3] == [
        "more may come",
        "stable: the source expects no more",
        "more may come",
    ]
    page.ask("document.getElementById('wanted').value = '1.2.3'")
    page.ask("document.querySelector('#search button').click()")
    page.wait_text("#said", "1 study shown.")
    assert page.text("#studies td[data-label=State]") == (
        "lacks instances; stable: the source expects no more"
    )


def test_what_is_shown_is_kept_up_to_date(page: Page, tmp_path: Path) -> None:
    """One study is found to be stable, another one begins: without anybody's doing."""
    page.ask("document.getElementById('older').click()")
    page.wait_text("#said", f"{STUDIES} studies shown.")
    page.ask("window.kept = true; null")
    newest = Study(f"1.2.{STUDIES - 1}", identifier(1000 + STUDIES - 1))
    with EventLedger(tmp_path / "state.sqlite3") as ledger:
        for changed in ledger.changed_studies(after=0, limit=100, quiet_since=2e9, now=2e9):
            if changed.record.study == newest:
                assert ledger.judged(changed, StudyTold(5), stable_at=2e9, notices=())
        note = StudyNote(Study("1.9", identifier(9)), identifier(9), EndedAs.DELIVERED, 2e9, 0.0)
        ledger.commit(Entry(studies=(note,)))
    page.wait_text("#said", f"{STUDIES + 1} studies shown.")
    cells = "[...document.querySelectorAll('#studies td[data-label=State]')]"
    assert page.ask(f"{cells}.map((cell) => cell.innerText)")[:3] == [
        "more may come",
        "stable: the source expects no more",
        "stable: the source expects no more",
    ]
    assert shown(page) == ["1.9", *(f"1.2.{n}" for n in range(STUDIES - 1, -1, -1))]
    assert page.ask("window.kept"), "the page was not loaded anew"
    # While something in the table has the focus, it stays.
    page.ask("document.querySelector('#studies a').focus(); null")
    page.ask("window.held = document.activeElement; null")
    with EventLedger(tmp_path / "state.sqlite3") as ledger:
        note = StudyNote(Study("1.10", identifier(8)), identifier(8), EndedAs.DELIVERED, 3e9, 0.0)
        ledger.commit(Entry(studies=(note,)))
    page.ask("askAgain()")  # its time has come
    assert page.ask("document.activeElement === window.held && window.held.isConnected")
    page.ask("document.activeElement.blur(); null")
    page.wait_text("#said", f"{STUDIES + 2} studies shown.")


def test_one_that_lacks_instances_is_found_and_tells_which(
    page: Page, photograph: Photographer
) -> None:
    page.ask("document.getElementById('incomplete').click()")
    page.ask("document.querySelector('#search button').click()")
    page.wait_text("#said", "1 study shown.")
    assert page.text("#studies td[data-label=Arrived]") == "3 of 5, 2 parked or dropped"
    page.ask("document.querySelector('#studies a').click()")
    page.wait_text("#parked", "undecodable: no frame")
    assert page.ask("document.querySelectorAll('#parked tr').length") == 2
    command = f"sudo orthanc-bridge parked retry {identifier(30)}"
    assert page.text("#parked code.command") == command
    explorer = f"http://pacs/app/explorer.html#study?uuid={identifier(1003)}"
    assert page.ask("document.querySelector('#studies td[data-label=Look] a').href") == explorer
    photograph(page, "study")


def test_what_is_not_there_is_said(page: Page) -> None:
    page.ask("document.getElementById('wanted').value = '<img src=x>'")
    page.ask("document.querySelector('#search button').click()")
    page.wait_text("#said", "No such study is on record.")
    assert page.ask("document.querySelectorAll('img').length") == 0
