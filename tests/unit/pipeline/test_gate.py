from __future__ import annotations

import itertools

import pytest

from bridge.model import SideFailed, SideName, SideProblem
from bridge.pipeline.gate import HURRY_GAP_S, HURRY_LONGEST_S, Gate, GateState

DOWN = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "refused")


def _gate() -> Gate:
    return Gate(SideName.TARGET, pause_first_s=0.2, pause_longest_s=1.0)


def _open_gate() -> Gate:
    gate = _gate()
    gate.probe_succeeded(now_s=0.0)
    gate.served()
    return gate


def test_a_server_is_not_believed_in_before_it_was_asked() -> None:
    gate = _gate()
    assert gate.state is GateState.CLOSED
    assert gate.probe_due(0.0)
    assert not gate.allows(0)


def test_an_outage_closes_it_until_a_probe_and_a_served_instance() -> None:
    gate = _open_gate()
    assert gate.allows(100)
    assert gate.fail(DOWN, now_s=10.0, chance=1.0)
    assert not gate.allows(0)
    assert not gate.probe_due(10.1)
    assert gate.probe_due(10.2)
    gate.probe_succeeded(now_s=0.0)
    assert gate.allows(0)
    assert not gate.allows(1)
    assert gate.served()
    assert gate.allows(100)
    assert gate.closed_at_s is None


def test_the_instances_that_were_in_flight_do_not_lengthen_the_pause() -> None:
    gate = _open_gate()
    assert gate.fail(DOWN, now_s=10.0, chance=1.0)
    assert not gate.fail(DOWN, now_s=10.1, chance=1.0)
    assert gate.probe_at_s == 10.2


