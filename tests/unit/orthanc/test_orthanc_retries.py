"""Retries and deadlines of the client, against a server that misbehaves on purpose."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from bridge.errors import SideError
from bridge.model import SideName, SideProblem
from bridge.orthanc import OrthancClient, RetryPolicy
from bridge.orthanc.transport import Transport
from tests.dicom_samples import small_ct
from tests.fake_orthanc import Drip, FakeOrthanc, Hang, HangUp, Respond

Make = Callable[..., OrthancClient]
UNAVAILABLE = Respond(503)


def failure(call: Callable[[], object]) -> SideError:
    with pytest.raises(SideError) as caught:
        call()
    return caught.value


def ignore(_chunk: bytes) -> None:
    """Throw a chunk away."""


class TestRetries:
    @pytest.mark.parametrize("passing", [Respond(502), UNAVAILABLE, Respond(504), HangUp()])
    def test_a_get_is_repeated_over_a_passing_fault(
        self, fake: FakeOrthanc, source: OrthancClient, passing: Respond | HangUp
    ) -> None:
        fake.script("GET /system", passing, times=2)
        assert source.system().name == "fake"
        assert len(fake.requests) == 3

    def test_and_then_given_up(self, fake: FakeOrthanc, source: OrthancClient) -> None:
        fake.script("GET /system", UNAVAILABLE)
        error = failure(source.system)
        assert error.problem is SideProblem.SERVER_ERROR
        assert len(fake.requests) == RetryPolicy().attempts_max

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 429, 500, 507])
    def test_other_statuses_are_not_repeated(
        self, fake: FakeOrthanc, source: OrthancClient, status: int
    ) -> None:
        fake.script("GET /system", Respond(status))
        failure(source.system)
        assert len(fake.requests) == 1

    @pytest.mark.parametrize("passing", [UNAVAILABLE, HangUp(), HangUp(worked=True)])
    def test_a_post_that_may_have_worked_is_not_repeated(
        self, fake: FakeOrthanc, target: OrthancClient, passing: Respond | HangUp
    ) -> None:
        fake.script("POST /instances", passing)
        failure(lambda: target.store(small_ct(), deadline_s=5))
        assert fake.requests.count("POST /instances") == 1

    def test_a_post_on_a_kept_connection_that_was_dropped_is_repeated(
        self, fake: FakeOrthanc, target: OrthancClient
    ) -> None:
        target.system()
        fake.script("POST /instances", HangUp(), times=1)
        assert target.store(small_ct(), deadline_s=5).status == "Success"
        assert fake.connections == 2

    def test_an_iterator_cannot_be_sent_twice(
        self, fake: FakeOrthanc, target: OrthancClient
    ) -> None:
        target.system()
        fake.script("POST /instances", HangUp(), times=1)
        error = failure(lambda: target.store(iter([small_ct()]), deadline_s=5))
        assert error.problem is SideProblem.UNREACHABLE

    def test_a_list_of_pieces_can(self, fake: FakeOrthanc, target: OrthancClient) -> None:
        data = small_ct()
        target.system()
        fake.script("POST /instances", HangUp(), times=1)
        answer = target.store([data[:50], data[50:]], body_bytes=len(data), deadline_s=5)
        assert answer.status == "Success"

    def test_a_refused_connection_is_tried_again(self, client_of: Make) -> None:
        fake = FakeOrthanc()
        fake.start()
        fake.stop()
        client = client_of(
            fake.url, retries=RetryPolicy(attempts_max=500, first_wait_s=0.01, wait_s_max=0.02)
        )
        threading.Timer(0.1, fake.start).start()
        assert client.store(small_ct(), deadline_s=5).status == "Success"
        fake.stop()

    def test_waiting_is_bounded(self, client_of: Make) -> None:
        fake = FakeOrthanc()
        fake.start()
        fake.stop()
        policy = RetryPolicy(attempts_max=100, total_s=0.3, first_wait_s=0.05, wait_s_max=0.1)
        begun = time.monotonic()
        error = failure(client_of(fake.url, SideName.TARGET, retries=policy).system)
        assert error.problem is SideProblem.UNREACHABLE
        assert time.monotonic() - begun < 1
        assert str(fake.url) in error.message

    def test_a_first_attempt_that_took_all_the_time_is_the_only_one(
        self, fake: FakeOrthanc, client_of: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send = Transport.handle_request

        def slowly(transport: Transport, request: httpx.Request) -> httpx.Response:
            time.sleep(0.15)  # longer than all attempts may take: the clock is the test
            return send(transport, request)

        monkeypatch.setattr(Transport, "handle_request", slowly)
        fake.script("GET /system", UNAVAILABLE)
        client = client_of(fake.url, retries=RetryPolicy(total_s=0.1, waits=False))
        failure(client.system)
        assert len(fake.requests) == 1

    def test_no_connection_is_used_after_orthanc_would_have_closed_it(
        self, fake: FakeOrthanc, source: OrthancClient
    ) -> None:
        source.system()
        source.system()
        assert fake.connections == 1
        time.sleep(0.8)  # longer than we keep one, shorter than Orthanc does: the clock is the test
        source.system()
        assert fake.connections == 2


class TestDeadlines:
    def test_a_server_that_never_answers(self, fake: FakeOrthanc, client_of: Make) -> None:
        fake.script("", Hang())
        client = client_of(fake.url, SideName.TARGET, timeout_s=0.2)
        error = failure(client.system)
        assert error.problem is SideProblem.TIMED_OUT
        assert "BRIDGE_HTTP_TIMEOUT_S" in error.advice
        assert len(fake.requests) == 1

    @pytest.mark.parametrize(
        "call",
        [
            lambda client, i: client.fetch_instance(i, ignore, deadline_s=0.3),
            lambda client, i: client.stored_md5(i),
        ],
        ids=["file", "md5"],
    )
    def test_a_slow_drip(
        self,
        fake: FakeOrthanc,
        client_of: Make,
        call: Callable[[OrthancClient, str], object],
    ) -> None:
        instance_id = fake.put(small_ct())
        fake.script("GET /instances", Drip(interval_s=0.05))
        client = client_of(fake.url, timeout_s=0.2)
        begun = time.monotonic()
        error = failure(lambda: call(client, instance_id))
        assert error.problem is SideProblem.TIMED_OUT
        assert "whole transfer" in error.message
        assert time.monotonic() - begun < 2

    def test_a_drip_of_headers(self, client_of: Make) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ended = threading.Event()

            def drip() -> None:
                connection, _address = listener.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    while not ended.wait(0.02):
                        connection.sendall(b"x")

            thread = threading.Thread(target=drip)
            thread.start()
            client = client_of(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.2)
            error = failure(client.system)
            ended.set()
            thread.join()
        assert error.problem is SideProblem.TIMED_OUT

    def test_a_server_that_stops_reading(self, client_of: Make) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = client_of(
                f"http://127.0.0.1:{listener.getsockname()[1]}", SideName.TARGET, timeout_s=30
            )
            begun = time.monotonic()
            body = bytes(32 * 1024 * 1024)
            error = failure(lambda: client.store(body, deadline_s=0.3))
        assert error.problem is SideProblem.TIMED_OUT
        assert time.monotonic() - begun < 3

    def test_an_inner_call_does_not_extend_the_outer_deadline(
        self, fake: FakeOrthanc, source: OrthancClient
    ) -> None:
        instance_id = fake.put(small_ct(rows=600, columns=600))
        fake.script("GET /instances/.*/file", Drip(interval_s=0.01))
        with source.open_instance(instance_id, deadline_s=0.3) as body:
            assert source.system().name == "fake"
            assert failure(lambda: list(body.chunks)).problem is SideProblem.TIMED_OUT

    def test_without_a_deadline_only_silence_ends_it(
        self, fake: FakeOrthanc, client_of: Make
    ) -> None:
        data = small_ct(rows=4, columns=4)
        instance_id = fake.put(data)
        fake.script("GET /instances", Drip(interval_s=0.0005))
        client = client_of(fake.url, timeout_s=0.3)
        assert client.fetch_instance(instance_id, ignore, deadline_s=None) == len(data)
