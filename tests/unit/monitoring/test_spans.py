"""Spans of a move: their tree, what they tell, and what a collector that misbehaves changes."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from bridge.events import InstanceParked, MoveTimes, Progress, Settled
from bridge.model import Action, Delivered, Move, Outcome, Reason, Skipped, StageTimes
from bridge.monitoring import span_sender
from bridge.monitoring.span_sender import BATCH_MAX, SpanSender
from bridge.monitoring.spans import MoveSpan, otlp_json, spans_of
from bridge.orthanc.trace_context import context_of, trace_headers, traced
from tests.bridge_process import wait_until
from tests.event_receiver import EventReceiver

ROW_AT = 1_700_000_000.0
ROW = "20231114T221320"
STAGES = StageTimes(0.5, 1.0, 0.25, 0.125)
RUN = "run"
TRACE, SPAN = "0123456789abcdef" * 2, "fedcba9876543210"


def delivered(source_syntax: str = "1.2.840.10008.1.2.4.90") -> Delivered:
    return Delivered(
        status="Success",
        action=Action.TRANSCODED,
        source_syntax=source_syntax,
        target_syntax="1.2.840.10008.1.2.1",
        sop_instance_uid="1.2.3",
        source_bytes=1000,
        target_bytes=2000,
        stages=STAGES,
    )


def settled(outcome: Outcome | None = None, *, changed_at: str = ROW, number: int = 7) -> Settled:
    times = MoveTimes(ROW_AT + 2, ROW_AT + 5, number)
    return Settled(Move("an-id", 42, changed_at), outcome or delivered(), 2, times=times)


def by_name(spans: tuple[MoveSpan, ...]) -> dict[str, MoveSpan]:
    named = {span.name: span for span in spans}
    assert len(named) == len(spans)
    return named


def test_a_delivered_instance_is_a_tree_of_eight_spans() -> None:
    spans = by_name(spans_of(settled(), ended_at=ROW_AT + 10, trace_id=TRACE, span_id=SPAN))
    tree = {
        name: next((n for n, s in spans.items() if s.span_id == span.parent_id), "")
        for name, span in spans.items()
    }
    assert tree == {"move": "", "feed": "move", "queue": "move", "work": "move"} | dict.fromkeys(
        ("fetch", "transcode", "deliver", "prove"), "work"
    )
    assert {span.trace_id for span in spans.values()} == {TRACE}
    assert len({span.span_id for span in spans.values()}) == len(spans)
    times = {name: (s.begin_at - ROW_AT, s.end_at - ROW_AT) for name, s in spans.items()}
    assert times == {
        "move": (0, 10),
        "feed": (0, 2),
        "queue": (2, 5),
        "work": (5, 10),
        "fetch": (8.125, 8.625),
        "transcode": (8.625, 9.625),
        "deliver": (9.625, 9.875),
        "prove": (9.875, 10),
    }
    assert dict(spans["move"].attributes) == {
        "orthanc.instance": "an-id",
        "orthanc.sequence": 42,
        "bridge.outcome": "delivered",
        "bridge.attempts": 2,
        "bridge.source_syntax": "1.2.840.10008.1.2.4.90",
        "bridge.target_syntax": "1.2.840.10008.1.2.1",
        "bridge.source_bytes": 1000,
        "bridge.target_bytes": 2000,
    }
    assert not any(span.failed for span in spans.values())


def test_what_is_parked_or_skipped_has_no_stages_and_no_message() -> None:
    """Fails when the message is told: it is ours, but it may quote what a server said."""
    parked = InstanceParked(
        Move("i", None), Reason.UNDECODABLE, "Doe^John", 3, "9.9.9", times=MoveTimes(1.0, 2.0, 1)
    )
    spans = by_name(spans_of(parked, ended_at=3.0, trace_id=TRACE, span_id=SPAN))
    assert set(spans) == {"move", "queue", "work"}
    assert spans["move"].failed
    assert dict(spans["move"].attributes) == {
        "orthanc.instance": "i",
        "bridge.outcome": "parked",
        "bridge.reason": "undecodable",
        "bridge.attempts": 3,
        "bridge.source_syntax": "other",
    }
    gone = by_name(
        spans_of(
            settled(Skipped(Reason.GONE, "x")), ended_at=ROW_AT + 6, trace_id=TRACE, span_id=SPAN
        )
    )
    assert set(gone) == {"move", "feed", "queue", "work"}
    assert not gone["move"].failed
    assert gone["move"].attributes["bridge.reason"] == "gone"


@pytest.mark.parametrize("changed_at", ["", "nonsense", "20231112T221320", "20991114T221320"])
def test_a_row_without_a_time_of_use_has_no_span(changed_at: str) -> None:
    spans = by_name(
        spans_of(settled(changed_at=changed_at), ended_at=ROW_AT + 10, trace_id=TRACE, span_id=SPAN)
    )
    assert "feed" not in spans
    assert spans["move"].begin_at == ROW_AT + 2


def test_no_span_ends_before_it_begins_whatever_the_clocks_say() -> None:
    for ended in (0.0, ROW_AT - 1, ROW_AT + 3, ROW_AT + 5.5):
        for event in (settled(), Settled(Move("i"), delivered(), 1)):
            for span in spans_of(event, ended_at=ended, trace_id=TRACE, span_id=SPAN):
                assert span.begin_at <= span.end_at <= ended


def test_a_task_has_a_trace_of_its_own() -> None:
    contexts = {
        context_of(run, instance, number).header
        for run in ("a", "b")
        for instance in ("i", "j")
        for number in (1, 2)
    }
    assert len(contexts) == 8
    assert all(len(header) == 55 and header.startswith("00-") for header in contexts)


def test_a_request_tells_its_trace_inside_the_block_only() -> None:
    context = context_of(RUN, "i", 1)
    with traced(context):
        assert trace_headers() == (("traceparent", context.header),)
        with traced(None):
            assert trace_headers() == ()
    assert trace_headers() == ()


def test_the_json_is_that_of_otlp() -> None:
    """The field names and forms of opentelemetry-proto's JSON mapping: hex IDs, texts for int64."""
    spans = spans_of(settled(), ended_at=ROW_AT + 10, trace_id=TRACE, span_id=SPAN)
    (resource,) = json.loads(otlp_json(spans, {"service.name": "b"}))["resourceSpans"]
    assert resource["resource"] == {
        "attributes": [{"key": "service.name", "value": {"stringValue": "b"}}]
    }
    (scope,) = resource["scopeSpans"]
    told = {span["name"]: span for span in scope["spans"]}
    assert told["move"]["startTimeUnixNano"] == "1700000000000000000"
    assert "parentSpanId" not in told["move"]
    assert told["fetch"]["parentSpanId"] == told["work"]["spanId"]
    assert {"key": "orthanc.sequence", "value": {"intValue": "42"}} in told["move"]["attributes"]
    assert (len(told["move"]["traceId"]), len(told["move"]["spanId"])) == (32, 16)


