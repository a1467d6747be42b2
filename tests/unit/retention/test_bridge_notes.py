"""Notes of bridges at the servers: left, renewed, and waited for."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bridge.config import load_settings
from bridge.errors import ConfigurationError, SideError, side_error
from bridge.ledger.store import Ledger
from bridge.model import SideName, SideProblem
from bridge.retention import bridge_notes as notes
from bridge.retention.bridge_notes import (
    ANNOUNCE_EVERY_S,
    BRIDGE_ID_KEY,
    KEEP,
    MIRRORS,
    NOBODY,
    SETTLE_S,
    Announcer,
    Note,
    Role,
    begin_wait,
    bridge_id,
    known_followers,
    name_of,
    notes_awaited,
    read_notes,
    remember_followers,
)
from bridge.retention.other_bridges import awaits_notes_at_target
from bridge.service import Service
from tests.bridge_process import wait_until
from tests.fake_orthanc import FakeOrthanc

OURS = "0" * 8
"""The token of a process."""


class Peers:
    """A server's peers."""

    def __init__(self, side: SideName) -> None:
        self.side = side
        self.held: dict[str, str] = {}
        self.writes = 0
        self.problem: SideProblem | None = None
        self.refuses_writes = False
        self.refuses_deletions = False

    def peers(self) -> dict[str, str]:
        self._fail()
        return dict(self.held)

    def set_peer(self, name: str, url: str) -> None:
        self._fail()
        if self.refuses_writes:
            raise side_error(self.side, SideProblem.FORBIDDEN, "no")
        self.writes += 1
        self.held[name] = url if url.endswith("/") else f"{url}/"  # as Orthanc does

    def delete_peer(self, name: str) -> None:
        self._fail()
        if self.refuses_deletions:
            raise side_error(self.side, SideProblem.FORBIDDEN, "no")
        self.held.pop(name, None)

    def _fail(self) -> None:
        if self.problem is not None:
            raise side_error(self.side, self.problem, "no")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "l.sqlite3") as made:
        yield made


@pytest.fixture
def servers() -> dict[SideName, Peers]:
    return {side: Peers(side) for side in SideName}


def announced(
    servers: dict[SideName, Peers],
    ledger: Ledger,
    retention: str,
    now_s: float = 0.0,
    *,
    mirrors: bool = False,
    token: str = OURS,
) -> Announcer:
    """Have a process of the bridge leave its notes; one that is not told to end runs on."""
    announcer = Announcer(servers, token=token, retention=retention, mirrors=mirrors)
    announcer.begin(ledger)
    for side in SideName:
        announcer.announce(side, now_s)
    return announcer


