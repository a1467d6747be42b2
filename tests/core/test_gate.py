from __future__ import annotations

from bridge.core.gate import Gate, GateState
from bridge.core.model import SideFailed, SideName, SideProblem

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
