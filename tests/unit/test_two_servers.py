"""Are the two addresses two servers? What tells, what does not, and what it costs the servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import product

import pytest

from bridge.errors import ConfigurationError, SideError
from bridge.feed.pages import MovePage
from bridge.feed.polling import DOUBT_FIRST_S, DOUBT_LONGEST_S
from bridge.feed.sources import FixedMoves
from bridge.marks import PROBE_PEER, PROBE_URL, PROBE_VALUE
from bridge.model import Endpoint, Move, SideName, SideProblem
from bridge.orthanc.session import SideClient
from bridge.two_servers import (
    COMPARED_EVERY_S,
    OUTAGE_BELIEVED_S,
    REST_S,
    VERDICTS,
    WRITE_AGAIN_S,
    Compared,
    ComparedServer,
    Distinction,
    HowMany,
    OnlyApart,
    TwoServers,
    Use,
    Verdict,
    _common,
    compare_contents,
    refuse,
    tell_apart,
    use_of,
    verdict,
)
from tests.dicom_samples import small_ct, small_series
from tests.fake_orthanc import FakeOrthanc, Respond

Start = Callable[..., FakeOrthanc]
Connect = Callable[..., SideClient]
WRITES = ("PUT ", "POST ", "DELETE ")


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[SideClient] = []

    def connected(server: FakeOrthanc, side: SideName, host: str = "127.0.0.1") -> SideClient:
        url = server.url.replace("127.0.0.1", host)
        made.append(SideClient(Endpoint(side, url, timeout_s=5), chance=lambda: 1.0))
        return made[-1]

    yield connected
    for client in made:
        client.close()


def asked(connect: Connect, source: FakeOrthanc, target: FakeOrthanc) -> Distinction:
    return tell_apart(connect(source, SideName.SOURCE), connect(target, SideName.TARGET))


def one(connect: Connect, server: FakeOrthanc) -> Distinction:
    """Ask of one server under two names."""
    return tell_apart(
        connect(server, SideName.SOURCE), connect(server, SideName.TARGET, "localhost")
    )


def writes(*servers: FakeOrthanc) -> list[str]:
    return [r for server in servers for r in server.requests if r.startswith(WRITES)]


def copy_of(server: FakeOrthanc, start: Start) -> FakeOrthanc:
    """Return another server with the same content, rows, dates and file names."""
    other = start()
    other.store.instances = deepcopy(server.store.instances)
    other.store.rows = list(server.store.rows)
    other.store.counter = server.store.counter
    return other


def forbid_writing(*servers: FakeOrthanc) -> None:
    for server in servers:
        server.script("PUT ", Respond(403))
        server.script("DELETE ", Respond(403))


@pytest.mark.parametrize("held", [0, 1, 3])
def test_one_server_under_two_names(fake_orthanc: Start, connect: Connect, held: int) -> None:
    server = fake_orthanc()
    for data in small_series(held) if held else ():
        server.put(data)
    assert one(connect, server).how_many is HowMany.ONE
    assert server.store.peers == {}, "and nothing is left behind"


@pytest.mark.parametrize(("here", "there"), [(3, 0), (0, 3), (3, 3), (1, 3)])
def test_two_servers_are_told_by_reading_alone(
    fake_orthanc: Start, connect: Connect, here: int, there: int
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    for server, count in ((source, here), (target, there)):
        for data in small_series(count) if count else ():
            server.put(data)
    answer = asked(connect, source, target)
    assert (answer.how_many, answer.wrote) == (HowMany.TWO, False)
    assert writes(source, target) == []


def test_two_empty_servers(fake_orthanc: Start, connect: Connect) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    assert asked(connect, source, target).how_many is HowMany.TWO
    assert source.store.peers == target.store.peers == {}


def test_a_copy_is_another_server(fake_orthanc: Start, connect: Connect) -> None:
    source = fake_orthanc()
    for data in small_series(3):
        source.put(data)
    target = copy_of(source, fake_orthanc)
    assert asked(connect, source, target).how_many is HowMany.TWO
    left = [set(i.metadata) for s in (source, target) for i in s.store.instances.values()]
    assert not any(name.isdigit() for names in left for name in names), "no mark stays"


@pytest.mark.parametrize("writable", ["source", "target"])
def test_a_mark_at_one_of_the_two_is_enough(
    fake_orthanc: Start, connect: Connect, writable: str
) -> None:
    source = fake_orthanc()
    source.put(small_ct())
    target = copy_of(source, fake_orthanc)
    forbid_writing(target if writable == "source" else source)
    assert asked(connect, source, target).how_many is HowMany.TWO


def test_two_servers_on_one_database_are_one(fake_orthanc: Start, connect: Connect) -> None:
    """They share no peers, which live in memory."""
    source, target = fake_orthanc(), fake_orthanc()
    source.put(small_ct())
    target.store.instances, target.store.rows = source.store.instances, source.store.rows
    target.store.counter = source.store.counter
    assert asked(connect, source, target).how_many is HowMany.ONE


@pytest.mark.parametrize("copied", [True, False])
def test_what_may_not_be_written_anywhere_cannot_be_told_of_a_copy(
    fake_orthanc: Start, connect: Connect, copied: bool
) -> None:
    source = fake_orthanc()
    source.put(small_ct())
    forbid_writing(source)
    if copied:
        target = copy_of(source, fake_orthanc)
        forbid_writing(target)
        answer = asked(connect, source, target)
    else:
        answer = one(connect, source)
    assert (answer.how_many, answer.suspicious) == (HowMany.UNKNOWN, True)
    with pytest.raises(ConfigurationError, match="may lead to one server"):
        refuse(answer, Use.NOTHING, vouched=False)
    refuse(answer, Use.NOTHING, vouched=True)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 405, 500, 501])
@pytest.mark.parametrize("kind", ["empty", "copied"])
def test_an_answer_to_a_mark_is_no_outage(
    fake_orthanc: Start, connect: Connect, kind: str, status: int
) -> None:
    """A proxy may ask for another login where one writes: that never passes, and moved nothing."""
    source = fake_orthanc()
    if kind == "copied":
        source.put(small_ct())
    target = copy_of(source, fake_orthanc)
    for server in (source, target):
        server.script("PUT ", Respond(status))
    answer = asked(connect, source, target)
    assert (answer.how_many, answer.suspicious) == (HowMany.UNKNOWN, kind == "copied")


@pytest.mark.parametrize("kind", ["empty", "copied"])
def test_an_outage_at_a_mark_is_one(fake_orthanc: Start, connect: Connect, kind: str) -> None:
    source = fake_orthanc()
    if kind == "copied":
        source.put(small_ct())
    target = copy_of(source, fake_orthanc)
    for server in (source, target):
        server.script("PUT ", Respond(503))
    with pytest.raises(SideError):
        asked(connect, source, target)


@pytest.mark.parametrize("status", [401, 500])
def test_a_feed_or_a_list_that_fails_is_an_outage_and_no_right(
    fake_orthanc: Start, connect: Connect, status: int
) -> None:
    """Whoever reads these lacks none: nothing is concluded from an answer that may pass."""
    for path in ("GET /changes", "GET /instances"):
        source = fake_orthanc()
        source.put(small_ct())
        target = copy_of(source, fake_orthanc)
        target.script(path, Respond(status))
        source.script(path, Respond(status))
        with pytest.raises(SideError):
            asked(connect, source, target)


@pytest.mark.parametrize("look", [compare_contents, _common])
@pytest.mark.parametrize(("status", "outage"), [(401, True), (500, True), (403, False)])
def test_a_list_that_may_not_be_read_tells_nothing(
    fake_orthanc: Start,
    connect: Connect,
    look: Callable[[ComparedServer, ComparedServer], object],
    status: int,
    outage: bool,
) -> None:
    source = fake_orthanc()
    source.put(small_ct())
    source.script("GET /instances", Respond(status))
    clients = connect(source, SideName.SOURCE), connect(source, SideName.TARGET, "localhost")
    if outage:
        with pytest.raises(SideError):
            look(*clients)
    else:
        assert look(*clients) in (Compared.NOTHING, "")


@pytest.mark.parametrize("status", [403, 500])
def test_files_that_may_not_be_looked_at_tell_nothing(
    fake_orthanc: Start, connect: Connect, status: int
) -> None:
    source = fake_orthanc()
    source.put(small_ct())
    source.script("GET /instances/.*/attachments/dicom/info", Respond(status))
    assert one(connect, source).how_many is HowMany.ONE


ALIKE, UNTOLD = Verdict.REFUSE_ALIKE, Verdict.REFUSE_UNTOLD


@pytest.mark.parametrize(
    ("how_many", "suspicious", "vouched", "verdicts"),
    [
        # nothing to move, a target that keeps, a target that may overwrite
        (HowMany.TWO, False, False, [Verdict.GO, Verdict.GO, Verdict.GO]),
        (HowMany.TWO, True, False, [Verdict.GO, Verdict.GO, Verdict.GO]),
        (HowMany.ONE, False, False, [Verdict.REFUSE_ONE] * 3),
        (HowMany.ONE, True, False, [Verdict.REFUSE_ONE] * 3),
        (HowMany.UNKNOWN, True, False, [ALIKE, ALIKE, ALIKE]),
        (HowMany.UNKNOWN, False, False, [Verdict.GO, Verdict.GO, UNTOLD]),
        (HowMany.TWO, False, True, [Verdict.GO, Verdict.GO, Verdict.GO]),
        (HowMany.TWO, True, True, [Verdict.GO, Verdict.GO, Verdict.GO]),
        (HowMany.ONE, False, True, [Verdict.REFUSE_ONE] * 3),
        (HowMany.ONE, True, True, [Verdict.REFUSE_ONE] * 3),
        (HowMany.UNKNOWN, True, True, [Verdict.GO, Verdict.GO, Verdict.GO]),
        (HowMany.UNKNOWN, False, True, [Verdict.GO, Verdict.GO, Verdict.GO]),
    ],
)
def test_the_verdicts(
    how_many: HowMany, suspicious: bool, vouched: bool, verdicts: list[Verdict]
) -> None:
    answer = Distinction(how_many, "so", suspicious=suspicious)
    uses = [use_of(moves=False, overwrites=None)]
    uses += [use_of(moves=True, overwrites=overwrites) for overwrites in (False, True)]
    assert uses == list(Use), "each cell is looked at"
    assert use_of(moves=True, overwrites=None) is Use.MAY_OVERWRITE
    assert [verdict(answer, use, vouched=vouched) for use in uses] == verdicts
    for use, expected in zip(uses, verdicts, strict=True):
        if expected is Verdict.GO:
            refuse(answer, use, vouched=vouched)
            continue
        with pytest.raises(ConfigurationError) as caught:
            refuse(answer, use, vouched=vouched)
        assert caught.value.exit_code == 2
        assert caught.value.advice


def test_no_cell_is_missing() -> None:
    assert set(VERDICTS) == set(product(HowMany, (False, True)))
    assert all(set(row) == set(Use) for row in VERDICTS.values())


def test_one_server_is_refused_whatever_is_vouched_for() -> None:
    with pytest.raises(ConfigurationError, match="lead to one server"):
        refuse(Distinction(HowMany.ONE, "a peer shows"), Use.NOTHING, vouched=True)


def test_a_target_whose_feed_may_not_be_read_is_told_by_its_files(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    for data in small_series(2):
        source.put(data)
        target.put(data)
    target.script("GET /changes", Respond(403))
    answer = asked(connect, source, target)
    assert (answer.how_many, answer.wrote) == (HowMany.TWO, False)


def test_one_server_whose_feed_may_not_be_read_twice(fake_orthanc: Start, connect: Connect) -> None:
    server = fake_orthanc()
    server.put(small_ct())
    server.script("GET /changes", Respond(403))
    assert one(connect, server).how_many is HowMany.ONE


def test_a_mark_is_nobodys_data(fake_orthanc: Start, connect: Connect) -> None:
    """Every number is taken but one: none of them is overwritten."""
    source = fake_orthanc()
    instance_id = source.put(small_ct())
    target = copy_of(source, fake_orthanc)
    for server in (source, target):
        server.script("PUT /peers", Respond(403))
    taken = {str(number): "mine" for number in range(1024, 65536)}
    source.store.instances[instance_id].metadata |= taken
    assert asked(connect, source, target).how_many is HowMany.UNKNOWN
    assert {
        k: v for k, v in source.store.instances[instance_id].metadata.items() if k in taken
    } == taken
    assert not any(r.startswith(("PUT /instances", "DELETE /instances")) for r in writes(source))


def test_a_feed_that_moves_meanwhile_is_still_one(fake_orthanc: Start, connect: Connect) -> None:
    server = fake_orthanc()
    server.put(small_ct())
    rows = iter(small_series(9))

    class Moving(SideClient):
        def last_change(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
            server.put(next(rows))
            return super().last_change()

    source = Moving(Endpoint(SideName.SOURCE, server.url, timeout_s=5))
    try:
        answer = tell_apart(source, connect(server, SideName.TARGET, "localhost"))
    finally:
        source.close()
    assert answer.how_many is HowMany.ONE


def test_a_server_that_is_down_is_an_outage_and_no_verdict(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    target.stop()
    with pytest.raises(SideError) as caught:
        asked(connect, source, target)
    assert caught.value.problem is SideProblem.UNREACHABLE


class Guarded:
    """Probes of two sides, and a clock."""

    def __init__(
        self,
        source: SideClient,
        target: SideClient,
        *,
        vouched: bool = False,
        confirm_s: float = 0.0,
    ) -> None:
        self.now_s, self.unrest = 0.0, 0
        clients = {SideName.SOURCE: source, SideName.TARGET: target}
        compared: dict[SideName, ComparedServer] = dict(clients)
        servers = TwoServers(
            compared,
            {side: client.probe for side, client in clients.items()},
            vouched=vouched,
            confirm_s=confirm_s,
            unrest=lambda: self.unrest,
            steady_s=lambda: self.now_s,
        )
        self.servers = servers
        self.probes = {side: partial(servers.probe, side) for side in SideName}

    def both(self) -> None:
        for side in SideName:
            self.probes[side]()


def two(start: Start, connect: Connect) -> tuple[FakeOrthanc, FakeOrthanc, Guarded]:
    """Start a source and a target, each behind probes that compare it with the other."""
    source, target = start(), start()
    guarded = Guarded(connect(source, SideName.SOURCE), connect(target, SideName.TARGET))
    return source, target, guarded


def test_probes_refuse_one_server(fake_orthanc: Start, connect: Connect) -> None:
    server = fake_orthanc()
    guarded = Guarded(
        connect(server, SideName.SOURCE), connect(server, SideName.TARGET, "localhost")
    )
    with pytest.raises(ConfigurationError):
        guarded.both()


def test_a_bridge_may_start_while_either_server_is_down(
    fake_orthanc: Start, connect: Connect
) -> None:
    for down, up in (tuple(SideName), tuple(reversed(SideName))):
        servers = {side: fake_orthanc() for side in SideName}
        servers[down].stop()
        guarded = Guarded(*(connect(servers[side], side) for side in SideName))
        guarded.probes[up]()
        with pytest.raises(SideError):
            guarded.probes[down]()
        guarded.probes[up]()
        servers[down].start()
        guarded.both()


def test_an_address_that_leads_elsewhere_after_an_outage(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    source.put(small_ct())
    client = connect(target, SideName.TARGET)
    guarded = Guarded(connect(source, SideName.SOURCE), client)
    guarded.both()
    target.stop()
    with pytest.raises(SideError):
        guarded.probes[SideName.TARGET]()
    client.close()
    client.endpoint = Endpoint(SideName.TARGET, source.url, timeout_s=5)
    client._renewed.endpoint = client.endpoint
    with pytest.raises(ConfigurationError):
        guarded.probes[SideName.TARGET]()


class Misled:
    """Two servers that were told apart; then the target's name leads to the source."""

    def __init__(self, start: Start, connect: Connect, *, confirm_s: float) -> None:
        self.source, self.target = start(), start()
        for data in small_series(3):
            self.source.put(data)
        self.client = connect(self.target, SideName.TARGET)
        here = connect(self.source, SideName.SOURCE)
        self.guarded = Guarded(here, self.client, confirm_s=confirm_s)
        self.guarded.both()

    def lead_to(self, server: FakeOrthanc) -> None:
        """Let new connections to the target's name lead there; those that are open stay."""
        self.client.endpoint = Endpoint(SideName.TARGET, server.url, timeout_s=5)
        self.client._renewed.endpoint = self.client.endpoint

    def probe(self, at_s: float, side: SideName = SideName.TARGET) -> SideError | None:
        """Probe at a time of the clock; return what it says of the server."""
        self.guarded.now_s = at_s
        try:
            self.guarded.probes[side]()
        except SideError as exc:
            return exc
        return None


