"""What a server holds of many instances: all ways tell the same, and each gives way to the next."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence

import pytest

from bridge.checks.disk_lists import KnownTexts
from bridge.errors import TargetError
from bridge.feed import held
from bridge.feed.held import ASKED_TOGETHER, LIST_SHARE, TROUBLES_MAX, HeldInstances
from bridge.feed.listing import Lacking
from bridge.feed.sources import GivenMoves
from bridge.model import Move, SideProblem

ALL = [f"i{number:04d}" for number in range(1000)]
THERE = ALL[::2]


class Server:
    """A target that holds some; ``fails`` may raise at each call of a name.

    ``misled`` tells whether the source answers in its place: it holds all, and is found out.
    """

    def __init__(self, *holds: str, bulk: bool = True) -> None:
        self.holds = list(holds)
        self.bulk = bulk
        self.calls: list[str] = []
        self.looks: list[str] = []
        self.fails: Callable[[str], None] = lambda _: None
        self.misled: Callable[[str], bool] = lambda _: False
        self._answered_by_source = False

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.fails(name)
        self._answered_by_source = self.misled(name)

    def _held(self) -> list[str]:
        return ALL if self._answered_by_source else self.holds

    def list_instances(self, since: int, limit: int) -> list[str]:
        self._called("list")
        return self._held()[since : since + limit]

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        self._called("bulk")
        return frozenset(instance_ids) & set(self._held()) if self.bulk else None

    def has_instance(self, instance_id: str) -> bool:
        self._called("one")
        return instance_id in self._held()

    def look(self, instance_id: str) -> None:
        self.looks.append(instance_id)
        assert instance_id in self._held(), "what is looked at was named"
        if self._answered_by_source:
            raise TargetError(SideProblem.SERVER_ERROR, "it leads to the source")


class NoRoom:
    """Names for which there is no room: at once, or when they are asked for."""

    def __init__(self, *, takes: bool) -> None:
        self._takes = takes

    def add(self, texts: Iterable[str]) -> None:  # noqa: ARG002
        if not self._takes:
            raise OSError(errno.ENOSPC, "full")

    def among(self, texts: Sequence[str]) -> set[str]:
        if self._takes:
            raise OSError(errno.EIO, f"{len(texts)} cannot be read")
        return set()


def known(server: Server, *, asked_for: int = len(ALL)) -> HeldInstances:
    return HeldInstances(server, KnownTexts(), asked_for=lambda: asked_for, look=server.look)


def refused(*names: str, problem: SideProblem) -> Callable[[str], None]:
    def fails(name: str) -> None:
        if name in names:
            raise TargetError(problem, "not here")

    return fails


def answer(instances: HeldInstances, asked: Sequence[str] = ALL) -> set[str]:
    return set(instances.among(asked))


@pytest.mark.parametrize("page", [1, 7, 500, 501, 10_000])
def test_a_list_is_read_once_in_pages_of_any_size(
    page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "LIST_PAGE", page)
    server = Server(*THERE)
    instances = known(server)
    assert answer(instances) == set(THERE)
    read = len(server.calls)
    assert answer(instances, ALL[:100]) == set(ALL[:100:2])
    assert answer(instances, ALL[900:]) == set(ALL[900::2])
    assert server.calls == ["list"] * read, "what a whole list lacks is not asked for"


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "one by one"])
@pytest.mark.parametrize("problem", sorted(held.NO_SUCH_WAY))
def test_where_lists_are_forbidden_it_is_asked_with_the_same_result(
    problem: SideProblem, *, bulk: bool
) -> None:
    server = Server(*THERE, bulk=bulk)
    server.fails = refused("list", problem=problem)
    instances = known(server)
    assert answer(instances) == set(THERE)
    assert answer(instances, ALL[:3]) == set(ALL[:3:2])
    assert server.calls.count("list") == 1, "it is not asked again"
    assert server.calls.count("one") == (0 if bulk else len(ALL) + 3)
    assert server.calls.count("bulk") == (len(ALL) // ASKED_TOGETHER + 1 if bulk else 1)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_list_that_is_much_longer_than_what_is_asked_for_is_not_read(
    more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "LIST_PAGE", 10)
    server = Server(*ALL[: 10 * LIST_SHARE + more])
    instances = known(server, asked_for=10)
    assert answer(instances, ALL[:10]) == set(ALL[:10])
    assert answer(instances, ALL[-3:]) == set()
    assert ("bulk" in server.calls) == (more > 0)
    assert server.calls.count("list") <= LIST_SHARE + 1


def test_what_the_beginning_of_a_long_list_has_named_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held, "LIST_PAGE", 10)
    server = Server(*ALL)
    instances = known(server, asked_for=2)
    assert answer(instances, ALL[:10]) == set(ALL[:10])
    assert "bulk" not in server.calls
    assert answer(instances, ALL[990:]) == set(ALL[990:])
    assert server.calls.count("bulk") == 1


@pytest.mark.parametrize("problem", [SideProblem.TIMED_OUT, SideProblem.SERVER_ERROR])
@pytest.mark.parametrize("way", ["count", "list", "bulk"])
def test_a_way_that_fails_again_and_again_is_given_up(way: str, problem: SideProblem) -> None:
    server = Server(*THERE)
    server.fails = refused(way, "list" if way == "bulk" else way, problem=problem)

    def count() -> int:
        server._called("count")
        return len(ALL)

    instances = HeldInstances(server, KnownTexts(), asked_for=count, look=server.look)
    failures = 0
    while True:
        try:
            told = answer(instances)
        except TargetError:
            failures += 1
        else:
            break
    assert told == set(THERE)
    assert failures == (TROUBLES_MAX - 1) * (2 if way == "bulk" else 1)
    assert answer(instances) == set(THERE), "without another failure"


@pytest.mark.parametrize("way", ["list", "bulk", "one"])
def test_a_server_that_is_away_is_waited_for(way: str) -> None:
    server = Server(*THERE, bulk=way == "bulk")
    away = refused(way, problem=SideProblem.UNREACHABLE)
    forbidden = refused("list", problem=SideProblem.FORBIDDEN)

    def fails(name: str) -> None:
        away(name)
        if way != "list":
            forbidden(name)

    server.fails = fails
    instances = known(server)
    for _ in range(10):
        with pytest.raises(TargetError, match="not here"):
            answer(instances)
    server.fails = lambda name: None if way == "list" else forbidden(name)
    assert answer(instances) == set(THERE)
    assert server.calls[-1] == way, "by the same way as before"


@pytest.mark.parametrize("takes", [True, False])
def test_where_there_is_no_room_for_names_it_is_asked(*, takes: bool) -> None:
    server = Server(*THERE)
    instances = HeldInstances(
        server, NoRoom(takes=takes), asked_for=lambda: len(ALL), look=server.look
    )
    assert answer(instances) == set(THERE)
    assert "bulk" in server.calls


@pytest.mark.parametrize("every", [2, 7, 50])
@pytest.mark.parametrize("ways", [("list", "bulk", "one"), ("bulk", "one"), ("one",)], ids=len)
def test_a_snapshot_goes_on_although_its_target_fails_now_and_then(
    ways: tuple[str, ...], every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun anew each time, it would never be asked for all of it."""
    monkeypatch.setattr(held, "LIST_PAGE", 10)
    server = Server(*ALL[3:], bulk="bulk" in ways)

    def fails(name: str) -> None:
        if name not in ways and name != "bulk":
            raise TargetError(SideProblem.FORBIDDEN, "no list")
        if len(server.calls) % every == 0:
            raise TargetError(SideProblem.UNREACHABLE, "down")

    server.fails = fails
    lacking = Lacking(GivenMoves(map(Move, ALL), page_size=1000), known(server))
    failures, found = 0, []
    while True:
        try:
            page = lacking.next_page()
        except TargetError:
            failures += 1
            assert failures < 1100, "the page is begun anew each time"
            continue
        found += [move.instance_id for move in page.moves]
        if page.ended:
            break
    assert found == ALL[:3]
    assert len(server.calls) <= 2100


@pytest.mark.parametrize("way", ["list", "bulk", "one"])
@pytest.mark.parametrize("at", [1, 2, 3], ids=["first", "middle", "last"])
def test_an_answer_that_came_from_the_source_is_not_believed(
    way: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted, seen to fail: no look after a page, after a bulk answer, after a single one."""
    monkeypatch.setattr(held, "LIST_PAGE", 20)
    monkeypatch.setattr(held, "ASKED_TOGETHER", 20)
    asked = ALL[:60]
    server = Server(*asked[::2], bulk=way != "one")
    if way != "list":
        server.fails = refused("list", problem=SideProblem.FORBIDDEN)
    met = 0

    def misled(name: str) -> bool:
        nonlocal met
        met += name == way
        return name == way and met == at

    server.misled = misled
    instances = known(server)
    with pytest.raises(TargetError, match="leads to the source"):
        answer(instances, asked)
    assert answer(instances, asked) == set(asked[::2]), "the same question is gone on with"
    assert met > at
