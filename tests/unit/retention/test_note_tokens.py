"""Two bridges on copies of one state file that nothing but the tokens of their processes tells."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from bridge.commands import state
from bridge.config import load_settings
from bridge.errors import BridgeError, ConfigurationError
from bridge.ledger.records import DeliveryRecord, Entry, Kept
from bridge.ledger.store import Ledger
from bridge.model import SideName
from bridge.retention import bridge_notes, note_tokens
from bridge.retention.bridge_notes import (
    ANNOUNCE_EVERY_S,
    BRIDGE_FILE_KEY,
    COPY,
    FORGOTTEN_KEY,
    KEEP,
    MIRRORS,
    NOBODY,
    SETTLE_S,
    Announcer,
    Role,
    begin_wait,
    bridge_id,
    forget_follower,
    known_followers,
    name_of,
    notes_awaited,
    read_notes,
    remember_followers,
)
from bridge.retention.deletion_limits import STOPPED_KEY
from bridge.retention.held_deletion import AWAITED_FROM, UNVERIFIED_KEY
from bridge.retention.limits_and_risks import RetentionRules
from bridge.retention.note_tokens import (
    NOTED,
    OF_BEFORE,
    TOKENS_KEY,
    TOKENS_MAX,
    Whose,
    last_ended,
    newest_token,
    record_end,
    record_note,
    record_removal,
    record_token,
    tokens_on_record,
    whose,
)
from bridge.retention.other_bridges import OtherBridges, awaits_notes_at_target
from bridge.service import Service
from tests.fake_orthanc import FakeOrthanc
from tests.unit.retention.test_bridge_notes import Peers, servers

__all__ = ["servers"]

RULES = RetentionRules(3600.0, retention="1h")
SOURCE, TARGET = SideName.SOURCE, SideName.TARGET


class Process:
    """A process of a bridge, on a state file of its own or a copied one."""

    def __init__(
        self,
        servers: dict[SideName, Peers],
        ledger: Ledger,
        token: str,
        *,
        rules: RetentionRules = RULES,
        mirrors: bool = False,
    ) -> None:
        self.servers, self.ledger, self.token = servers, ledger, token
        self.others = OtherBridges(servers[SOURCE], servers[TARGET], rules, token=token)
        self.announcer = Announcer(
            servers,
            token=token,
            retention=KEEP if mirrors else (rules.retention or KEEP),
            mirrors=mirrors,
        )

    def start(self, now_s: float = 0.0) -> Process:
        self.announcer.begin(self.ledger)
        return self.renew(now_s)

    def renew(self, now_s: float) -> Process:
        """Do what a running bridge does every half minute."""
        for side in SideName:
            self.announcer.announce(side, now_s)
        return self

    def may_delete(self, now_s: float) -> bool:
        """Ask what a sweep asks before a deletion; False: it waits. Raises ConfigurationError."""
        begin_wait(self.ledger, now_s)
        self.others.refuse(self.ledger)
        return not notes_awaited(self.ledger, now_s)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], Ledger]]:
    """Open state files by name; one is made the first time."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Ledger(tmp_path / name))


def copy_of(opened: Callable[[str], Ledger], ledger: Ledger) -> Ledger:
    """Copy a state file, as to another volume: with the inode that its name was given to."""
    path = ledger.path.with_name("copied.sqlite3")
    for end in ("", "-wal"):
        if (real := Path(f"{ledger.path}{end}")).exists():
            shutil.copy(real, f"{path}{end}")
    with Ledger(path) as copy:
        copy.set_meta(BRIDGE_FILE_KEY, str(path.stat().st_ino))
    return opened(path.name)