LATER_S = COMPARED_EVERY_S + 1


def test_two_that_seem_to_be_one_are_looked_at_again_before_that_is_believed(
    fake_orthanc: Start, connect: Connect
) -> None:
    """Planted, seen to fail: refused at once; believed never; the time begins with each look."""
    misled = Misled(fake_orthanc, connect, confirm_s=30.0)
    misled.lead_to(misled.source)
    misled.client.close()
    for waited_s in (0.0, 3.0, 15.0, 29.0):
        error = misled.probe(LATER_S + waited_s)
        assert error is not None
        assert error.side is SideName.TARGET
        assert "lead to one server" in error.message
        assert "looks again" in error.message
        assert "correct" in error.advice.lower()
    with pytest.raises(ConfigurationError, match="lead to one server"):
        misled.probe(LATER_S + 30.0)


def test_two_that_are_two_again_are_trusted_after_two_looks(
    fake_orthanc: Start, connect: Connect
) -> None:
    """Planted, seen to fail: one good look is enough; a comparison of before is believed."""
    misled = Misled(fake_orthanc, connect, confirm_s=30.0)
    misled.lead_to(misled.source)
    misled.client.close()
    assert misled.probe(LATER_S) is not None
    misled.lead_to(misled.target)
    for later_s in (DOUBT_LONGEST_S, DOUBT_LONGEST_S + DOUBT_FIRST_S - 0.1):
        error = misled.probe(LATER_S + later_s)
        assert error is not None
        assert "lead to one server" in error.message
    assert misled.probe(LATER_S + DOUBT_LONGEST_S + DOUBT_FIRST_S) is None
    assert misled.probe(LATER_S + DOUBT_LONGEST_S + DOUBT_FIRST_S, SideName.SOURCE) is None
    # What took turns within the time goes on with the first doubt.
    misled.lead_to(misled.source)
    misled.client.close()
    misled.guarded.unrest += 1
    assert misled.probe(LATER_S + 29) is not None
    with pytest.raises(ConfigurationError):
        misled.probe(LATER_S + 31)


