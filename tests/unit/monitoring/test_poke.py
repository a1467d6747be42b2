"""``POST /poke``: who may, what it does, and what a flood of it does."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.credentials import poke_token
from bridge.errors import ConfigurationError
from bridge.feed.gaps import Ask
from bridge.feed.pages import MovePage
from bridge.feed.polling import POKE_GOOD_S, POKED_LOOK_GAP_S
from bridge.ledger.store import Ledger
from bridge.monitoring.board import Board
from bridge.monitoring.guesses import (
    ADDRESSES_MAX,
    GUESS_EVERY_S,
    GUESSES_AT_ONCE,
    Guesses,
    sender_of,
)
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.poke import DELETED_MAX, POKE_PATH, PokeReceiver
from bridge.monitoring.server import MonitoringServer, application
from bridge.pipeline.runtime import Message, Poked
from tests.pipeline_bench import Bench

TOKEN = "0123456789abcdef-0123456789"  # noqa: S105
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


class Monitored:
    """A monitoring server whose pokes are counted here."""

    def __init__(self, server: MonitoringServer, metrics: Metrics) -> None:
        self.port = int(server.url.rsplit(":", 1)[1])
        self._metrics = metrics
        self.woken = 0
        self.receiver = PokeReceiver(TOKEN, metrics.count_poke)

    def wake(self) -> None:
        self.woken += 1

    def ask(
        self,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        body: str | None = None,
        path: str = POKE_PATH,
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def counted(self) -> dict[str, float]:
        families = text_string_to_metric_families(self._metrics.render().decode())
        (family,) = [found for found in families if found.name == "orthanc_bridge_pokes"]
        return {sample.labels["result"]: sample.value for sample in family.samples}


@contextmanager
def served(directory: Path, *, token: str | None) -> Iterator[Monitored]:
    path = directory / "state.sqlite3"
    Ledger(path).close()
    board = Board(path, HealthLimits())
    metrics = Metrics(board)
    pokes = PokeReceiver(token, metrics.count_poke) if token else None
    server = MonitoringServer(application(board, metrics, pokes), host="127.0.0.1", port=0)
    server.start()
    poked = Monitored(server, metrics)
    if pokes is not None:
        poked.receiver = pokes
        pokes.wakes(poked.wake)
    try:
        yield poked
    finally:
        server.stop()


@pytest.fixture
def poked(tmp_path: Path) -> Iterator[Monitored]:
    with served(tmp_path, token=TOKEN) as found:
        yield found


def test_without_a_token_there_is_no_such_address(tmp_path: Path) -> None:
    with served(tmp_path, token=None) as poked:
        assert poked.ask(headers=RIGHT)[0] == 404
        assert poked.ask("GET")[0] == 404


def test_with_the_token_it_wakes(poked: Monitored) -> None:
    assert poked.ask(headers=RIGHT) == (202, "ok\n")
    assert poked.woken == 1
    assert poked.counted() == {"accepted": 1, "refused": 0, "slowed": 0}


def test_deletions_are_heard_with_the_token_only(tmp_path: Path) -> None:
    one, two = ("-".join([f"{number:08x}"] * 5) for number in (0xABCD, 0xABCE))
    heard: list[list[str]] = []
    with served(tmp_path, token=TOKEN) as poked:
        poked.receiver.wakes(poked.wake, heard.append)
        asked = {
            f"?deleted={one},{two}": [one, two],
            f"?deleted={one},x,../instances,,{two.upper()}": [one],
            "?deleted=": None,
            "?deleted=nothing": None,
            f"?deleted={','.join([two] * (DELETED_MAX + 5))}": [two] * DELETED_MAX,
        }
        for query, found in asked.items():
            heard.clear()
            assert poked.ask(path=POKE_PATH + query)[0] == 401
            assert heard == []
            assert poked.ask(path=POKE_PATH + query, headers=RIGHT) == (202, "ok\n")
            assert heard == ([found] if found else [])
        assert poked.woken == len(asked)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"bearer {TOKEN}",
        f"Basic {TOKEN}",
        "Bearer ÿ",
        "Bearer " + "x" * 8000,
    ],
)
def test_without_it_nobody_does(poked: Monitored, given: str | None) -> None:
    status, body = poked.ask(headers={} if given is None else {"Authorization": given})
    assert (status, body) == (401, "not the token\n")
    assert poked.woken == 0
    assert poked.counted() == {"accepted": 0, "refused": 1, "slowed": 0}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_takes_post_only(poked: Monitored, method: str) -> None:
    assert poked.ask(method, RIGHT)[0] == 405
    assert poked.woken == 0


@pytest.mark.parametrize(
    ("headers", "body"),
    [({}, "x"), ({"Content-Length": "9999999999"}, None), ({"Transfer-Encoding": "chunked"}, None)],
)
def test_a_body_is_refused_unread(
    poked: Monitored, headers: dict[str, str], body: str | None
) -> None:
    assert poked.ask(headers=RIGHT | headers, body=body)[0] == 413
    assert poked.woken == 0


def test_a_page_that_gave_itself_our_address_cannot_poke(poked: Monitored) -> None:
    assert poked.ask(headers=RIGHT | {"Host": "evil.example"})[0] == 421
    assert poked.woken == 0


@pytest.mark.parametrize("token", ["short", "fifteen-letters", "with a blank in it", "ä" * 20])
def test_a_token_that_is_guessed_or_cannot_be_sent(token: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_POKE_TOKEN") as refused:
        poke_token({"BRIDGE_POKE_TOKEN": token}, tmp_path / "none")
    assert token not in str(refused.value)


def test_an_answer_does_not_wait_for_an_acknowledgement(poked: Monitored) -> None:
    """Storing at the source waits for it: Nagle's algorithm would add 40 ms to each."""
    connection = http.client.HTTPConnection("127.0.0.1", poked.port, timeout=10)
    times = []
    for _ in range(20):
        began_s = time.monotonic()
        connection.request("POST", "/poke", headers=RIGHT)
        assert connection.getresponse().read() == b"ok\n"
        times.append(time.monotonic() - began_s)
    connection.close()
    assert min(times[1:]) < 0.03


