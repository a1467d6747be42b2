"""Ctrl-C: the end that surely comes, whatever waits, and the stop that no lock can hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from bridge.commands.lifecycle import draining_on_signals
from bridge.errors import EXIT_INTERRUPTED
from tests.bridge_process import wait_until

COMMAND = """
import signal, sys, threading
# A pytest in the background has it ignored, and what it starts inherits that.
signal.signal(signal.SIGINT, signal.{disposition})
import bridge.__main__ as command_line
import bridge.cli

HELD = threading.Lock()
HELD.acquire()
command_line.END_WITHIN_S = {end_within_s}

def command():
    try:
        print("ready", flush=True)
        threading.Event().wait()
    finally:
        {cleaning}

def run_command_line():
    threading.Thread(target=HELD.acquire, daemon={daemon}).start()
    try:
        command()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\\n")
        sys.exit({code})

bridge.cli.run_command_line = run_command_line
command_line.main()
"""


def _interrupted(
    *,
    cleaning: str = "pass",
    daemon: bool = True,
    code: int = EXIT_INTERRUPTED,
    disposition: str = "default_int_handler",
    end_within_s: int = 1,
) -> subprocess.Popen[str]:
    """Start a command, and press Ctrl-C when it works."""
    script = COMMAND.format(
        cleaning=cleaning,
        daemon=daemon,
        code=code,
        disposition=disposition,
        end_within_s=end_within_s,
    )
    started = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    os.killpg(started.pid, signal.SIGINT)
    return started


@pytest.mark.parametrize("code", [EXIT_INTERRUPTED, 0])
def test_a_thread_that_waits_for_ever_does_not_hold_the_end(code: int) -> None:
    """Fails (by time) when the end joins the threads: one may have been cut off for good."""
    ended = _interrupted(daemon=False, code=code, end_within_s=600)
    said = ended.communicate(timeout=30)[1]
    assert (ended.returncode, said) == (code, "interrupted\n")


def test_cleaning_that_waits_for_ever_is_ended() -> None:
    """Fails (by time) without the alarm."""
    ended = _interrupted(cleaning="HELD.acquire()")
    ended.communicate(timeout=30)
    assert ended.returncode == EXIT_INTERRUPTED


def test_where_it_is_ignored_it_stays_ignored() -> None:
    started = _interrupted(disposition="SIG_IGN")
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(0.3)
    started.kill()
    started.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_may_take_a_lock_that_the_main_thread_holds(number: signal.Signals) -> None:
    """Fails (by time) when the handler calls ``stop``: it interrupts whoever holds the lock."""
    lock, stopped = threading.Lock(), threading.Event()

    def stop() -> None:
        with lock:
            stopped.set()

    with draining_on_signals(stop) as interruption:
        with lock:
            os.kill(os.getpid(), number)
            wait_until(lambda: interruption.signal_number is not None, "the handler runs")
        assert stopped.wait(10)
    assert interruption.signal_number == number
    assert interruption.by_keyboard == (number == signal.SIGINT)


def test_without_a_signal_nothing_is_stopped() -> None:
    stopped = threading.Event()
    threads = threading.active_count()
    with draining_on_signals(stopped.set) as interruption:
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert not stopped.is_set()
    assert interruption.signal_number is None