def test_a_doubt_looks_on_new_connections(fake_orthanc: Start, connect: Connect) -> None:
    """An open one may lead to the source for as long as it is open.

    Planted, seen to fail: the connections stay open.
    """
    misled = Misled(fake_orthanc, connect, confirm_s=30.0)
    misled.lead_to(misled.source)
    misled.client.close()
    assert misled.probe(LATER_S) is not None
    misled.lead_to(misled.target)  # and nobody but the bridge closes what is open
    assert misled.probe(LATER_S + DOUBT_LONGEST_S) is not None
    assert misled.probe(LATER_S + DOUBT_LONGEST_S + DOUBT_FIRST_S) is None


def test_a_doubt_looks_no_oftener_than_a_feed_in_doubt(
    fake_orthanc: Start, connect: Connect
) -> None:
    """Each look may write a mark: probes and moves of a second ask once.

    Planted, seen to fail: every probe looks.
    """
    misled = Misled(fake_orthanc, connect, confirm_s=30.0)
    misled.lead_to(misled.source)
    misled.client.close()
    assert misled.probe(LATER_S) is not None
    before = writes(misled.source, misled.target)
    for later_s in (0.0, 0.3, 0.6, 0.9):
        for side in SideName:
            error = misled.probe(LATER_S + later_s, side)
            assert error is not None
            assert error.side is side
            with pytest.raises(SideError):
                misled.guarded.servers.make_sure(["a"])
    assert writes(misled.source, misled.target) == before
    assert misled.probe(LATER_S + DOUBT_LONGEST_S) is not None
    assert len(writes(misled.source, misled.target)) > len(before)