@pytest.mark.parametrize(
    ("token", "side", "found"),
    [
        ("own", SOURCE, Whose.OURS),
        ("ended", SOURCE, Whose.ENDED),
        ("ended", TARGET, Whose.ENDED),
        ("killed", SOURCE, Whose.UNCERTAIN),
        ("killed", TARGET, Whose.ANOTHERS),
        ("unheard", SOURCE, Whose.ANOTHERS),
        (OF_BEFORE, SOURCE, Whose.ANOTHERS),
    ],
)
def test_whose_a_note_is(token: str, side: SideName, found: Whose) -> None:
    known = {"ended": ["target", "ended"], "killed": ["target"], "own": ["source", "target"]}
    assert whose(token, side, own="own", known=known) is found


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("first", ["original", "copy"])
def test_a_copy_with_the_same_inode_is_another_bridge(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger], ended: bool, first: str
) -> None:
    """Each took the other's note for its own: what one needed, the other one deleted."""
    original = Process(servers, opened("first.sqlite3"), "1" * 8).start()
    assert original.may_delete(0.0), "the first process of all waits for nobody"
    if ended:
        original.announcer.end(original.ledger)
    copied = copy_of(opened, original.ledger)
    both = [original, Process(servers, copied, "c" * 8)]
    if ended:
        both[0] = Process(servers, original.ledger, "2" * 8)
    assert bridge_id(copied) == bridge_id(original.ledger)
    if first == "copy":
        both.reverse()
    for process in both:
        process.start(ANNOUNCE_EVERY_S)
    for process in both:
        process.renew(2 * ANNOUNCE_EVERY_S)
    name = bridge_id(copied) + COPY
    for process in both:
        with pytest.raises(ConfigurationError, match=f"under the name of this one .{name}."):
            process.may_delete(2 * ANNOUNCE_EVERY_S + SETTLE_S)
        assert known_followers(process.ledger) == {name: "1h"}
    servers[SOURCE].held.clear()
    for process in both:
        with pytest.raises(ConfigurationError, match=name):  # remembered
            process.may_delete(9999.0)
        assert forget_follower(process.ledger, name)


