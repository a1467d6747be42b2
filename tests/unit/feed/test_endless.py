"""A source that claims one more each time: no question is asked of it for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.checks.compare import Check
from bridge.checks.disk_lists import SortedTexts
from bridge.errors import SideError
from bridge.feed import listing as listing_module
from bridge.feed import pages
from bridge.feed.identity import FeedIdentity, FeedMemory
from bridge.feed.listing import Listing
from bridge.model import Change, Page, ServerInfo, SideName, SideProblem
from bridge.orthanc.answers import SEQUENCE_MAX
from tests.unit.mirror.conftest import Scene

MAX = 7


def name(number: int) -> str:
    return f"{number:08x}-00000000-00000000-00000000-00000000"


class Endless:
    """The feed has one row more after each, the list one instance, and the end is far away."""

    def __init__(self) -> None:
        self.asked = 0

    def system(self) -> ServerInfo:
        return ServerInfo("1.12.7", 1, has_extended_changes=True)

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        assert limit
        assert only_new_instances in {True, False}
        self.asked += 1
        row = Change(since + 1, "NewInstance", name(since % 1000 + 5000), "20260101T000000")
        return Page((row,), done=False, last=since + 1)

    def last_change(self) -> Page:
        return Page((), done=True, last=SEQUENCE_MAX)

    def has_instance(self, instance_id: str) -> bool:
        return bool(instance_id)

    def list_instances(self, since: int, limit: int) -> list[str]:
        self.asked += 1
        return [name(number) for number in range(since, since + limit)]


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ASKED_PAGES_MAX", MAX)
    monkeypatch.setattr(listing_module, "LISTED_PAGES_MAX", MAX)


def was_sent_anew(source: Endless) -> None:
    listing = Listing(source, page_size=200, feed=source)
    listing._listed_at = {name(1): 1}
    listing._sent_anew(name(1))


def has_no_row(source: Endless) -> None:
    identity = FeedIdentity(source, FeedMemory({1: name(1)}, overlap=5))
    identity._one_has_no_row([name(1)], after=1)


def list_all(source: Endless) -> None:
    listing = Listing(source, page_size=200)
    while not listing.next_page().ended:
        pass


QUESTIONS: list[Callable[[Endless], None]] = [was_sent_anew, has_no_row, list_all]


@pytest.mark.usefixtures("_few")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_has_an_end(question: Callable[[Endless], None]) -> None:
    source = Endless()
    with pytest.raises(SideError, match=f"has more than {MAX} pages") as caught:
        question(source)
    assert (caught.value.side, caught.value.problem) == (SideName.SOURCE, SideProblem.NOT_ORTHANC)
    assert source.asked == MAX


@pytest.mark.usefixtures("_few")
def test_a_listing_is_begun_anew_after_that() -> None:
    source = Endless()
    listing = Listing(source, page_size=200, side=SideName.TARGET)
    for _ in range(3):
        for _ in range(MAX):
            assert listing.next_page().moves
        with pytest.raises(SideError, match="The target's list"):
            listing.next_page()


@pytest.mark.usefixtures("_few")
@pytest.mark.timeout(20)
def test_a_verification_reads_what_waits_up_to_an_end(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    verification = scene.verification()
    source = Endless()
    vars(verification)["_source"] = source
    with SortedTexts() as texts, pytest.raises(SideError, match="has more than"):
        verification._read_waiting(texts)
    scene.world.ledger.close()


@pytest.mark.usefixtures("_few")
@pytest.mark.timeout(20)
def test_check_reads_what_waits_up_to_an_end() -> None:
    servers: Any = SimpleNamespace(client=lambda _: Endless())
    wanted: dict[str, Any] = {
        "job": None,
        "known": None,
        "page_size": 200,
        "show": lambda *_: None,
        "start": "0",
    }
    with Check(servers, **wanted) as check, pytest.raises(SideError, match="has more"):
        check._read_waiting()