class Counts(Counter[str]):
    """What the sender has counted, from two threads."""

    lock = threading.Lock()

    def note(self, result: str, moves: int) -> None:
        with self.lock:
            self[result] += moves


@contextmanager
def sender(url: str, counts: Counts) -> Iterator[SpanSender]:
    with SpanSender(url, run=RUN, resource={"service.name": "b"}, count=counts.note) as running:
        running.on_progress(Progress())
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_sender, "EVERY_S", 0.02)
    monkeypatch.setattr(span_sender, "PAUSE_S", 0.02)
    monkeypatch.setattr(span_sender, "DEADLINE_S", 1.0)


def instances(receiver: EventReceiver) -> list[str]:
    """Of the traces that were received, the instances in order."""
    found = []
    for post in receiver.posts:
        for span in json.loads(post.body)["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            told: Mapping[str, Any] = {a["key"]: a["value"] for a in span["attributes"]}
            if span["name"] == "move":
                found.append(told["orthanc.instance"]["stringValue"])
    return found


def test_a_collector_that_is_up_gets_each_move_once() -> None:
    counts, count = Counts(), 3 * BATCH_MAX + 1
    with EventReceiver() as receiver, sender(f"{receiver.url}/v1/traces", counts) as spans:
        for number in range(count):
            spans.on_event(Settled(Move(f"i{number}"), delivered(), 1))
        wait_until(lambda: counts["sent"] == count, "all are sent")
        assert instances(receiver) == [f"i{number}" for number in range(count)]
        assert {post.path for post in receiver.posts} == {"/v1/traces"}
        assert {post.headers["content-type"] for post in receiver.posts} == {"application/json"}
    assert counts == {"sent": count}


def test_what_is_left_at_the_end_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_sender, "EVERY_S", 3600.0)
    counts = Counts()
    with EventReceiver() as receiver:
        with sender(receiver.url, counts) as spans:
            spans.on_event(settled())
        assert instances(receiver) == ["an-id"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_collector_that_is_busy_gets_them_later(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = Counts()
    with EventReceiver() as receiver, sender(receiver.url, counts) as spans:
        receiver.status = status
        spans.on_event(settled())
        wait_until(lambda: len(receiver.posts) >= 3, "it was asked again")
        receiver.status = 200
        wait_until(lambda: counts["sent"] == 1, "it is sent")
    assert counts == {"sent": 1}
    assert capsys.readouterr().err.count("traces_failed") <= 1, "one outage is one line"


@pytest.mark.parametrize("status", [400, 401, 404, 302, 307, 500])
def test_what_a_collector_does_not_want_is_dropped_and_nobody_else_is_asked(status: int) -> None:
    """Fails when a redirect is followed: the spans would go to whoever the collector names."""
    counts = Counts()
    with EventReceiver() as receiver, sender(receiver.url, counts) as spans:
        receiver.status = status
        spans.on_event(settled())
        wait_until(lambda: counts["dropped"] == 1, "it is dropped")
        receiver.status = 200
        spans.on_event(settled(number=8))
        wait_until(lambda: counts["sent"] == 1, "the next one is sent")
        assert len(receiver.posts) == 2
        assert not [post for post in receiver.posts if "elsewhere" in post.path]


def test_a_collector_that_lies_or_never_ends_is_believed_by_its_status_alone() -> None:
    counts = Counts()
    with EventReceiver() as receiver, sender(receiver.url, counts) as spans:
        receiver.answer = b'{"partialSuccess": {"rejectedSpans": "999999999999"}} \xff\x00{'
        spans.on_event(settled())
        wait_until(lambda: counts["sent"] == 1, "garbage in the body")
        receiver.endless = True
        spans.on_event(settled(number=8))
        wait_until(lambda: counts["sent"] == 2, "a body without end")


@pytest.mark.parametrize("how", ["down", "hangs"])
def test_a_collector_that_is_down_delays_nobody_and_fills_no_memory(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails without the bound of the queue, or when whoever tells an event waits for the answer."""
    monkeypatch.setattr(span_sender, "QUEUE_MAX", 50)
    monkeypatch.setattr(span_sender, "DEADLINE_S", 60.0)
    counts = Counts()
    with EventReceiver() as receiver:
        url = receiver.url
        if how == "hangs":
            receiver.hangs.set()
        else:
            receiver._server.server_close()
        with sender(url, counts) as spans:
            for number in range(1000):
                spans.on_event(settled(number=number))
            assert counts["sent"] == 0, "nobody has waited for an answer"
            assert len(spans._waiting) <= 50
            assert counts["dropped"] >= 950
            left_s = time.monotonic()
        assert time.monotonic() - left_s < 30, "a stop does not wait for an answer either"
        receiver.hangs.clear()