def test_pauses_grow_to_their_limit_and_the_outage_keeps_its_beginning() -> None:
    gate = _open_gate()
    gate.fail(DOWN, now_s=0.0, chance=1.0)
    pauses, now_s = [], 0.0
    for _ in range(6):
        pauses.append(round(gate.probe_at_s - now_s, 6))
        now_s = gate.probe_at_s
        gate.probe_failed(DOWN, now_s=now_s, chance=1.0)
    assert pauses == [0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert gate.closed_at_s == 0.0


def test_a_failed_trial_goes_on_with_the_longer_pause() -> None:
    gate = _open_gate()
    gate.fail(DOWN, now_s=0.0, chance=1.0)
    gate.probe_succeeded(now_s=0.0)
    assert gate.fail(DOWN, now_s=1.0, chance=1.0)
    assert gate.probe_at_s == 1.4
    assert gate.closed_at_s == 0.0


def test_an_answer_from_before_the_failure_does_not_open_it() -> None:
    gate = _open_gate()
    gate.fail(DOWN, now_s=0.0, chance=1.0)
    assert not gate.served()
    assert gate.state is GateState.CLOSED


def test_what_answers_probes_and_fails_at_work_is_down_on_trial_too() -> None:
    """A full storage, uploads that hang: a trial may take longer than the pauses between them."""
    gate = _open_gate()
    assert gate.usable()
    for now_s in (0.0, 1.0, 3.0):
        gate.fail(DOWN, now_s=now_s, chance=1.0)
        assert not gate.usable()
        gate.probe_succeeded(now_s=now_s + 0.5)
        assert gate.state is GateState.TRIAL
        assert not gate.usable()
    gate.served()
    assert gate.usable()


def test_what_was_silent_and_answers_again_is_up_on_trial() -> None:
    """It may stay on trial for long: during a pause nothing is there to try it with."""
    gate = _open_gate()
    gate.fail(DOWN, now_s=0.0, chance=1.0)
    gate.probe_failed(DOWN, now_s=0.5, chance=1.0)
    gate.fail(DOWN, now_s=0.6, chance=1.0)  # what was in flight fails late
    gate.probe_succeeded(now_s=1.0)
    assert gate.usable()
    gate.fail(DOWN, now_s=1.5, chance=1.0)
    gate.probe_succeeded(now_s=2.0)
    assert not gate.usable()


def _failing_at_work(*, longest_s: float, chance: float, until_s: float) -> list[float]:
    """When a server is tried that answers every probe and fails at all work."""
    gate = Gate(SideName.TARGET, pause_first_s=0.2, pause_longest_s=longest_s)
    gate.probe_succeeded(now_s=0.0)
    gate.served()
    now_s, tries = 0.0, []
    while now_s < until_s:
        tries.append(now_s)
        gate.fail(DOWN, now_s=now_s, chance=chance)
        now_s = gate.probe_at_s
        assert gate.probe_due(now_s)
        gate.probe_succeeded(now_s=now_s)
    return tries


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("longest_s", [0.2, 1.0, 60.0, 3600.0])
def test_what_cannot_succeed_costs_less_and_less_whatever_the_poll_interval(
    longest_s: float, chance: float
) -> None:
    tries = _failing_at_work(longest_s=longest_s, chance=chance, until_s=3600.0)
    assert sum(at_s < 60.0 for at_s in tries) <= 60
    assert 40 <= len(tries) <= 150
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert max(gaps) < 60.01
    for at_s, gap in zip(tries, gaps, strict=False):
        assert gap <= max(0.11 * at_s, min(longest_s, 60.0) + 0.01), at_s


def test_something_new_is_tried_at_once_and_not_more_than_once_a_second() -> None:
    gate = _open_gate()
    now_s = 0.0
    for _ in range(40):
        gate.fail(DOWN, now_s=now_s, chance=1.0)
        now_s = gate.probe_at_s
        gate.probe_succeeded(now_s=now_s)
    gate.fail(DOWN, now_s=now_s, chance=1.0)
    assert gate.probe_at_s > now_s + 5.0
    gate.hurry(now_s + 3.0)
    assert gate.probe_at_s == now_s + 3.0
    gate.probe_succeeded(now_s=now_s + 3.0)
    gate.fail(DOWN, now_s=now_s + 3.1, chance=1.0)
    gate.hurry(now_s + 3.2)
    assert gate.probe_at_s == now_s + 3.1 + 2 * HURRY_GAP_S


@pytest.mark.parametrize("every_s", [0.5, 3.0, 30.0])
def test_steady_arrivals_do_not_try_a_server_that_fails_at_all_of_them_each_second(
    every_s: float,
) -> None:
    gate = _open_gate()
    gate.fail(DOWN, now_s=0.0, chance=1.0)
    now_s, tries = 0.0, []
    while now_s < 3600.0:
        now_s += every_s
        gate.hurry(now_s)
        if gate.probe_due(now_s):
            tries.append(now_s)
            gate.probe_succeeded(now_s=now_s)
            gate.fail(DOWN, now_s=now_s, chance=1.0)
    assert len(tries) <= 3600.0 / HURRY_LONGEST_S + 40
    assert min(tries) <= max(every_s, 1.0)
    if every_s >= HURRY_LONGEST_S:
        assert len(tries) == 3600.0 / every_s, "and what comes seldom is tried at once"
    gate.probe_succeeded(now_s=now_s)
    assert gate.served()
    gate.fail(DOWN, now_s=now_s, chance=1.0)
    assert gate._in_vain == 0


def test_something_new_never_puts_a_probe_off_and_wakes_no_silent_server() -> None:
    gate = _open_gate()
    gate.fail(DOWN, now_s=0.0, chance=1.0)
    gate.hurry(0.1)
    assert gate.probe_at_s == 0.2
    for now_s in (0.2, 0.6, 1.4, 2.4):
        gate.probe_failed(DOWN, now_s=now_s, chance=1.0)
    gate.hurry(2.5)
    assert gate.probe_at_s == 3.4
    gate.probe_succeeded(now_s=3.4)
    gate.hurry(3.5)
    assert gate.state is GateState.TRIAL


def test_after_it_served_the_next_outage_begins_with_the_first_pause() -> None:
    gate = _open_gate()
    for _ in range(3):
        gate.fail(DOWN, now_s=10.0, chance=1.0)
        assert gate.probe_at_s == 10.2
        for _ in range(4):
            gate.probe_failed(DOWN, now_s=10.0, chance=1.0)
        assert gate.probe_at_s == 11.0
        gate.probe_succeeded(now_s=10.0)
        assert gate.served()


def test_why_it_is_closed_is_kept_until_it_serves() -> None:
    gate = _gate()
    assert (gate.side, gate.failure, gate.closed_at_s) == (SideName.TARGET, None, None)
    gate = _open_gate()
    slow = SideFailed(SideName.TARGET, SideProblem.TIMED_OUT, "slow")
    gate.fail(DOWN, now_s=1.0, chance=1.0)
    assert (gate.failure, gate.only_answers) == (DOWN, True)
    gate.fail(slow, now_s=1.0, chance=1.0)
    assert (gate.failure, gate.only_answers) == (slow, True)
    gate.probe_failed(DOWN, now_s=2.0, chance=1.0)
    assert (gate.failure, gate.only_answers) == (DOWN, False)
    gate.probe_succeeded(now_s=3.0)
    gate.fail(slow, now_s=4.0, chance=1.0)
    assert (gate.failure, gate.only_answers) == (slow, True)
    gate.probe_succeeded(now_s=5.0)
    assert gate.served()
    assert (gate.failure, gate.only_answers) == (None, False)


def test_it_is_calm_when_it_has_been_answering_for_so_long() -> None:
    gate = _gate()
    assert not gate.calm(now_s=1_000.0, for_s=10.0)
    gate.probe_succeeded(now_s=100.0)
    assert not gate.calm(now_s=109.9, for_s=10.0)
    assert gate.calm(now_s=110.0, for_s=10.0)
    gate.served()
    assert gate.calm(now_s=110.0, for_s=10.0)
    gate.fail(DOWN, now_s=120.0, chance=1.0)
    assert not gate.calm(now_s=1_000.0, for_s=10.0)
    gate.probe_succeeded(now_s=1_000.0)
    assert not gate.calm(now_s=1_009.0, for_s=10.0)


def test_a_gate_that_was_never_tried_is_not_hurried() -> None:
    gate = _gate()
    gate.probe_failed(DOWN, now_s=10.0, chance=1.0)
    due_s = gate.probe_at_s
    assert due_s == 10.2
    gate.hurry(10.0)
    assert gate.probe_at_s == due_s


def test_something_new_waits_for_a_second_after_a_failure() -> None:
    """Its own pause is longer: a minute, at work."""
    gate = Gate(SideName.TARGET, pause_first_s=50.0, pause_longest_s=60.0)
    gate.probe_succeeded(now_s=0.0)
    gate.served()
    gate.fail(DOWN, now_s=100.0, chance=1.0)
    assert gate.probe_at_s == 150.0
    gate.hurry(100.25)
    assert gate.probe_at_s == 101.0
    gate.hurry(100.5)
    assert gate.probe_at_s == 101.0
    late = Gate(SideName.TARGET, pause_first_s=50.0, pause_longest_s=60.0)
    late.fail(DOWN, now_s=100.0, chance=1.0)
    late.hurry(120.0)
    assert late.probe_at_s == 120.0
