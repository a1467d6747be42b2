"""Replay and parked instances on two real Orthancs."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.bridge_process import wait_until
from tests.dicom_samples import small_ct, small_series
from tests.fault_proxy import FaultProxy, Hang
from tests.integration.conftest import Pair, undecodable_ct

pytestmark = pytest.mark.orthanc


def _lose(pair: Pair, *instances: str) -> None:
    """Delete instances at the target, as a person or a disk would."""
    for instance_id in instances:
        assert pair.target.delete_instance(instance_id)


def _rows(pair: Pair) -> dict[str, int]:
    page = pair.source.changes(0, 1000)
    return {c.resource_id: c.sequence for c in page.changes if c.change_type == "NewInstance"}


def test_a_replay_beside_a_running_bridge_brings_back_what_was_lost(pair: Pair) -> None:
    sent = [pair.send(data) for data in small_series(12)]
    bridge = pair.start("run")
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is moved")
    _lose(pair, sent[2], sent[5], sent[11])
    rows = _rows(pair)
    before = pair.checkpoint()
    again = pair.run("replay", "--from", str(rows[sent[2]]), "--to", str(rows[sent[10]]), "--json")
    assert again.exit_code == 0, again.stderr
    assert (again.json["delivered"], again.json["already_there"]) == (2, 7)
    assert again.json["parked"] == {}
    assert pair.held() == set(sent) - {sent[11]}, "both ends are included, nothing else is"
    assert pair.checkpoint() == before
    assert bridge.is_running
    new = pair.send(small_ct())
    wait_until(lambda: new in pair.held(), "the bridge still follows")
    to_the_end = pair.run("replay", "--from", str(rows[sent[11]]), "--json")
    assert to_the_end.json["delivered"] == 1
    assert sent[11] in pair.held()


def test_a_replay_beside_a_bridge_that_is_busy_gives_way_and_ends(
    pair: Pair, fault_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = fault_proxy(pair.target_server.http_port)
    sent = [pair.send(data) for data in small_series(6)]
    bridge = pair.start("run", TARGET_URL=proxy.url)
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is moved")
    last = pair.last()
    _lose(pair, *sent)
    proxy.strike(Hang())
    pair.send(small_ct())
    bridge.wait_health(lambda health: health["in_flight"] == 1, "it is busy")
    again = pair.run("replay", "--from", "1", "--to", str(last), "--json")
    assert again.exit_code == 0, again.stderr
    assert again.json["delivered"] == len(sent)
    assert bridge.get("/health")[1]["in_flight"] == 1, "it was busy all the time"


@pytest.mark.parametrize("proof", ["answer", "stored"])
def test_what_the_target_has_is_left_out_if_so_wished_and_nothing_else(
    pair: Pair, proof: str
) -> None:
    sent = [pair.send(data) for data in small_series(9)]
    assert pair.run("run", "--once", PROOF=proof).exit_code == 0
    _lose(pair, sent[0], sent[4], sent[8])
    options = ("replay", "--from", "1", "--skip-present", "--json")
    looked = pair.run(*options, "--dry-run", PROOF=proof)
    assert looked.exit_code == 0, looked.stderr
    assert looked.json["present"] == 6
    assert looked.json["would_be"] == {"sent unchanged": 3}
    again = pair.run(*options, PROOF=proof)
    assert again.exit_code == 0, again.stderr
    told = again.json
    assert (told["delivered"], told["already_there"], told["present"]) == (3, 0, 6)
    assert pair.held() == set(sent)
    # Without a record of a delivery nothing proves which file the target has.
    pair.state_path.unlink()
    unknown = pair.run(*options, PROOF=proof).json
    left_out = 9 if proof == "answer" else 0
    assert (unknown["present"], unknown["already_there"]) == (left_out, 9 - left_out)


def test_a_replay_says_how_far_it_is(pair: Pair) -> None:
    for data in small_series(3):
        pair.send(data)
    done = pair.run("replay", "--from", "1")
    assert done.exit_code == 0
    assert "replay 100%: 3 instances, 0 parked" in done.stderr
    assert "delivered      3" in done.stdout


def test_a_replay_leaves_no_checkpoint_where_there_was_none(pair: Pair) -> None:
    pair.send(small_ct())
    assert pair.run("replay", "--from", "1").exit_code == 0
    with pair.ledger() as ledger:
        assert ledger.checkpoint() is None


def test_a_dry_run_transfers_nothing(pair: Pair) -> None:
    pair.send(small_ct())
    pair.send(undecodable_ct())
    done = pair.run("replay", "--from", "1", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["skipped"] == {"dry_run": 2}
    assert done.json["would_be"] == {"sent unchanged": 1, "transcoded": 1}
    assert done.json["delivered"] == 0
    assert pair.held() == set()
    assert pair.parked() == {}
    assert "would be sent unchanged" in done.stderr
    assert "would be transcoded (JPEG2000Lossless -> ExplicitVRLittleEndian)" in done.stderr


def test_what_a_replay_parks_is_tried_again_when_the_cause_is_gone(pair: Pair) -> None:
    sent = [pair.send(data) for data in small_series(3)]
    pair.filter_out(everything=True)
    parked = pair.run("replay", "--from", "1", "--json")
    assert parked.exit_code == 3, parked.stderr
    assert parked.json["parked"] == {"filtered_out": 3}
    assert pair.parked() == {"filtered_out": 3}
    assert pair.run("parked", "retry", "--all").exit_code == 3
    with pair.ledger() as ledger:
        assert [p.attempts for p in ledger.parked()] == [2, 2, 2], "attempts add up"
    pair.filter_out(everything=False)
    one = pair.run("parked", "retry", sent[0], "--json")
    assert one.exit_code == 0, one.stderr
    assert one.json["delivered"] == 1
    assert pair.parked() == {"filtered_out": 2}
    rest = pair.run("parked", "retry", "--reason", "filtered_out", "--json")
    assert rest.exit_code == 0
    assert pair.parked() == {}
    assert pair.held() == set(sent)


def test_an_interrupted_replay_says_how_to_go_on_and_that_does_the_rest(pair: Pair) -> None:
    """Fails when nothing is said, or when what it says leaves an instance out."""
    sent = [pair.send(data) for data in small_series(40)]
    replay = pair.start("replay", "--from", "1", WORKERS="1", MAX_INSTANCES_S="10")
    replay.wait_logged("instance_delivered", 3)
    replay.send(signal.SIGINT)
    ended = replay.finish()
    assert ended.exit_code == 130
    assert "interrupted" in ended.stdout
    done = len(pair.held())
    assert 3 <= done < 40
    (line,) = [text for text in ended.stderr.splitlines() if "to continue" in text]
    arguments = line.partition("orthanc-bridge ")[2].split()
    assert arguments[:2] != ["replay", "--from 1"]
    again = pair.run(*arguments, "--json")
    assert again.exit_code == 0
    assert again.json["delivered"] >= 40 - done
    assert pair.held() == set(sent)
    assert "to continue" not in again.stderr


def test_parked_list_show_and_drop(pair: Pair) -> None:
    bad = [pair.send(undecodable_ct()) for _ in range(3)]
    assert pair.run("run", "--once").exit_code == 3
    listed = pair.run("parked", "list", "--json")
    assert listed.exit_code == 0
    assert sorted(row["instance"] for row in listed.json) == sorted(bad)
    shown = pair.run("parked", "show", bad[0], "--json")
    assert shown.json["reason"] == "undecodable"
    assert shown.json["sequence"] == _rows(pair)[bad[0]]
    assert shown.json["source_syntax"] == "1.2.840.10008.1.2.4.90"
    assert pair.run("parked", "show", "nothing").exit_code == 2
    assert pair.run("parked", "list", "--reason", "video", "--json").json == []
    assert pair.run("parked", "list", "--older-than", "1", "--json").json == []
    assert pair.run("parked", "drop", bad[0], "--json").json == {"dropped": [bad[0]]}
    assert pair.run("parked", "drop").exit_code == 2, "nothing named: nothing dropped"
    assert pair.parked() == {"undecodable": 2}
    assert pair.run("parked", "drop", "--all").exit_code == 2, "two: they must be confirmed"
    assert pair.parked() == {"undecodable": 2}
    assert pair.run("parked", "drop", "--all", "--yes").exit_code == 0
    assert "Nothing is parked." in pair.run("parked", "list").stdout


def test_a_parked_instance_is_forwarded_after_a_change_of_policy(pair: Pair) -> None:
    bad = pair.send(undecodable_ct())
    assert pair.run("run", "--once").exit_code == 3
    done = pair.run("parked", "retry", "--all", ON_UNDECODABLE="forward")
    assert done.exit_code == 0, done.stderr
    assert pair.parked() == {}
    assert pair.held() == {bad}


def test_a_retry_of_what_the_source_has_deleted_forgets_it(pair: Pair) -> None:
    bad = pair.send(undecodable_ct())
    assert pair.run("run", "--once").exit_code == 3
    assert pair.source.delete_instance(bad)
    done = pair.run("parked", "retry", "--all", "--json")
    assert done.exit_code == 0
    assert done.json["skipped"] == {"gone": 1}
    assert pair.parked() == {}