def test_a_bridge_that_keeps_notes_itself_at_its_source_only(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    announced(servers, ledger, "keep")
    assert read_notes(servers[SideName.SOURCE]) == (
        Note(Role.FOLLOWS, bridge_id(ledger), "keep", OURS),
    )
    assert servers[SideName.TARGET].held == {}


def test_a_bridge_that_deletes_notes_itself_at_both(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    announced(servers, ledger, "24h")
    assert read_notes(servers[SideName.TARGET]) == (
        Note(Role.DELIVERS, bridge_id(ledger), "24h", OURS),
    )


def test_a_bridge_that_mirrors_deletions_notes_itself_at_both(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    announced(servers, ledger, KEEP, mirrors=True)
    own = bridge_id(ledger)
    assert read_notes(servers[SideName.SOURCE]) == (Note(Role.FOLLOWS, own, KEEP, OURS),)
    assert read_notes(servers[SideName.TARGET]) == (Note(Role.DELIVERS, own, MIRRORS, OURS),)


def mirrors(servers: dict[SideName, Peers], ledger: Ledger, now: float, *risks: str) -> bool:
    """Ask as one that mirrors deletions does before each of them; True: it has to wait."""
    target, accepted = servers[SideName.TARGET], frozenset(risks)
    return awaits_notes_at_target(ledger, target, now=now, accepted=accepted, token=OURS)


@pytest.mark.parametrize("said", [NOBODY + "24h", NOBODY + "0s", "http://somebody/"])
def test_no_deletion_is_mirrored_while_a_bridge_with_retention_delivers_there(
    servers: dict[SideName, Peers], ledger: Ledger, said: str
) -> None:
    """What that one had deleted at its source was at the target alone, and was deleted there."""
    held = servers[SideName.TARGET].held
    held[name_of(Role.DELIVERS, "one-more")] = NOBODY + MIRRORS
    held[name_of(Role.FOLLOWS, "next")] = NOBODY + "24h"
    assert not mirrors(servers, ledger, 0.0)
    held[name_of(Role.DELIVERS, "buffer")] = said
    with pytest.raises(ConfigurationError, match="Bridge buffer delivers to this target"):
        mirrors(servers, ledger, 0.0)
    assert not mirrors(servers, ledger, 0.0, "target-emptied")
    del held[name_of(Role.DELIVERS, "buffer")]
    assert not mirrors(servers, ledger, 0.0)


def test_no_deletion_is_mirrored_before_others_could_renew_their_notes(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    assert not mirrors(servers, ledger, 0.0), "it was never there before"
    servers[SideName.TARGET].held.clear()
    assert mirrors(servers, ledger, 10.0)
    assert mirrors(servers, ledger, 10.0 + SETTLE_S - 1)
    assert not mirrors(servers, ledger, 10.0 + SETTLE_S)


def test_no_deletion_is_mirrored_where_notes_may_not_be_read_or_left(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    target = servers[SideName.TARGET]
    target.refuses_writes = True
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="BRIDGE_RETENTION_RISK=unregistered"):
            mirrors(servers, ledger, 0.0)
        assert not mirrors(servers, ledger, 0.0, "unregistered")
        target.problem = SideProblem.FORBIDDEN
    target.problem = SideProblem.UNREACHABLE
    with pytest.raises(SideError):
        mirrors(servers, ledger, 0.0, "unregistered")


def test_nothing_is_noted_before_it_follows(servers: dict[SideName, Peers]) -> None:
    Announcer(servers, token=OURS, retention="24h").announce(SideName.SOURCE, 0.0)
    assert servers[SideName.SOURCE].held == {}


def test_a_note_is_looked_for_every_half_minute_and_after_trouble(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    announcer, source = announced(servers, ledger, "keep"), servers[SideName.SOURCE]
    source.held.clear()
    announcer.announce(SideName.SOURCE, ANNOUNCE_EVERY_S - 1)
    assert not source.held
    announcer.announce(SideName.SOURCE, ANNOUNCE_EVERY_S)
    assert (len(source.held), source.writes) == (1, 2)
    source.held.clear()
    announcer.void(SideName.SOURCE)
    announcer.announce(SideName.SOURCE, ANNOUNCE_EVERY_S)
    assert (len(source.held), source.writes) == (1, 3)
    announcer.announce(SideName.SOURCE, 9 * ANNOUNCE_EVERY_S)
    assert source.writes == 3, "what is there is not written again"


def test_a_server_in_trouble_is_not_asked_for_the_sake_of_the_other(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    announcer, source = announced(servers, ledger, "keep"), servers[SideName.SOURCE]
    source.held.clear()
    announcer.renew(SideName.SOURCE, ANNOUNCE_EVERY_S)
    assert source.writes == 2
    announcer.void(SideName.SOURCE)
    source.problem = SideProblem.UNREACHABLE
    announcer.renew(SideName.SOURCE, 9 * ANNOUNCE_EVERY_S)
    source.problem = None
    announcer.announce(SideName.SOURCE, 9 * ANNOUNCE_EVERY_S)
    source.held.clear()
    announcer.renew(SideName.SOURCE, 99 * ANNOUNCE_EVERY_S)
    assert source.writes == 3


def test_a_note_says_what_the_bridge_does_now(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    announced(servers, ledger, "keep")
    announced(servers, ledger, "24h")
    (note,) = read_notes(servers[SideName.SOURCE])
    assert note.retention == "24h"


def awaited(ledger: Ledger, now: float) -> bool:
    """Begin a sweep, and ask whether it has to wait."""
    begin_wait(ledger, now)
    return notes_awaited(ledger, now)


@pytest.mark.parametrize("restarted", [True, False])
def test_a_source_that_was_restarted_is_waited_for_also_by_a_new_process(
    servers: dict[SideName, Peers], ledger: Ledger, restarted: bool
) -> None:
    announced(servers, ledger, "24h")
    assert not awaited(ledger, 0.0), "the first time nothing was forgotten"
    if restarted:
        servers[SideName.SOURCE].held.clear()
    announced(servers, ledger, "24h")
    assert awaited(ledger, 100.0) is restarted
    assert not awaited(ledger, 100.0 + SETTLE_S)


@pytest.mark.parametrize("swept", [True, False])
def test_a_process_that_is_killed_while_it_waits_is_followed_by_one_that_does(
    servers: dict[SideName, Peers], ledger: Ledger, swept: bool
) -> None:
    """The note is there again: the next process cannot see that it was not."""
    announced(servers, ledger, "24h")
    servers[SideName.SOURCE].held.clear()
    announced(servers, ledger, "24h")
    if swept:
        assert awaited(ledger, 100.0)
    announced(servers, ledger, "24h")
    assert awaited(ledger, 100.0 + SETTLE_S - 1)
    assert awaited(ledger, 100.0 + SETTLE_S) is not swept, "from when it is known to wait"


def test_a_second_restart_is_waited_for_anew(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    for now in (0.0, 100.0, 120.0):
        servers[SideName.TARGET].held.clear()
        announced(servers, ledger, "24h")
        awaited(ledger, now)
    assert awaited(ledger, 100.0 + SETTLE_S)
    assert not awaited(ledger, 120.0 + SETTLE_S)


@pytest.mark.parametrize("down", SideName)
def test_a_first_run_that_finds_a_server_down_waits_for_nothing(
    servers: dict[SideName, Peers], ledger: Ledger, down: SideName
) -> None:
    """That there is a note was written before there was one: it was missed the next time."""
    servers[down].problem = SideProblem.UNREACHABLE
    with pytest.raises(SideError):
        announced(servers, ledger, "24h")
    servers[down].problem = None
    announced(servers, ledger, "24h")
    assert not awaited(ledger, 0.0)


@pytest.mark.parametrize("before", [True, False])
def test_notes_that_may_not_be_left_are_not_waited_for_again_and_again(
    servers: dict[SideName, Peers], ledger: Ledger, before: bool
) -> None:
    """``before``: a right that was taken away: what was forgotten then is waited for once."""
    source = servers[SideName.SOURCE]
    if before:
        announced(servers, ledger, "24h")
        source.held.clear()
    source.refuses_writes = True
    announced(servers, ledger, "24h")
    assert awaited(ledger, 0.0) is before
    announced(servers, ledger, "24h")
    assert not awaited(ledger, SETTLE_S)


def test_a_bridge_that_begins_again_awaits_nothing_at_a_server_without_its_note_yet(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    """The target's note was taken for forgotten: a first ``run --once`` deleted nothing."""
    announcer = Announcer(servers, token=OURS, retention="24h")
    for side in SideName:
        announcer.begin(ledger)
        announcer.announce(side, 0.0)
    announcer.begin(ledger)
    assert not awaited(ledger, 0.0)
    servers[SideName.TARGET].held.clear()
    announcer.announce(SideName.TARGET, ANNOUNCE_EVERY_S)
    assert awaited(ledger, ANNOUNCE_EVERY_S)


@pytest.mark.parametrize("retention", [KEEP, "24h"])
def test_without_a_record_only_who_deletes_nothing_leaves_a_note(
    servers: dict[SideName, Peers], tmp_path: Path, retention: str
) -> None:
    path = tmp_path / "l.sqlite3"
    announcer = Announcer(servers, token=OURS, retention=retention)
    with Ledger(path) as ledger:
        announcer.begin(ledger)
    path.rename(tmp_path / "away.sqlite3")
    announcer.announce(SideName.SOURCE, 0.0)
    assert bool(servers[SideName.SOURCE].held) is (retention == KEEP)
    (tmp_path / "away.sqlite3").rename(path)
    announcer.announce(SideName.SOURCE, ANNOUNCE_EVERY_S)
    assert servers[SideName.SOURCE].held


@pytest.mark.parametrize("problem", SideProblem)
def test_an_answer_stops_nothing_and_an_outage_is_told(
    servers: dict[SideName, Peers], ledger: Ledger, problem: SideProblem
) -> None:
    """A proxy may answer a PUT with anything: asking for a login, leading elsewhere, a page."""
    source = servers[SideName.SOURCE]
    source.problem = problem
    if problem in {SideProblem.UNREACHABLE, SideProblem.TIMED_OUT, SideProblem.TLS}:
        with pytest.raises(SideError):
            announced(servers, ledger, "keep")
        return
    announcer = announced(servers, ledger, "keep")
    assert announcer.refused == {SideName.SOURCE: "no"}
    source.problem = None
    announcer.announce(SideName.SOURCE, 1.0)
    passing = {SideProblem.BODY_LIMIT, SideProblem.STORAGE_FULL, SideProblem.SERVER_ERROR}
    assert bool(source.held) is (problem in passing), "what may pass is tried with the next probe"
    announcer.announce(SideName.SOURCE, ANNOUNCE_EVERY_S + 1.0)
    assert source.held
    assert announcer.refused == {}


def test_other_peers_are_nobodys_notes(servers: dict[SideName, Peers]) -> None:
    source = servers[SideName.SOURCE]
    source.held = {"orthanc-bridge-probe-1": NOBODY, "archive": "http://10.0.0.1:8042"}
    source.held[name_of(Role.FOLLOWS, "x")] = "http://elsewhere/"
    assert read_notes(source) == (Note(Role.FOLLOWS, "x", "unknown"),)


def test_followers_are_remembered_within_bounds(ledger: Ledger) -> None:
    remember_followers(ledger, {f"{n:03}": "keep" for n in range(300)})
    assert 0 < len(known_followers(ledger)) <= 100


def test_a_copy_of_a_state_file_is_another_bridge(
    servers: dict[SideName, Peers], tmp_path: Path
) -> None:
    """It may deliver elsewhere: both were one to the source, and what one needed was deleted."""
    original, copied = tmp_path / "original.sqlite3", tmp_path / "copied.sqlite3"
    with Ledger(original) as ledger:
        first = bridge_id(ledger)
        assert bridge_id(ledger) == first
        assert known_followers(ledger) == {}
    shutil.copy(original, copied)
    with Ledger(original) as ledger, Ledger(copied) as copy:
        second = bridge_id(copy)
        assert second != first
        assert bridge_id(copy) == second
        assert known_followers(copy) == {first: "unknown"}
        announced(servers, copy, "keep")
        announced(servers, ledger, "24h")
        assert bridge_id(ledger) == first
    found = {note.bridge_id for note in read_notes(servers[SideName.SOURCE])}
    assert found == {first, second}


def test_a_name_of_before_files_were_noted_stays(ledger: Ledger) -> None:
    ledger.set_meta(BRIDGE_ID_KEY, "before")
    assert [bridge_id(ledger) for _ in range(2)] == ["before", "before"]
    assert known_followers(ledger) == {}


def test_a_restart_of_either_server_is_waited_for(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    for start, side in enumerate(SideName):
        announcer, now = announced(servers, ledger, "24h"), 1000.0 * start
        servers[side].held.clear()
        announcer.announce(side, ANNOUNCE_EVERY_S)
        assert awaited(ledger, now)
        assert not awaited(ledger, now + SETTLE_S)


def test_the_wait_begins_before_the_note_is_there_again(
    servers: dict[SideName, Peers], ledger: Ledger
) -> None:
    """Whoever sees the note may delete, unless it is waited already."""
    announcer, source = announced(servers, ledger, "24h"), servers[SideName.SOURCE]
    waits = []

    class Watched(Peers):
        def set_peer(self, name: str, url: str) -> None:
            waits.append(awaited(ledger, 0.0))
            super().set_peer(name, url)

    source.held.clear()
    source.__class__ = Watched
    announcer.announce(SideName.SOURCE, ANNOUNCE_EVERY_S)
    assert waits == [True]


def test_the_note_is_kept_up_while_the_target_is_down(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has a target that is down needs the note most, and the source is not probed then."""
    monkeypatch.setattr(notes, "ANNOUNCE_EVERY_S", 0.0)
    source = fake_orthanc()
    monkeypatch.setenv("BRIDGE_SOURCE_URL", source.url)
    monkeypatch.setenv("BRIDGE_TARGET_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BRIDGE_STATE_PATH", str(tmp_path / "l.sqlite3"))
    monkeypatch.chdir(tmp_path)
    with Ledger(tmp_path / "l.sqlite3") as ledger, Service(load_settings(), (), bounded=True) as s:
        own = name_of(Role.FOLLOWS, bridge_id(ledger), s._token)
        with pytest.raises(SideError):
            s.preflight(follows=ledger)
        assert own in source.store.peers
        source.store.peers.clear()
        with pytest.raises(SideError):
            s._pipelines.probes.probe(SideName.TARGET)
    assert own in source.store.peers


def test_so_many_other_bridges_are_remembered(tmp_path: Path) -> None:
    names = [f"bridge-{number:03}" for number in range(notes.FOLLOWERS_MAX + 1)]
    with Ledger(tmp_path / "state") as ledger:
        for name in names[:-1]:
            remember_followers(ledger, {name: KEEP})
        assert sorted(known_followers(ledger)) == names[:-1]
        found = remember_followers(ledger, {names[-1]: KEEP})
        assert sorted(known_followers(ledger)) == sorted(found) == names[:-1]


def test_notes_are_kept_up_whatever_holds_the_probes_up(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that hangs, or a long poll interval: a bridge on a copy deleted what we needed."""
    monkeypatch.setattr(notes, "ANNOUNCE_EVERY_S", 0.0)
    monkeypatch.setattr(notes, "LOOK_EVERY_S", 0.01)
    source, target = fake_orthanc(), fake_orthanc()
    monkeypatch.setenv("BRIDGE_SOURCE_URL", source.url)
    monkeypatch.setenv("BRIDGE_TARGET_URL", target.url)
    monkeypatch.setenv("BRIDGE_SOURCE_RETENTION", "1h")
    monkeypatch.setenv("BRIDGE_STATE_PATH", str(tmp_path / "l.sqlite3"))
    monkeypatch.chdir(tmp_path)
    with Ledger(tmp_path / "l.sqlite3") as ledger:
        with Service(load_settings(), (), bounded=True) as s:
            s.preflight(follows=ledger)
            own = bridge_id(ledger)
            for server, role in ((source, Role.FOLLOWS), (target, Role.DELIVERS)):
                held, name = server.store.peers, name_of(role, own, s._token)
                held.clear()
                wait_until(partial(held.__contains__, name), "it is back")
        # They end by themselves: at their next look, or when a server has answered.
        wait_until(no_notes_are_kept_up, "the threads end")


def no_notes_are_kept_up() -> bool:
    """Whether no thread keeps notes up."""
    threads = {thread.name for thread in threading.enumerate()}
    return not threads & {"notes-source", "notes-target"}
