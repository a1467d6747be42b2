"""What is seen of tasks, and what the number of transfers becomes by it."""

from __future__ import annotations

from bridge.worker.transfers import Transfers
from bridge.worker.transfers_policy import SLACK_S


class Run:
    """Tasks that end, at the rate that waiting for a server allows."""

    def __init__(self, transfers: Transfers, trip_s: float) -> None:
        self.transfers, self.trip_s = transfers, trip_s
        self.now_s = 100.0

    def go_on(self, seconds: float, *, failed: bool = False, waits: float = 0.9) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += self.trip_s / self.transfers.size
            self.transfers.note(
                self.now_s, in_hand_s=self.trip_s, waited_s=waits * self.trip_s, failed=failed
            )
            self.transfers.decide(self.now_s, under_way=self.transfers.size)


def test_it_grows_while_the_rate_does_up_to_the_most() -> None:
    transfers = Transfers(4, 32)
    Run(transfers, trip_s=0.1).go_on(20.0)
    assert transfers.size == 32
    assert not transfers.settled
    assert transfers.most == 32


def test_bounds_that_are_the_same_leave_nothing_to_find() -> None:
    transfers = Transfers(4, 4)
    Run(transfers, trip_s=0.1).go_on(20.0)
    assert transfers.size == 4
    assert transfers.settled
    assert transfers.most == 0, "it is given, not found"


def test_more_workers_than_transfers_are_the_bound() -> None:
    transfers = Transfers(8, 2)
    Run(transfers, trip_s=0.1).go_on(20.0)
    assert transfers.size == 8


def test_where_processors_are_busy_it_stays() -> None:
    transfers = Transfers(4, 32)
    Run(transfers, trip_s=0.1).go_on(20.0, waits=0.1)
    assert transfers.size == 4


def test_a_server_that_fails_is_not_asked_for_more() -> None:
    transfers = Transfers(4, 32)
    Run(transfers, trip_s=0.1).go_on(20.0, failed=True)
    assert transfers.size == 4


def test_what_began_before_a_step_says_nothing_of_it() -> None:
    transfers = Transfers(4, 32)
    run = Run(transfers, trip_s=0.1)
    while transfers.size == 4:
        run.go_on(0.01)
    for _ in range(4):
        transfers.note(run.now_s, in_hand_s=0.1, waited_s=0.0, failed=True)
    assert transfers.size == 6
    run.go_on(1.5)
    assert transfers.size > 6


def _wait(transfers: Transfers, from_s: float, seconds: float, *, under_way: int) -> None:
    """Nothing ends; the pool looks twice a second."""
    for half in range(1, int(2 * seconds) + 1):
        transfers.decide(from_s + half / 2, under_way=under_way)


def test_it_shrinks_when_there_is_nothing_to_do_and_not_in_a_pause() -> None:
    transfers = Transfers(4, 32)
    run = Run(transfers, trip_s=0.1)
    run.go_on(20.0)
    _wait(transfers, run.now_s, SLACK_S - 2.0, under_way=0)
    assert transfers.size == 32, "a pause in the feed is nothing"
    run.now_s += SLACK_S - 2.0
    run.go_on(2.0)
    _wait(transfers, run.now_s, SLACK_S - 2.0, under_way=0)
    assert transfers.size == 32, "nor are two"
    _wait(transfers, run.now_s + SLACK_S - 2.0, 4.0, under_way=0)
    assert transfers.settled


def test_what_takes_long_is_not_taken_for_nothing_to_do() -> None:
    """Large instances: none has ended for a while, and all are in hand."""
    transfers = Transfers(4, 32)
    run = Run(transfers, trip_s=0.1)
    run.go_on(20.0)
    _wait(transfers, run.now_s, 100.0, under_way=32)
    assert transfers.size == 32