def test_moves_to_what_seems_to_be_one_server_wait(fake_orthanc: Start, connect: Connect) -> None:
    """The same doubt, met by the instances that are to be moved.

    Planted, seen to fail: the refusal of moves is believed at once.
    """
    misled = Misled(fake_orthanc, connect, confirm_s=30.0)
    first, middle, last = misled.source.store.instances
    misled.guarded.servers.make_sure([first])
    misled.lead_to(misled.source)
    misled.client.close()
    misled.guarded.now_s = REST_S + 1
    for instance in (first, middle, last):
        with pytest.raises(SideError) as caught:
            misled.guarded.servers.make_sure([instance])
        assert caught.value.side is SideName.TARGET
    error = misled.probe(REST_S + 6)
    assert error is not None, "and a probe does not end it"
    with pytest.raises(ConfigurationError):
        misled.probe(REST_S + 31)


def test_two_that_were_never_told_apart_are_refused_at_once(
    fake_orthanc: Start, connect: Connect
) -> None:
    server = fake_orthanc()
    server.put(small_ct())
    guarded = Guarded(
        connect(server, SideName.SOURCE),
        connect(server, SideName.TARGET, "localhost"),
        confirm_s=30.0,
    )
    with pytest.raises(ConfigurationError):
        guarded.both()