def test_the_copy_of_a_file_whose_process_runs_deletes_nothing_before_it_sees_that_one(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    original = Process(servers, opened("first.sqlite3"), "1" * 8).start()
    copy = Process(servers, copy_of(opened, original.ledger), "c" * 8).start(10.0)
    assert [note.token for note in read_notes(servers[SOURCE])] == ["c" * 8]
    for now_s in (10.0, 11.0, 10.0 + SETTLE_S - 1):
        assert not copy.may_delete(now_s)
    original.renew(ANNOUNCE_EVERY_S)
    with pytest.raises(ConfigurationError, match="under the name of this one"):
        copy.may_delete(10.0 + SETTLE_S)
    # Nor did the original before: the copy's note is there from its start on.
    with pytest.raises(ConfigurationError, match="under the name of this one"):
        original.may_delete(10.0)


def test_what_the_copy_removes_late_is_waited_for_from_then_on(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    """Its wait was over while the source did not answer; the first one's note went after that."""
    original = Process(servers, opened("first.sqlite3"), "1" * 8).start()
    copy = Process(servers, copy_of(opened, original.ledger), "c" * 8)
    copy.announcer.begin(copy.ledger)
    begin_wait(copy.ledger, 0.0)
    assert not copy.may_delete(SETTLE_S), "the note is removed now"
    assert not copy.may_delete(SETTLE_S)
    assert not copy.may_delete(2 * SETTLE_S - 1)
    assert copy.may_delete(2 * SETTLE_S), "nobody has left it anew"


def test_after_a_kill_the_note_of_the_killed_one_goes_and_is_waited_for_once(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    ledger = opened("first.sqlite3")
    Process(servers, ledger, "1" * 8).start()
    second = Process(servers, ledger, "2" * 8).start()
    assert not second.may_delete(0.0)
    assert not second.may_delete(SETTLE_S - 1)
    assert second.may_delete(SETTLE_S)
    for side, role in ((SOURCE, Role.FOLLOWS), (TARGET, Role.DELIVERS)):
        assert list(servers[side].held) == [name_of(role, bridge_id(ledger), "2" * 8)]
    second.announcer.end(ledger)
    third = Process(servers, ledger, "3" * 8).start(60.0)
    assert third.may_delete(60.0), "the second one has ended"
    for side in SideName:
        assert [note.token for note in read_notes(servers[side])] == ["3" * 8]


def test_a_process_that_may_still_run_is_waited_for_though_its_note_is_not_there(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    """One before it has left a note, so the servers have forgotten nothing."""
    ledger = opened("first.sqlite3")
    first = Process(servers, ledger, "1" * 8).start()
    first.announcer.end(ledger)
    Process(servers, ledger, "2" * 8).announcer.begin(ledger)
    third = Process(servers, ledger, "3" * 8).start()
    assert not third.may_delete(0.0)
    assert not third.may_delete(SETTLE_S - 1)
    assert third.may_delete(SETTLE_S)


def test_a_process_that_ends_leaves_no_note_any_more(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    process = Process(servers, opened("first.sqlite3"), "1" * 8).start()
    process.announcer.end(process.ledger)
    for server in servers.values():
        server.held.clear()
    process.renew(ANNOUNCE_EVERY_S)
    assert not any(server.held for server in servers.values())
    assert last_ended(process.ledger, of_before=False)


def test_a_process_that_is_leaving_a_note_does_not_say_that_it_has_ended(
    servers: dict[SideName, Peers],
    opened: Callable[[str], Ledger],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridge_notes, "END_S", 0.01)
    process = Process(servers, opened("first.sqlite3"), "1" * 8).start()
    asked, go_on = threading.Event(), threading.Event()

    class Hangs(Peers):
        def peers(self) -> dict[str, str]:
            asked.set()
            assert go_on.wait(10.0)
            return super().peers()

    servers[SOURCE].__class__ = Hangs
    thread = threading.Thread(target=process.renew, args=(ANNOUNCE_EVERY_S,))
    thread.start()
    assert asked.wait(10.0)
    process.announcer.end(process.ledger)
    go_on.set()
    thread.join()
    assert not last_ended(process.ledger, of_before=False)


def test_a_note_that_is_removed_while_it_is_read_has_not_come_back(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    """Two threads look after the notes of one process."""
    ledger = opened("first.sqlite3")
    Process(servers, ledger, "1" * 8).start()
    second = Process(servers, ledger, "2" * 8)
    second.announcer.begin(ledger)

    class Meanwhile(Peers):
        looked = False

        def peers(self) -> dict[str, str]:
            held = super().peers()
            if self.looked:
                return held
            self.looked = True
            second.renew(0.0)
            assert tokens_on_record(ledger)["1" * 8] == [NOTED, SOURCE, TARGET]
            return held

    servers[SOURCE].__class__ = Meanwhile
    second.others.remember(ledger)
    assert known_followers(ledger) == {}


@pytest.mark.parametrize("ended", [True, False])
def test_a_note_that_may_not_be_removed(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger], ended: bool
) -> None:
    """One that a process has left that ended does no harm; another may be of one that runs."""
    ledger = opened("first.sqlite3")
    first = Process(servers, ledger, "1" * 8).start()
    if ended:
        first.announcer.end(ledger)
    for server in servers.values():
        server.refuses_deletions = True
    second = Process(servers, ledger, "2" * 8).start()
    assert bool(second.announcer.refused) is not ended
    if ended:
        assert second.may_delete(0.0)
        return
    with pytest.raises(ConfigurationError, match="BRIDGE_RETENTION_RISK=unregistered"):
        second.may_delete(SETTLE_S)
    rules = RetentionRules(3600.0, retention="1h", risks=frozenset({"unregistered"}))
    second.others = OtherBridges(servers[SOURCE], servers[TARGET], rules, token=second.token)
    assert not second.may_delete(SETTLE_S), "it waits all the same"


def test_the_note_of_an_older_version_goes_and_is_another_bridges_when_it_comes_back(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    ledger = opened("first.sqlite3")
    old = name_of(Role.FOLLOWS, bridge_id(ledger))
    servers[SOURCE].held[old] = f"{NOBODY}1h/"
    ledger.set_meta(bridge_notes.NOTED_KEY.format(SOURCE), "1")
    process = Process(servers, ledger, "2" * 8).start()
    assert old not in servers[SOURCE].held
    assert not process.may_delete(0.0)
    assert process.may_delete(SETTLE_S)
    servers[SOURCE].held[old] = f"{NOBODY}keep/"
    with pytest.raises(ConfigurationError, match="under the name of this one"):
        process.may_delete(SETTLE_S)
    assert known_followers(ledger) == {bridge_id(ledger) + COPY: KEEP}


def test_a_bridge_that_keeps_tells_of_its_copy_once(
    servers: dict[SideName, Peers],
    opened: Callable[[str], Ledger],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rules = RetentionRules(3600.0, retention=KEEP)
    original = Process(servers, opened("first.sqlite3"), "1" * 8, rules=rules).start()
    copied = copy_of(opened, original.ledger)
    Process(servers, copied, "c" * 8, rules=rules).start()
    with caplog.at_level(logging.WARNING):
        for number in (1, 2, 3):
            original.renew(number * ANNOUNCE_EVERY_S)
    told = [record.message for record in caplog.records if COPY in record.message]
    assert len(told) == 1
    assert known_followers(original.ledger) == {bridge_id(copied) + COPY: KEEP}


def test_a_copy_is_remembered_while_nothing_is_due(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    original = Process(servers, opened("first.sqlite3"), "1" * 8).start()
    servers[SOURCE].held[name_of(Role.FOLLOWS, bridge_id(original.ledger), "c" * 8)] = NOBODY + "1h"
    original.others.remember(original.ledger)
    assert known_followers(original.ledger) == {bridge_id(original.ledger) + COPY: "1h"}


def test_a_dry_run_takes_the_notes_of_the_bridge_beside_it_for_ours(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    ledger = opened("first.sqlite3")
    Process(servers, ledger, "1" * 8).start()
    Process(servers, ledger, "2" * 8).start()
    asks = OtherBridges(servers[SOURCE], servers[TARGET], RULES, token=newest_token(ledger))
    before = {side: dict(server.held) for side, server in servers.items()}
    asks.refuse(ledger, noted=True)
    own = bridge_id(ledger)
    servers[SOURCE].held[name_of(Role.FOLLOWS, own, "c" * 8)] = NOBODY + "1h"
    with pytest.raises(ConfigurationError, match=f"{own}{COPY}"):
        asks.refuse(ledger, noted=True)
    del servers[SOURCE].held[name_of(Role.FOLLOWS, own, "c" * 8)]
    assert {side: server.held for side, server in servers.items()} == before
    assert known_followers(ledger) == {}


def test_our_own_note_at_the_target_is_told_from_a_copys(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    """The addresses were exchanged, or a copy goes on from the target."""
    process = Process(servers, opened("first.sqlite3"), "1" * 8).start()
    own, held = bridge_id(process.ledger), servers[TARGET].held
    held[name_of(Role.FOLLOWS, own, "1" * 8)] = NOBODY + "1h"
    with pytest.raises(ConfigurationError, match="says that this bridge follows the target"):
        process.may_delete(0.0)
    del held[name_of(Role.FOLLOWS, own, "1" * 8)]
    held[name_of(Role.FOLLOWS, own, "c" * 8)] = NOBODY + "1h"
    with pytest.raises(ConfigurationError, match=f"Bridge {own}{COPY} deletes at the target"):
        process.may_delete(0.0)


def test_a_copy_with_retention_stops_one_that_mirrors_deletions(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    """What that one has deleted at the source is at the target alone."""
    original = Process(servers, opened("first.sqlite3"), "1" * 8).start()
    copied = copy_of(opened, original.ledger)
    mirror = Process(servers, copied, "c" * 8, mirrors=True)
    mirror.announcer.begin(copied)

    def waits(now: float) -> bool:
        none: frozenset[str] = frozenset()
        return awaits_notes_at_target(
            copied, servers[TARGET], now=now, accepted=none, token=mirror.token
        )

    assert waits(0.0)
    assert [note.retention for note in read_notes(servers[TARGET])] == [MIRRORS]
    assert waits(SETTLE_S - 1)
    original.renew(ANNOUNCE_EVERY_S)
    with pytest.raises(ConfigurationError, match=f"{bridge_id(copied)}{COPY} delivers to this"):
        waits(SETTLE_S)


def test_so_many_processes_are_on_record(opened: Callable[[str], Ledger]) -> None:
    ledger = opened("first.sqlite3")
    for number in range(TOKENS_MAX + 1):
        record_token(ledger, f"{number:08x}", of_before=True)
        record_note(ledger, f"{number:08x}")
    assert list(tokens_on_record(ledger)) == [f"{n:08x}" for n in range(1, TOKENS_MAX + 1)]
    assert newest_token(ledger) == f"{TOKENS_MAX:08x}"
    record_end(ledger, "unheard")
    record_removal(ledger, newest_token(ledger), SOURCE)
    record_removal(ledger, newest_token(ledger), SOURCE)
    assert tokens_on_record(ledger)[newest_token(ledger)] == [NOTED, SOURCE]
    assert "unheard" not in tokens_on_record(ledger)


def test_a_process_is_on_record_for_good_before_its_note_is_there(
    servers: dict[SideName, Peers],
    opened: Callable[[str], Ledger],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A power cut made its note another bridge's: retention refused until somebody forgot it."""
    done: list[tuple[str, bool]] = []
    set_meta = Ledger.set_meta

    def noted(ledger: Ledger, key: str, value: str | None, *, durably: bool = False) -> None:
        done.append((key, durably))
        set_meta(ledger, key, value, durably=durably)

    class Watched(Peers):
        def set_peer(self, name: str, url: str) -> None:
            done.append(("note", False))
            super().set_peer(name, url)

    monkeypatch.setattr(Ledger, "set_meta", noted)
    servers[SOURCE].__class__ = Watched
    Process(servers, opened("first.sqlite3"), "1" * 8).start()
    assert done.index((TOKENS_KEY, True)) < done.index(("note", False))


@pytest.mark.parametrize("reached", [True, False])
def test_a_service_that_ends_says_so(
    fake_orthanc: Callable[..., FakeOrthanc],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reached: bool,
) -> None:
    """Or every ``run --once`` would wait for half a minute, also after a server was down."""
    source, target = fake_orthanc(), fake_orthanc()
    monkeypatch.setenv("BRIDGE_SOURCE_URL", source.url)
    monkeypatch.setenv("BRIDGE_TARGET_URL", target.url if reached else "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    with Ledger(tmp_path / "l.sqlite3") as ledger:
        with Service(load_settings(), (), bounded=True) as service:
            token = service._token
            try:
                service.preflight(follows=ledger)
            except BridgeError:
                assert not reached
            assert not last_ended(ledger, of_before=True)
            assert name_of(Role.FOLLOWS, bridge_id(ledger), token) in source.store.peers
        assert last_ended(ledger, of_before=True)
        assert newest_token(ledger) == token


def test_a_restored_backup_knows_what_retention_has_noted_since(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    """Its own last note was another bridge's, and the bytes of the last deletion were dropped."""
    before = opened("first.sqlite3")
    own = bridge_id(before)
    restored = copy_of(opened, before)
    Process(servers, before, "1" * 8).start().announcer.end(before)
    Process(servers, before, "2" * 8).start().announcer.end(before)
    remember_followers(before, {"other": KEEP})
    remember_followers(restored, {"former": KEEP})
    kept = Kept("i", "a", "b", 1.0)
    before.set_meta(UNVERIFIED_KEY, json.dumps(asdict(kept) | {AWAITED_FROM: 5.0}))
    before.set_meta(STOPPED_KEY, "why")
    before.set_meta(FORGOTTEN_KEY, "12.0")
    state._stay_the_same_bridge(before, restored)
    assert bridge_id(restored) == own
    assert known_followers(restored) == {"other": KEEP, "former": KEEP}
    assert json.loads(restored.meta(UNVERIFIED_KEY) or "") == asdict(kept)
    assert restored.meta(STOPPED_KEY) == "why"
    assert notes_awaited(restored, 1e9), "anew: its age clock is another one"
    begin_wait(restored, 1e9)
    assert not notes_awaited(restored, 1e9 + SETTLE_S)
    assert forget_follower(restored, "other")
    assert forget_follower(restored, "former")
    assert Process(servers, restored, "3" * 8).start().may_delete(1e9 + SETTLE_S)


def test_many_starts_without_a_server_do_not_make_our_note_another_bridges(
    servers: dict[SideName, Peers],
    opened: Callable[[str], Ledger],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`run --once` every five minutes, and a source that was out of reach for two hours."""
    monkeypatch.setattr(note_tokens, "TOKENS_MAX", 20)
    ledger = opened("first.sqlite3")
    Process(servers, ledger, "0" * 8).start().announcer.end(ledger)
    for number in range(1, 24):
        unheard = Process(servers, ledger, f"{number:08x}")
        unheard.announcer.begin(ledger)
        unheard.announcer.end(ledger)
    last = Process(servers, ledger, "f" * 8).start()
    assert last.may_delete(SETTLE_S)


def test_a_login_that_may_not_remove_notes_leaves_many(
    servers: dict[SideName, Peers], opened: Callable[[str], Ledger]
) -> None:
    """A year of updates and restarts made the oldest note that of another bridge after 20."""
    ledger = opened("first.sqlite3")
    for server in servers.values():
        server.refuses_deletions = True
    for number in range(60):
        process = Process(servers, ledger, f"{number:08x}").start()
        process.announcer.end(ledger)
    assert Process(servers, ledger, "f" * 8).start().may_delete(SETTLE_S)


@pytest.mark.parametrize("readable", [True, False])
def test_what_a_backup_knows_as_delivered_is_no_longer_mirrored(
    opened: Callable[[str], Ledger], readable: bool
) -> None:
    """Retention has deleted it since at the source: the target's copy, the last one, went too."""
    before = opened("first.sqlite3")
    before.commit(Entry(delivered=(DeliveryRecord("i", "a", "b", 1.0),)))
    restored = copy_of(opened, before)
    before.release_delivery("i")
    state._stay_the_same_bridge(before if readable else None, restored)
    record = restored.delivery_of("i")
    assert record is not None
    assert record.released
