"""Inbox and background: messages from threads and signal handlers, errors that are not lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable

import pytest

from bridge.errors import SourceError
from bridge.feed.pages import MovePage
from bridge.model import Endpoint, Job, Move, Reason, SideName, SideProblem, Skipped, Task
from bridge.pipeline import runtime
from bridge.pipeline.runtime import (
    Answered,
    Message,
    QueueInbox,
    StopAsked,
    SystemClock,
    TaskDone,
    ThreadBackground,
)

WAIT_S = 10.0


def test_an_inbox_gives_everything_once_and_in_order() -> None:
    inbox = QueueInbox()
    for number in range(3):
        inbox.put(Answered(str(number)))
    assert [m.name for m in inbox.take(0.0) if isinstance(m, Answered)] == ["0", "1", "2"]
    assert inbox.take(0.0) == []


def test_an_inbox_gives_no_more_at_once_than_its_bound() -> None:
    inbox = QueueInbox()
    for _ in range(QueueInbox.TAKE_MAX + 5):
        inbox.put(StopAsked())
    assert len(inbox.take(0.0)) == QueueInbox.TAKE_MAX
    assert len(inbox.take(0.0)) == 5


def test_waiting_ends_with_a_message_from_another_thread() -> None:
    inbox = QueueInbox()
    threading.Timer(0.05, lambda: inbox.put(StopAsked())).start()
    begun = time.monotonic()
    assert inbox.take(WAIT_S) == [StopAsked()]
    assert time.monotonic() - begun < WAIT_S / 2


def test_waiting_ends_with_a_message_from_a_signal_handler() -> None:
    inbox = QueueInbox()
    before = signal.signal(signal.SIGUSR1, lambda *_: inbox.put(StopAsked()))
    try:
        threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        assert inbox.take(WAIT_S) == [StopAsked()]
    finally:
        signal.signal(signal.SIGUSR1, before)


def _done(number: int) -> TaskDone:
    endpoint = Endpoint(SideName.SOURCE, "http://127.0.0.1:1")
    job = Job(endpoint, endpoint, "1.2.840.10008.1.2.1")
    return TaskDone(Task(Move(f"i{number}"), job, number), Skipped(Reason.GONE))


def _put_all(inbox: QueueInbox, messages: Iterable[Message]) -> None:
    for message in messages:
        inbox.put(message)


def test_ends_of_tasks_wait_for_each_other_until_there_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "LINGER_S", WAIT_S)
    inbox = QueueInbox()
    ends = [_done(number) for number in range(3)]
    inbox.put(ends[0])
    threading.Timer(0.05, _put_all, (inbox, ends[1:])).start()
    begun = time.monotonic()
    assert inbox.take(WAIT_S, enough=3) == ends
    assert time.monotonic() - begun < WAIT_S / 2


def test_fewer_than_enough_do_not_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "LINGER_S", 0.05)
    inbox = QueueInbox()
    inbox.put(_done(1))
    begun = time.monotonic()
    assert inbox.take(WAIT_S, enough=3) == [_done(1)]
    assert 0.05 <= time.monotonic() - begun < WAIT_S / 2


def test_the_first_end_after_a_quiet_while_wakes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "LINGER_S", 0.01)
    inbox = QueueInbox()
    threading.Timer(0.1, lambda: inbox.put(_done(1))).start()
    begun = time.monotonic()
    assert inbox.take(WAIT_S, enough=3) == [_done(1)]
    assert time.monotonic() - begun < WAIT_S / 2


def test_other_messages_never_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "LINGER_S", WAIT_S)
    inbox = QueueInbox()
    inbox.put(_done(1))
    threading.Timer(0.05, lambda: inbox.put(StopAsked())).start()
    begun = time.monotonic()
    assert inbox.take(WAIT_S, enough=3) == [_done(1), StopAsked()]
    inbox.put(StopAsked())
    inbox.put(_done(2))
    assert inbox.take(WAIT_S, enough=3) == [StopAsked(), _done(2)]
    assert time.monotonic() - begun < WAIT_S / 2


def test_nothing_is_lost_between_threads_that_put_and_one_that_takes() -> None:
    inbox = QueueInbox()
    ends = [_done(number) for number in range(2000)]
    threads = [threading.Thread(target=_put_all, args=(inbox, ends[k::4])) for k in range(4)]
    for thread in threads:
        thread.start()
    taken: list[int] = []
    begun = time.monotonic()
    while len(taken) < len(ends) and time.monotonic() - begun < WAIT_S:
        taken += [m.task.number for m in inbox.take(1.0, enough=5) if isinstance(m, TaskDone)]
    assert sorted(taken) == [*range(len(ends))]
    for thread in threads:
        thread.join(WAIT_S)


def test_a_background_call_answers_with_its_value_or_its_error() -> None:
    inbox = QueueInbox()
    background = ThreadBackground(inbox)
    page = MovePage((), done=True)
    background.call("feed", lambda: page)
    assert inbox.take(WAIT_S) == [Answered("feed", value=page)]
    error = SourceError(SideProblem.UNREACHABLE, "down")

    def fail() -> MovePage:
        raise error

    background.call("feed", fail)
    assert inbox.take(WAIT_S) == [Answered("feed", error=error)]
    background.close()


def test_a_bug_in_a_background_call_reaches_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: said.append(told.exc_type))
    inbox = QueueInbox()
    background = ThreadBackground(inbox)

    gate = threading.Event()

    def fail() -> MovePage:
        gate.wait(WAIT_S)
        raise ZeroDivisionError

    background.call("bug-test", fail)
    (worker,) = [t for t in threading.enumerate() if t.name == "bug-test"]
    gate.set()
    (answer,) = inbox.take(WAIT_S)
    assert isinstance(answer, Answered)
    assert isinstance(answer.error, ZeroDivisionError)
    background.close()
    worker.join(WAIT_S)
    assert said == [ZeroDivisionError]


def test_calls_of_one_kind_do_not_overlap_and_kinds_do_not_wait_for_each_other() -> None:
    inbox = QueueInbox()
    background = ThreadBackground(inbox)
    gate = threading.Event()
    begun = threading.Event()
    running: list[str] = []

    def slow() -> None:
        running.append("slow")
        begun.set()
        gate.wait(WAIT_S)

    background.call("a", slow)
    background.call("a", slow)
    background.call("b", lambda: None)
    assert inbox.take(WAIT_S) == [Answered("b")]
    assert begun.wait(WAIT_S)
    assert running == ["slow"]
    gate.set()
    answers = [*inbox.take(WAIT_S)]
    while len(answers) < 2:
        answers += inbox.take(WAIT_S)
    assert answers == [Answered("a")] * 2
    background.close()


def test_a_closed_background_leaves_no_thread() -> None:
    inbox = QueueInbox()
    background = ThreadBackground(inbox)
    background.call("closing-test", lambda: None)
    inbox.take(WAIT_S)
    (worker,) = [t for t in threading.enumerate() if t.name == "closing-test"]
    assert worker.daemon, "a call that hangs must not keep the process alive"
    background.close()
    worker.join(WAIT_S)
    assert not worker.is_alive()


def test_the_clocks() -> None:
    clock = SystemClock()
    assert abs(clock.now_s() - time.time()) < 5
    assert clock.steady_s() <= clock.steady_s()