def test_the_token_comes_from_a_file_as_well(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    found = poke_token({"BRIDGE_POKE_TOKEN_FILE": str(tmp_path / "token")}, tmp_path / "none")
    assert found == TOKEN
    assert poke_token({}, tmp_path / "none") is None


class Idle:
    """A feed in which nothing ever is."""

    def next_page(self) -> MovePage:
        return MovePage((), done=True)

    def look_back(self) -> MovePage:
        raise AssertionError("nothing was missed")

    def ask_again(self, ask: Ask) -> MovePage:
        raise AssertionError(f"there are no gaps: {ask}")

    def newest(self, *, ahead: bool) -> MovePage:  # noqa: ARG002
        return MovePage(())


def test_a_poke_wakes_an_idle_follower_at_once() -> None:
    bench = Bench(poll_interval_s=30.0)
    pipeline = bench.pipeline(Idle())
    bench.time.at(12.0, pipeline.poke)
    bench.time.at(40.0, pipeline.stop)
    pipeline.run()
    assert bench.pages_at[:3] == pytest.approx([0.0, 12.0, 12.2], abs=0.01)
    assert bench.pages_at[-1] == pytest.approx(13.1, abs=0.15), "good for a second, then idle"


def test_a_flood_of_pokes_makes_a_bounded_number_of_looks_and_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(poll_interval_s=30.0)
    pipeline = bench.pipeline(Idle())
    poked_messages = 0
    put = bench.time.put

    def count_and_put(message: Message) -> None:
        nonlocal poked_messages
        poked_messages += isinstance(message, Poked)
        put(message)

    monkeypatch.setattr(bench.time, "put", count_and_put)
    for number in range(500):
        bench.time.at(1.0 + number / 100, pipeline.poke)
    bench.time.at(20.0, pipeline.stop)
    pipeline.run()
    looks_max = (5.0 + POKE_GOOD_S) / POKED_LOOK_GAP_S + 2
    assert 20 <= len(bench.pages_at) <= looks_max
    assert poked_messages <= looks_max
    assert bench.pages_at[-1] >= 6.0, "the last poke is answered too"


class Clock:
    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


def test_guesses_are_slowed_by_address_and_the_others_are_served() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    looked_at = 0
    for _ in range(100):
        if guesses.wait_s("10.0.0.1") == 0:
            guesses.wrong("10.0.0.1")
            looked_at += 1
    assert looked_at == GUESSES_AT_ONCE
    assert guesses.wait_s("10.0.0.1") > 0
    assert guesses.wait_s("10.0.0.2") == 0
    for _ in range(50):
        clock.s += GUESS_EVERY_S
        assert guesses.wait_s("10.0.0.1") == 0, "one more each second"
        guesses.wrong("10.0.0.1")
        assert guesses.wait_s("10.0.0.1") > 0
    clock.s += 1_000
    for _ in range(GUESSES_AT_ONCE):
        assert guesses.wait_s("10.0.0.1") == 0, "and all of it after a while"
        guesses.wrong("10.0.0.1")


def test_the_memory_of_guesses_is_bounded() -> None:
    guesses = Guesses(Clock())
    for number in range(3 * ADDRESSES_MAX):
        guesses.wrong(f"10.0.{number // 250}.{number % 250}")
    assert len(guesses) == ADDRESSES_MAX


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("fd00::1", "fd00::ffff", True),
        ("fd00::1", "fd00:0:0:1::1", False),
        ("", "no address", True),
    ],
)
def test_who_counts_as_one_sender(one: str, other: str, same: bool) -> None:
    assert (sender_of(one) == sender_of(other)) == same


def test_a_flood_of_guesses_is_answered_at_once_and_learns_nothing(poked: Monitored) -> None:
    answers = [poked.ask(headers={"Authorization": f"Bearer {n:030}"}) for n in range(30)]
    statuses = [status for status, _ in answers]
    assert statuses[:GUESSES_AT_ONCE] == [401] * GUESSES_AT_ONCE
    assert set(statuses) == {401, 202}
    counted = poked.counted()
    assert counted["refused"] + counted["slowed"] == 30
    assert counted["accepted"] == 0
    assert set(answers[GUESSES_AT_ONCE:]) <= {(202, "ok\n"), (401, "not the token\n")}
    assert poked.woken == 0


def test_the_token_is_heard_at_once_from_where_others_guess(poked: Monitored) -> None:
    """Behind a proxy all senders have one address. Orthanc's script keeps silent for a minute
    after an answer that is not "ok".
    """
    for number in range(60):
        poked.ask(headers={"Authorization": f"Bearer {number:030}"})
        if number % 20 == 19:
            assert poked.ask(headers=RIGHT) == (202, "ok\n")
    assert poked.woken == 3
    counted = poked.counted()
    assert counted["accepted"] <= 1, "a guess that is right cannot be seen in the metric"
    assert sum(counted.values()) == 63
