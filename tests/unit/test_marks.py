"""What is set at a server to tell two apart is removed, whatever happens meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError, SideError, StateError
from bridge.ledger.store import Ledger
from bridge.marks import (
    MARK_S_MAX,
    MARK_TOLD_S,
    MARKS_LEFT_MAX,
    PROBE_PEER,
    PROBE_VALUE,
    Mark,
    MarkedBy,
    MarksAtBest,
    MarksOnRecord,
    forget_marks,
    mark_shows,
    marks_on_record,
    peer_shows,
    remove_left,
)
from bridge.model import Endpoint, SideName
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.orthanc.session import SideClient
from bridge.two_servers import SAMPLED, HowMany, TwoServers, tell_apart
from tests.dicom_samples import small_series
from tests.fake_orthanc import FakeOrthanc, Respond
from tests.unit.retention.test_retention import LATER, Rig, rig
from tests.unit.retention.test_retention_clauses import deliver
from tests.unit.test_two_servers import copy_of

__all__ = ["rig"]

COUNT = 2 * SAMPLED + 1
"""More than are looked at without a record."""


class Killed(BaseException):
    """The process is killed here."""


class Killing(SideClient):
    """The client of a process that is killed before or after it sends one kind of request."""

    kind, at = "", ""

    def _die(self, kind: str, at: str) -> None:
        if (kind, at) == (self.kind, self.at):
            raise Killed

    def set_peer(self, name: str, url: str) -> None:
        self._die("set_peer", "before")
        super().set_peer(name, url)
        self._die("set_peer", "after")

    def delete_peer(self, name: str) -> None:
        self._die("delete_peer", "before")
        super().delete_peer(name)
        self._die("delete_peer", "after")

    def set_metadata(self, instance_id: str, name: str, value: str) -> str:
        self._die("set_metadata", "before")
        etag = super().set_metadata(instance_id, name, value)
        self._die("set_metadata", "after")
        return etag

    def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
        self._die("delete_metadata", "before")
        super().delete_metadata(instance_id, name, etag=etag)
        self._die("delete_metadata", "after")


class Both:
    """Two servers with the same instances and the same feed, and a ledger."""

    def __init__(self, start: Callable[..., FakeOrthanc], home: Path) -> None:
        self.state_path = home / "l.sqlite3"
        Ledger(self.state_path).close()
        self.source = start()
        self.instances = [self.source.put(data) for data in small_series(COUNT)]
        self.target = copy_of(self.source, start)
        self.clients: list[SideClient] = []

    def client(self, side: SideName, kind: type[SideClient] = SideClient) -> SideClient:
        server = self.source if side is SideName.SOURCE else self.target
        self.clients.append(kind(Endpoint(side, server.url, timeout_s=5), chance=lambda: 1.0))
        return self.clients[-1]

    def record(self, by: MarkedBy = MarkedBy.PROBES) -> MarksOnRecord:
        return MarksOnRecord(partial(Ledger, self.state_path, create=False), by)

    def on_record(self) -> list[Mark]:
        with Ledger(self.state_path) as ledger:
            return marks_on_record(ledger)

    def at_servers(self) -> list[str]:
        """List the marks. A bridge of another test may still ask at a port that it knew."""
        peers = [*self.source.store.peers, *self.target.store.peers]
        found = [name for name in peers if name.startswith(PROBE_PEER)]
        for server in (self.source, self.target):
            for stored in server.store.instances.values():
                found += [name for name in stored.metadata if name.isdigit()]
        return found

    def same_feeds(self) -> None:
        """A mark on an instance is a row of the feed."""
        self.target.store.rows = list(self.source.store.rows)
        self.target.store.counter = self.source.store.counter

    def next_start(self) -> None:
        """What the next bridge does first."""
        clients = {side: self.client(side) for side in SideName}
        probes = {side: client.probe for side, client in clients.items()}
        servers = TwoServers(
            dict(clients), probes, vouched=True, confirm_s=0.0, marks=self.record()
        )
        for side in SideName:
            servers.probe(side)


@pytest.fixture
def both(fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path) -> Iterator[Both]:
    both = Both(fake_orthanc, tmp_path)
    yield both
    for client in both.clients:
        client.close()


@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("kind", ["set_peer", "delete_peer", "set_metadata", "delete_metadata"])
@pytest.mark.parametrize("which", [0, COUNT // 2, COUNT - 1])
def test_a_probe_that_was_killed_is_cleaned_up_after_at_the_next_start(
    both: Both, kind: str, at: str, which: int
) -> None:
    """It took an hour, and an instance beyond the first three kept its mark for ever."""
    killing = both.client(SideName.SOURCE, Killing)
    assert isinstance(killing, Killing)
    killing.kind, killing.at = kind, at
    there = both.client(SideName.TARGET)
    probe = partial(peer_shows, killing, there, both.record())
    if kind.endswith("metadata"):
        instance = both.instances[which]
        probe = partial(mark_shows, killing, there, instance, marks=both.record())
    with pytest.raises(Killed):
        probe()
    left_there = (kind.startswith("set"), at) in ((True, "after"), (False, "before"))
    assert len(both.at_servers()) == left_there
    assert both.on_record(), "noted before it is set"
    both.next_start()
    assert not both.at_servers()
    assert not both.on_record()


@pytest.mark.parametrize("which", [0, COUNT // 2, COUNT - 1])
def test_a_mark_is_found_also_when_the_addresses_were_exchanged(both: Both, which: int) -> None:
    mark = Mark(f"{PROBE_VALUE}{int(time.time()):010x}-{7:016x}", both.instances[which], "5000")
    both.record().put(mark)
    both.client(SideName.TARGET).set_metadata(mark.instance_id, mark.number, mark.value)
    both.next_start()
    assert not both.at_servers()
    assert not both.on_record()


def test_what_another_command_is_about_to_remove_stays(both: Both) -> None:
    now = time.time()
    young, old = (
        Mark(f"{PROBE_PEER}{int(now - age_s):010x}-{n:016x}")
        for n, age_s in enumerate((60.0, MARK_S_MAX + 60.0))
    )
    for mark in (young, old):
        both.record(MarkedBy.COMMAND).put(mark)
    assert both.record().left() == both.record(MarkedBy.COMMAND).left() == [old]
    both.record().put(young)
    assert both.record().left() == [old, young], "of a bridge that followed before this one"


def test_a_mark_that_is_refused_is_not_on_record(both: Both) -> None:
    both.source.script("PUT", Respond(403))
    source, target = (both.client(side) for side in SideName)
    assert peer_shows(source, target, both.record()) is None
    assert mark_shows(source, target, both.instances[0], marks=both.record()) is None
    assert not both.on_record()


def test_a_server_that_gives_up_no_mark_gets_no_more_of_them_than_that(both: Both) -> None:
    for server in (both.source, both.target):
        server.script("DELETE", Respond(500))
    source, target = (both.client(side) for side in SideName)
    for _ in range(3 * MARKS_LEFT_MAX):
        tell_apart(source, target, marks=both.record())
        both.same_feeds()
    assert len(both.on_record()) == len(both.at_servers()) == MARKS_LEFT_MAX
    for server in (both.source, both.target):
        server.behave()
    both.next_start()
    assert not both.at_servers()


def test_a_sick_instance_tells_the_servers_apart_and_then_another_one_is_used(both: Both) -> None:
    """The pipeline waited for ever: each probe met the same instance."""
    sick = both.instances[0]
    both.source.script(f"DELETE /instances/{sick}/metadata", Respond(500))
    both.source.script("PUT /peers", Respond(403))
    both.target.script("PUT", Respond(403))
    source, target = (both.client(side) for side in SideName)
    for _ in range(3):
        answer = tell_apart(source, target, marks=both.record())
        assert answer.how_many is HowMany.TWO, answer.how
        assert answer.suspicious
        both.same_feeds()
    assert [mark.instance_id for mark in both.on_record()] == [sick]
    assert len(both.at_servers()) == 1


def test_a_state_file_that_cannot_be_used_stops_no_probe(both: Both, tmp_path: Path) -> None:
    nowhere = partial(Ledger, tmp_path / "none" / "l.sqlite3", create=False)
    marks = MarksAtBest(MarksOnRecord(nowhere, MarkedBy.COMMAND))
    with pytest.raises(StateError):
        MarksOnRecord(nowhere, MarkedBy.COMMAND).left()
    source, target = (both.client(side) for side in SideName)
    assert tell_apart(source, target, marks=marks).how_many is HowMany.TWO
    assert not both.at_servers()


# Retention


@pytest.mark.parametrize("which", [0, 2, 4])
def test_a_sick_instance_holds_up_no_sweep(rig: Rig, which: int) -> None:
    """A mark that one instance never gave up blocked sweeps for ever."""
    instances = deliver(rig, 5)
    sick = instances[which]
    rig.source.script(f"DELETE /instances/{sick}/metadata", Respond(500))
    rig.source.script(f"DELETE /instances/{sick}$", Respond(500))
    deleted = sum(rig.sweep(before=LATER + n).deleted for n in range(3))
    assert deleted == 4
    assert rig.at_source == {sick}
    for n in range(1, 4):
        assert rig.sweep(before=LATER + n * 4000.0).deleted == 0
    assert len(marks_on_record(rig.ledger)) == 1, "it gets no second mark"
    rig.source.behave()
    assert rig.sweep(before=LATER * 10).deleted == 1
    rig.sweep(before=LATER * 10)
    assert not marks_on_record(rig.ledger)


def test_a_source_that_gives_up_no_mark_stops_the_sweeps(rig: Rig) -> None:
    deliver(rig, MARKS_LEFT_MAX + 5)
    rig.source.script(r"DELETE /instances/[^/]+/metadata", Respond(500))
    told = ""
    for n in range(MARKS_LEFT_MAX + 5):
        try:
            rig.sweep(before=LATER + n)
        except ConfigurationError as exc:
            told = exc.message
            break
        except SideError:  # of each batch, the last one
            continue
    assert "keep marks that the bridge set" in told
    assert rig.deletions == 0
    assert len(marks_on_record(rig.ledger)) == MARKS_LEFT_MAX


def test_a_mark_that_stays_is_told_and_may_be_forgotten(both: Both) -> None:
    mark = Mark(f"{PROBE_VALUE}{int(time.time()):010x}-{7:016x}", both.instances[0], "5000")
    both.record().put(mark)
    now = time.time()

    def told() -> list[str]:
        board = Board(both.state_path, HealthLimits(), now_s=lambda: now)
        return [one.message for one in board.problems() if one.code == "marks_left"]

    assert not told(), "it may be under way"
    now += MARK_TOLD_S + 1
    (message,) = told()
    assert "metadata 5000 of instance" in message
    with Ledger(both.state_path) as ledger:
        assert forget_marks(ledger, now) == [mark]
    assert not told()


def test_what_is_at_neither_server_is_forgotten(both: Both) -> None:
    gone = Mark(f"{PROBE_VALUE}{int(time.time()):010x}-{7:016x}", "0-0-0-0-0", "5000")
    both.record().put(gone)
    servers = [both.client(side) for side in SideName]
    remove_left(servers, both.record())
    assert not both.on_record()