def test_an_outage_of_one_side_is_not_told_of_the_other(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, _target, guarded = two(fake_orthanc, connect)
    source.put(small_ct())
    guarded.both()
    source.stop()
    guarded.probes[SideName.TARGET]()


def test_a_side_is_not_used_on_a_word_that_could_not_be_held_against_the_other(
    fake_orthanc: Start, connect: Connect
) -> None:
    """The source answered its probe, and fails at the comparison: nobody would ask again."""
    source, target, guarded = two(fake_orthanc, connect)
    target.stop()
    guarded.probes[SideName.SOURCE]()
    target.start()
    source.script("GET /changes", Respond(503))
    with pytest.raises(SideError) as caught:
        guarded.probes[SideName.TARGET]()
    assert caught.value.side is SideName.TARGET
    source.behave()
    guarded.both()


def test_a_server_that_is_down_is_asked_by_its_own_probes_only(
    fake_orthanc: Start, connect: Connect
) -> None:
    """Otherwise a source that hangs makes each probe of the target hang too."""
    source, _target, guarded = two(fake_orthanc, connect)
    source.put(small_ct())
    guarded.both()
    source.script("GET", Respond(503))
    with pytest.raises(SideError):
        guarded.probes[SideName.SOURCE]()
    before = len(source.requests)
    for _ in range(3):
        guarded.now_s += OUTAGE_BELIEVED_S / 4
        guarded.probes[SideName.TARGET]()
    assert len(source.requests) == before
    guarded.now_s += OUTAGE_BELIEVED_S / 4
    guarded.probes[SideName.TARGET]()
    asked_again = len(source.requests)
    assert asked_again > before, "in case that nobody has probed it any more"
    guarded.probes[SideName.TARGET]()
    assert len(source.requests) == asked_again


@pytest.mark.parametrize("first", list(SideName))
def test_two_that_come_back_are_compared(
    fake_orthanc: Start, connect: Connect, first: SideName
) -> None:
    server = fake_orthanc()
    server.put(small_ct())
    guarded = Guarded(
        connect(server, SideName.SOURCE), connect(server, SideName.TARGET, "localhost")
    )
    server.script("GET", Respond(503))
    for side in SideName:
        with pytest.raises(SideError):
            guarded.probes[side]()
    server.behave()
    second = next(side for side in SideName if side is not first)
    guarded.probes[first]()
    with pytest.raises(ConfigurationError):
        guarded.probes[second]()


def test_a_side_stays_unused_until_it_was_held_against_the_other(
    fake_orthanc: Start, connect: Connect
) -> None:
    """The source is up, so nobody probes it: the second probe of the target must not pass."""
    source, target, guarded = two(fake_orthanc, connect)
    target.stop()
    guarded.probes[SideName.SOURCE]()
    target.start()
    source.script("GET /changes", Respond(503))
    for _ in range(3):
        with pytest.raises(SideError):
            guarded.probes[SideName.TARGET]()
    source.behave()
    guarded.probes[SideName.TARGET]()


def test_servers_at_rest_are_seldom_compared(fake_orthanc: Start, connect: Connect) -> None:
    source, target, guarded = two(fake_orthanc, connect)
    source.put(small_ct())

    def compared() -> bool:
        before = sum("/changes" in request for request in target.requests)
        guarded.probes[SideName.TARGET]()
        return sum("/changes" in request for request in target.requests) > before

    guarded.both()
    assert not compared()
    guarded.now_s += COMPARED_EVERY_S - 1
    assert not compared()
    guarded.now_s += 1
    assert compared()
    guarded.unrest += 1
    assert compared(), "an instance was moved, or somebody had trouble"
    assert not compared()
    source.script("GET /system", Respond(503))
    with pytest.raises(SideError):
        guarded.probes[SideName.SOURCE]()
    source.behave()
    guarded.probes[SideName.SOURCE]()
    assert not compared(), "by the probe of the source, after its trouble"
    guarded.unrest += 1
    assert compared()


def test_an_address_that_leads_elsewhere_is_seen_with_the_first_instance_that_moves(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    source.put(small_ct())
    client = connect(target, SideName.TARGET)
    guarded = Guarded(connect(source, SideName.SOURCE), client)
    guarded.both()
    client.close()
    client.endpoint = Endpoint(SideName.TARGET, source.url, timeout_s=5)
    client._renewed.endpoint = client.endpoint
    guarded.unrest += 1
    with pytest.raises(ConfigurationError):
        guarded.probes[SideName.TARGET]()


@pytest.mark.parametrize("overwrites", [True, None, False])
def test_after_a_rest_the_servers_are_compared_before_an_instance_is_handed_out(
    overwrites: bool | None, fake_orthanc: Start, connect: Connect
) -> None:
    """An address that leads elsewhere since would have the first one overwrite its original."""
    source, target = fake_orthanc(), fake_orthanc()
    instance_id, _ = source.store.put(small_ct())
    for data in small_series(3):
        target.put(data)
    client = connect(target, SideName.TARGET)
    told = target.system
    target.system = lambda: told() | {"OverwriteInstances": overwrites}  # type: ignore[method-assign]
    guarded = Guarded(connect(source, SideName.SOURCE), client)
    guarded.both()
    moves = OnlyApart(Given(instance_id), guarded.servers)
    guarded.now_s += REST_S
    asked_before = len(target.requests)
    assert moves.next_page().moves
    compared = 0 if overwrites is False else 1
    assert len(target.requests) == asked_before + compared
    assert moves.next_page().moves
    guarded.now_s += REST_S - 1
    assert moves.next_page().moves
    assert len(target.requests) == asked_before + compared, "not for each page"
    client.close()
    client.endpoint = Endpoint(SideName.TARGET, source.url, timeout_s=5)
    client._renewed.endpoint = client.endpoint
    guarded.now_s += 1
    if overwrites is False:
        assert moves.next_page().moves
        return
    with pytest.raises(ConfigurationError) as caught:
        moves.next_page()
    assert caught.value.exit_code == 2


def test_what_arrives_behind_a_backlog_is_handed_out_after_a_comparison_too(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    instance_id, _ = source.store.put(small_ct())
    for data in small_series(3):
        target.put(data)
    client = connect(target, SideName.TARGET)
    guarded = Guarded(connect(source, SideName.SOURCE), client)
    guarded.both()

    class Arrives(Given):
        def newest(self, *, ahead: bool) -> MovePage:
            return replace(self.page, ahead=True) if ahead else MovePage(())

    moves = OnlyApart(Arrives(instance_id), guarded.servers)
    assert moves.newest(ahead=True).moves
    client.close()
    client.endpoint = Endpoint(SideName.TARGET, source.url, timeout_s=5)
    client._renewed.endpoint = client.endpoint
    guarded.now_s += REST_S
    assert not moves.newest(ahead=False).moves
    with pytest.raises(ConfigurationError):
        moves.newest(ahead=True)


HOUR_S = 3600.0


def a_mark(begin: str, *, age_s: float, now: float) -> str:
    return f"{begin}{int(now - age_s):010x}-{'0' * 16}"


def test_what_a_killed_probe_left_is_removed_and_nothing_else(
    fake_orthanc: Start, connect: Connect
) -> None:
    now = time.time()
    source, target = fake_orthanc(), fake_orthanc()
    source.put(small_ct())
    old, young = (a_mark(PROBE_PEER, age_s=age, now=now) for age in (2 * HOUR_S, HOUR_S / 2))
    others = {
        young: PROBE_URL,
        a_mark(PROBE_PEER, age_s=3 * HOUR_S, now=now): "http://10.0.0.1:8042",
        "orthanc-bridge-probe-mine": PROBE_URL,
        "orthanc-bridge-follows-x": PROBE_URL,
        "x" + old: PROBE_URL,
    }
    for server in (source, target):
        server.store.peers = {old: PROBE_URL} | others
    Guarded(connect(source, SideName.SOURCE), connect(target, SideName.TARGET)).both()
    assert source.store.peers == target.store.peers == others


def test_what_a_killed_probe_left_on_an_instance_is_removed_and_nothing_else(
    fake_orthanc: Start, connect: Connect
) -> None:
    now = time.time()
    source = fake_orthanc()
    instance_id = source.put(small_ct())
    target = copy_of(source, fake_orthanc)
    old, young = (a_mark(PROBE_VALUE, age_s=age, now=now) for age in (2 * HOUR_S, HOUR_S / 2))
    others = {"5001": young, "5002": "their own", "5003": f"{old} and more"}
    metadata = source.store.instances[instance_id].metadata
    metadata |= {"5000": old} | others
    Guarded(connect(source, SideName.SOURCE), connect(target, SideName.TARGET)).both()
    left = {name: value for name, value in metadata.items() if name.startswith("50")}
    assert left == others


class Killed(BaseException):
    """The process is killed here."""


@pytest.mark.parametrize("kind", ["peer", "metadata"])
def test_a_probe_that_is_killed_is_cleaned_up_after(
    fake_orthanc: Start, connect: Connect, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fake_orthanc()
    if kind == "metadata":
        source.put(small_ct())
    target = copy_of(source, fake_orthanc)

    def marks() -> int:
        metadata = [m for i in source.store.instances.values() for m in i.metadata]
        return len(source.store.peers) + sum(name.isdigit() for name in metadata)

    class Killing(SideClient):
        def delete_peer(self, name: str) -> None:
            if kind == "peer":
                raise Killed
            super().delete_peer(name)

        def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
            raise Killed(instance_id, name, etag)

    before = marks()
    killed = Killing(Endpoint(SideName.SOURCE, source.url, timeout_s=5))
    there = connect(target, SideName.TARGET)
    with pytest.raises(Killed):
        tell_apart(killed, there)
    killed.close()
    assert marks() == before + 1
    later = time.time() + 2 * HOUR_S
    monkeypatch.setattr(time, "time", lambda: later)
    Guarded(connect(source, SideName.SOURCE), there).both()
    assert marks() == before


def test_empty_servers_are_not_written_to_at_each_probe(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, target, guarded = two(fake_orthanc, connect)
    for _, _ in product(range(5), range(2)):
        guarded.both()
    assert len(writes(source, target)) == 4, "a peer added and removed at each"
    guarded.now_s += WRITE_AGAIN_S
    guarded.unrest += 1
    guarded.both()
    assert len(writes(source, target)) == 8


class Given(FixedMoves):
    """Moves of these instances, once."""

    def __init__(self, *instance_ids: str) -> None:
        self.page = MovePage(tuple(Move(name) for name in instance_ids), done=True, ended=True)
        self.asked = 0

    def next_page(self) -> MovePage:
        self.asked += 1
        return self.page


def blind(server: FakeOrthanc, status: int = 403) -> None:
    """Let a login do nothing but store, and see who the server is."""
    for route in ("GET /changes", "GET /instances", "GET /peers", "GET /statistics"):
        server.script(route, Respond(status))
    forbid_writing(server)


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("overwrites", [True, None, False])
@pytest.mark.parametrize("vouched", [True, False])
def test_nothing_is_moved_that_could_overwrite_itself(
    overwrites: bool | None, vouched: bool, status: int, fake_orthanc: Start, connect: Connect
) -> None:
    """One server under two names, and a login that sees nothing of it at the target's address.

    A proxy may answer 404 to whatever it does not pass on: that is no instance that lacks.
    """
    server, seen_as_target = fake_orthanc(), fake_orthanc()
    instance_id, _ = server.store.put(small_ct())
    seen_as_target.store = server.store
    forbid_writing(server)
    blind(seen_as_target, status)
    guarded = Guarded(
        connect(server, SideName.SOURCE), connect(seen_as_target, SideName.TARGET), vouched=vouched
    )
    told = seen_as_target.system
    seen_as_target.system = lambda: told() | {"OverwriteInstances": overwrites}  # type: ignore[method-assign]
    guarded.both()
    moves = OnlyApart(Given(instance_id), guarded.servers)
    if vouched or overwrites is False:
        assert moves.next_page().moves
        return
    with pytest.raises(ConfigurationError, match="Nothing more is moved") as caught:
        moves.next_page()
    assert caught.value.exit_code == 2


def test_a_login_that_may_ask_for_one_instance_at_the_target_is_enough(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    instance_id, _ = source.store.put(small_ct())
    forbid_writing(source, target)
    for route in ("GET /changes", r"GET /instances\?", "GET /peers"):
        target.script(route, Respond(403))
    source.script(r"GET /instances\?", Respond(403))
    guarded = Guarded(connect(source, SideName.SOURCE), connect(target, SideName.TARGET))
    guarded.both()
    assert OnlyApart(Given(instance_id), guarded.servers).next_page().moves


@pytest.mark.parametrize("held", [0, 1, 3])
def test_a_target_that_shows_what_it_holds_is_believed_what_it_lacks(
    held: int, fake_orthanc: Start, connect: Connect
) -> None:
    """Not one that lists instances and answers 404 to each."""
    source, target = fake_orthanc(), fake_orthanc()
    instance_id, _ = source.store.put(small_ct())
    for data in small_series(held) if held else ():
        target.put(data)
    clients = connect(source, SideName.SOURCE), connect(target, SideName.TARGET)
    assert compare_contents(*clients, [instance_id]) is Compared.DIFFERENT
    target.script(r"GET /instances/", Respond(404))
    hidden = Compared.NOTHING if held else Compared.DIFFERENT
    assert compare_contents(*clients, [instance_id]) is hidden


def test_two_empty_servers_are_asked_about_when_there_is_something_to_move(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    forbid_writing(source, target)
    guarded = Guarded(connect(source, SideName.SOURCE), connect(target, SideName.TARGET))
    guarded.both()
    assert OnlyApart(Given(), guarded.servers).next_page().ended
    instance_id, _ = source.store.put(small_ct())
    assert OnlyApart(Given(instance_id), guarded.servers).next_page().moves


def test_a_page_is_not_lost_to_an_outage_while_it_is_held(
    fake_orthanc: Start, connect: Connect
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    forbid_writing(source, target)
    guarded = Guarded(connect(source, SideName.SOURCE), connect(target, SideName.TARGET))
    guarded.both()
    instance_id, _ = source.store.put(small_ct())
    given = Given(instance_id)
    moves = OnlyApart(given, guarded.servers)
    target.stop()
    with pytest.raises(SideError):
        moves.next_page()
    target.start()
    assert moves.next_page().moves
    assert given.asked == 1
