"""A target that drifts away from its source, between two real Orthancs: found, repaired."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from bridge.demo.orthanc_server import OrthancServer
from bridge.ledger.verifications import LastVerification, last_verification, under_way
from bridge.mirror.repair import prepared_path
from bridge.retention.bridge_notes import SETTLE_S
from tests.bridge_process import wait_until
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.integration.conftest import ORTHANC, Pair, undecodable_ct

pytestmark = pytest.mark.orthanc

CACHELESS = ORTHANC | {"MaximumStorageCacheSize": 0}
"""Orthanc serves a file from memory for a while after it was lost on disk."""
WAIT_FOR_ALL_S = 1800.0
"""For all instances of the large scenario."""
ALWAYS = {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0", "REPAIR": "all"}
FOLLOWING = {"MIRROR_DELETIONS": "after:0s", "RETENTION_RISK": "source-limits-untold"}
"""Orthanc before 1.12 does not say whether it recycles: it does not."""


@pytest.fixture
def pair(orthanc: Callable[..., OrthancServer], tmp_path: Path) -> Iterator[Pair]:
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        source, target = (orthanc(name, config=CACHELESS) for name in ("source", "target"))
        yield Pair(source, target, home, stack)


def compressed(number: int) -> bytes:
    dataset = small_ct_dataset(seed=number)
    if number % 3 == 0:
        dataset.compress(RLELossless, generate_instance_uid=False)
    return file_bytes(dataset)


def file_of(server: OrthancServer, uuid: str) -> Path:
    return server.directory / "storage" / uuid[:2] / uuid[2:4] / uuid


def other_pixels(data: bytes) -> bytes:
    """The same instance with another image: the last byte of the pixels is another."""
    return data[:-1] + bytes([data[-1] ^ 1])


@dataclass
class Drift:
    """What was done to the target, by state."""

    pair: Pair
    sent: dict[str, bytes]
    right: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, pair: Pair, count: int) -> Drift:
        made = [compressed(number) for number in range(count)]
        sent = {pair.send(data): data for data in made}
        done = pair.run("run", "--once", VERIFY_EVERY="7d")
        assert done.exit_code == 0, done.stderr[-1000:]
        drift = cls(pair, sent)
        drift.right = {i: drift.uuid(i) for i in sent}
        drift.stored = {i: pair.target.stored_md5(i) for i in sent}
        return drift

    stored: dict[str, str] = field(default_factory=dict)
    uuid_then: dict[str, str] = field(default_factory=dict)
    """The files of what is there and wrong."""

    def uuid(self, instance_id: str) -> str:
        return self.pair.target.stored_file(instance_id).uuid

    def apply(self, deleted: int = 3) -> None:
        """Delete some, rewrite one, lose the file of one, damage one, compress one."""
        target, server = self.pair.target, self.pair.target_server
        names = random.Random(7).sample(sorted(self.sent), deleted + 4)
        for instance_id in names[:deleted]:
            target.delete_instance(instance_id)
            self.wrong[instance_id] = "missing"
        rewritten, lost, damaged, wrong_syntax = names[deleted:]
        self._put(rewritten, other_pixels(self._held(rewritten)))
        self.wrong[rewritten] = "damaged"
        file_of(server, self.right[lost]).unlink()
        self.wrong[lost] = "no_file"
        path = file_of(server, self.right[damaged])
        path.write_bytes(other_pixels(path.read_bytes()))
        # From 1.13 on Orthanc compares the MD5 of what it reads, and gives no damaged file.
        given = httpx.get(f"{server.url}/instances/{damaged}/file", trust_env=False)
        self.wrong[damaged] = "damaged" if given.is_success else "no_file"
        self._put(wrong_syntax, self._compressed(self._held(wrong_syntax)))
        self.wrong[wrong_syntax] = "syntax"
        self.uuid_then = {i: self.uuid(i) for i in (rewritten, lost, damaged, wrong_syntax)}

    def _held(self, instance_id: str) -> bytes:
        return self.pair.target.head(instance_id, 1 << 30)

    @staticmethod
    def _compressed(data: bytes) -> bytes:
        from io import BytesIO

        from pydicom import dcmread

        dataset = dcmread(BytesIO(data))
        dataset.compress(RLELossless, generate_instance_uid=False)
        return file_bytes(dataset)

    def _put(self, instance_id: str, data: bytes) -> None:
        target = self.pair.target
        target.delete_instance(instance_id)
        assert target.store(data, deadline_s=30.0).instance_id == instance_id

    def is_repaired(self) -> bool:
        target = self.pair.target
        return all(
            target.has_instance(i)
            and target.stored_md5(i) == self.stored[i]
            and target.verify_stored(i)
            for i in self.wrong
        )

    def untouched(self) -> None:
        """What was right has the file that it had."""
        for instance_id, uuid in self.right.items():
            if instance_id not in self.wrong:
                assert self.uuid(instance_id) == uuid


def test_check_repair_finds_everything_and_touches_nothing_else(pair: Pair) -> None:
    drift = Drift.of(pair, 30)
    foreign = pair.target.store(small_ct(), deadline_s=30.0).instance_id
    drift.apply()
    audit = pair.home / "audit.jsonl"
    done = pair.run("check", "--repair", "--json", VERIFY_EVERY="7d", AUDIT_PATH=str(audit))
    assert done.exit_code == 0, done.stderr
    found = {row["instance"]: row["state"] for row in done.json["findings"]}
    assert found == drift.wrong
    assert {row["result"] for row in done.json["findings"]} == {"repaired"}
    assert (done.json["summary"]["repaired"], done.json["summary"]["differences"]) == (7, 0)
    assert done.json["summary"]["found"]["foreign"] == 1
    assert drift.is_repaired()
    drift.untouched()
    assert pair.target.has_instance(foreign)
    lines = [json.loads(line) for line in audit.read_text("utf-8").splitlines()]
    assert {line["instance"] for line in lines if line["outcome"] == "replaces"} == set(drift.wrong)
    assert {line["instance"] for line in lines if line["outcome"] == "repaired"} == set(drift.wrong)
    again = pair.run("check", "--repair", "--json", VERIFY_EVERY="7d")
    assert again.json["summary"]["finished"] is True
    assert "not_repaired" in again.json["summary"]
    assert (again.exit_code, again.json["summary"]["differences"]) == (0, 0)
    assert pair.run("check", "--deep").exit_code == 3, "the foreign one is told"


def test_check_and_check_repair_both_tell_of_parked_and_dropped_instances(pair: Pair) -> None:
    sent = [pair.send(compressed(number)) for number in range(3)]
    parked = [pair.send(undecodable_ct(seed)) for seed in (21, 22, 23)]
    assert pair.run("run", "--once", VERIFY_EVERY="7d").exit_code == 3
    assert pair.run("parked", "drop", parked[0], VERIFY_EVERY="7d").exit_code == 0
    for arguments in (("check",), ("check", "--repair"), ("check", "--repair", "--deep")):
        done = pair.run(*arguments, "--json", VERIFY_EVERY="7d")
        assert done.exit_code == 3, (arguments, done.stderr)
        assert done.json["summary"]["differences"] == 3, arguments
    assert "parked or dropped: 3 instances" in done.stderr
    assert "orthanc-bridge parked list" in done.stderr
    # A parked instance does not hide what a repair can deliver.
    pair.target.delete_instance(sent[1])
    done = pair.run("check", "--repair", "--json", VERIFY_EVERY="7d")
    assert (done.exit_code, done.json["summary"]["repaired"]) == (3, 1)
    assert done.json["summary"]["differences"] == 3
    for instance_id in parked:
        pair.source.delete_instance(instance_id)
    done = pair.run("check", "--repair", "--json", VERIFY_EVERY="7d")
    assert (done.exit_code, done.json["summary"]["differences"]) == (0, 0), done.stderr


def test_files_that_rot_at_the_source_are_told_and_the_copies_stay(pair: Pair) -> None:
    """The MD5 that the source tells stays what it was: they were told as equal, or the good copy
    as damaged."""
    drift = Drift.of(pair, 9)
    files = {i: file_of(pair.source_server, pair.source.stored_file(i).uuid) for i in drift.sent}
    is_compressed = {i: str(RLELossless).encode() in data for i, data in drift.sent.items()}
    chosen = sorted(drift.sent, key=lambda i: (is_compressed[i], i))[::2]
    wrong = dict.fromkeys(chosen, "source_damaged")
    good = {i: files[i].read_bytes() for i in wrong}
    changed, cut, lost, *others = wrong
    for instance_id in (changed, *others):
        files[instance_id].write_bytes(other_pixels(good[instance_id]))
    files[cut].write_bytes(good[cut][:-50])
    files[lost].unlink()
    assert not is_compressed[changed], "it is sent as it is"
    assert any(is_compressed[i] for i in others)
    deep = {"VERIFY_EVERY": "7d", "VERIFY_DEEP": "100%", "REPAIR": "all"}
    done = pair.run("check", "--repair", "--deep", "--json", **deep)
    assert done.exit_code == 3, done.stderr
    assert {row["instance"]: row["state"] for row in done.json["findings"]} == wrong
    assert {row["result"] for row in done.json["findings"]} == {""}
    assert done.json["summary"]["repaired"] == done.json["summary"]["not_repaired"] == 0
    drift.untouched()
    done = pair.run("check", "--deep", "--json")
    told = {row["instance"]: row["state"] for row in done.json["findings"]}
    # A changed byte may be padding of a compressed image: check compares images.
    assert {changed, lost} <= told.keys() <= wrong.keys()
    # A server that gives no file of it (1.13: no damaged one) does not say why.
    assert set(told.values()) <= {"source_damaged", "unreadable"}
    bridge = pair.start("run", **(deep | {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0"}))

    def codes(health: dict[str, Any]) -> set[str]:
        return {reason["code"] for reason in health["reasons"]}

    bridge.wait_health(lambda h: codes(h) == {"damaged_at_source"}, "it says so, and no more")
    metrics = bridge.get("/metrics")[1]
    assert 'orthanc_bridge_copies_found_total{state="source_damaged"}' in metrics
    drift.untouched()
    for instance_id, data in good.items():
        files[instance_id].write_bytes(data)
    bridge.wait_health(lambda h: h["status"] == "ok", "they are whole again")
    drift.untouched()


INSTANCES, KILLS = (int(os.environ.get(f"MIRROR_{name}", "0")) for name in ("INSTANCES", "KILLS"))
"""Of the large scenario: make test-mirror."""
KILLED_AFTER_S = (0.1, 2.0)
"""At work. Where in a verification it is killed is what varies."""


@pytest.mark.timeout(120 if not INSTANCES else 3600)
def test_one_verification_finds_all_and_is_killed_meanwhile(pair: Pair) -> None:
    """Seven copies are wrong. The first verification repairs each, and no other file changes.

    It goes on at the next start, however often it is killed, and none follows it within a day.
    """
    count, kills = INSTANCES or 120, KILLS or 4
    pair.command_timeout_s = WAIT_FOR_ALL_S
    drift = Drift.of(pair, count)
    drift.apply()
    audit = pair.home / "audit.jsonl"
    # Slow enough for all kills to meet it; the listing is done again after each.
    rate = max(10.0, count / (kills * 2.5))
    settings = {
        "VERIFY_EVERY": "1d",
        "VERIFY_RATE": f"{rate:g}",
        "REPAIR": "all",
        "AUDIT_PATH": str(audit),
    }
    draw, begun_s = random.Random(3), time.monotonic()
    met = 0
    for _ in range(kills):
        bridge = pair.start("run", **settings)
        bridge.wait_logged("monitoring")
        time.sleep(draw.uniform(*KILLED_AFTER_S))
        bridge.kill()
        with pair.ledger() as ledger:
            met += under_way(ledger) is not None
    bridge = pair.start("run", **settings)
    wait_until(lambda: _ended(pair) is not None, "it comes to its end", timeout_s=60 + count / 20)
    lasted_s = time.monotonic() - begun_s
    assert drift.is_repaired(), "by one verification"
    drift.untouched()
    ended = _ended(pair)
    assert ended is not None
    assert ended.instances == count
    with pair.ledger() as ledger:
        assert not prepared_path(ledger).exists()
    lines = [json.loads(line) for line in audit.read_text("utf-8").splitlines()]
    told = {line["instance"] for line in lines if line["outcome"] in ("replaces", "repaired")}
    assert told == set(drift.wrong)
    health = bridge.wait_health(lambda h: h["status"] == "ok", "all is well")
    assert health["verification"]["instances"] == count
    metrics = bridge.get("/metrics")[1]
    assert "orthanc_bridge_verified_age_seconds" in metrics
    bridge.kill()
    began_s = time.monotonic()
    again = pair.run("check", "--repair", "--json", VERIFY_EVERY="1d")
    checked_s = time.monotonic() - began_s
    assert (again.exit_code, again.json["summary"]["differences"]) == (0, 0), again.stdout
    print(  # noqa: T201 (the figures of docs/mirror.md)
        f"{count} instances, {len(drift.wrong)} wrong copies: one verification at {rate:g} a "
        f"second found and repaired all in {lasted_s:.0f} s, killed {kills} times, {met} of them "
        f"under way; check --repair without a limit after it: {checked_s:.0f} s "
        f"({count / checked_s:.0f} a second), 0 differences"
    )


def _ended(pair: Pair) -> LastVerification | None:
    with pair.ledger() as ledger:
        return last_verification(ledger)


def test_without_a_record_nothing_is_replaced(pair: Pair) -> None:
    instance_id = pair.send(compressed(1))
    pair.target.store(other_pixels(compressed_of(pair, instance_id)), deadline_s=30.0)
    assert pair.run("run", "--once", VERIFY_EVERY="7d").exit_code == 0
    before = pair.target.stored_file(instance_id)
    done = pair.run("check", "--repair", "--deep", "--json", VERIFY_EVERY="7d")
    assert done.exit_code == 3
    assert [row["state"] for row in done.json["findings"]] == ["not_ours"]
    assert pair.target.stored_file(instance_id) == before


REFUSES = """
function IncomingHttpRequestFilter(method, uri)
  local told = io.open("%s", "r")
  if told == nil then return true end
  told:close()
  return string.find(uri, "verify%%-md5") == nil and string.find(uri, "/file$") == nil
end
"""


@pytest.mark.parametrize("why", ["rights", "no MD5"])
def test_a_target_that_refuses_to_verify_and_to_give_files_has_lost_none(
    orthanc: Callable[..., OrthancServer], tmp_path: Path, why: str
) -> None:
    """Each healthy copy was told as ``no_file`` or ``damaged``, and replaced."""
    home, switch, script = (tmp_path / name for name in ("home", "refuses", "filter.lua"))
    home.mkdir()
    script.write_text(REFUSES % switch, "ascii")
    config: dict[str, object] = {"LuaScripts": [str(script)]}
    if why == "no MD5":
        config |= {"StoreMD5ForAttachments": False}
    with ExitStack() as stack:
        target = orthanc("target", config=CACHELESS | config)
        pair = Pair(orthanc("source", config=CACHELESS), target, home, stack)
        sent = {pair.send(compressed(number)) for number in range(3)}
        assert pair.run("run", "--once", VERIFY_EVERY="7d").exit_code == 0
        before = {i: pair.target.stored_file(i) for i in sent}
        switch.touch()
        done = pair.run("check", "--repair", "--json", VERIFY_EVERY="7d")
        switch.unlink()
        assert {i: pair.target.stored_file(i) for i in sent} == before
    assert done.exit_code == 3
    rows = done.json["findings"]
    assert {row["instance"] for row in rows} == sent
    assert {row["state"] for row in rows} == {"unverifiable"}
    assert {row["result"] for row in rows} == {""}
    assert all("verify-md5" in row["detail"] for row in rows)


def test_what_another_target_holds_is_not_replaced(pair: Pair) -> None:
    """Its address tells another target, be it the same server. Seen to fail without the binding."""
    drift = Drift.of(pair, 8)
    drift.apply()
    other = pair.target_server.url.replace("127.0.0.1", "localhost")
    there_too = {"VERIFY_EVERY": "7d", "TARGET_URL": other}
    done = pair.run("check", "--repair", "--deep", "--json", **there_too)
    states = {row["instance"]: row["state"] for row in done.json["findings"]}
    there = {i for i, state in drift.wrong.items() if state != "missing"}
    assert {states[i] for i in there} == {"not_ours"}, done.stdout
    assert "deliveries_forgotten" in done.stderr
    for instance_id in there:
        # The file is gone from the disk of one of them: it has its name at the server all the same.
        assert drift.uuid(instance_id) == drift.uuid_then[instance_id]
    drift.untouched()


def compressed_of(pair: Pair, instance_id: str) -> bytes:
    return pair.source.head(instance_id, 1 << 30)


def test_the_limit_of_a_day_holds_until_a_person_has_spoken(pair: Pair) -> None:
    drift = Drift.of(pair, 20)
    for instance_id in drift.sent:
        pair.target.delete_instance(instance_id)
    bridge = pair.start("run", **ALWAYS)
    wait_until(lambda: len(pair.held()) == 10, "ten are moved")
    bridge.wait_health(
        lambda h: "repairs_held" in {reason["code"] for reason in h["reasons"]}, "it says so"
    )
    assert len(pair.held()) == 10
    assert pair.run("check", "--confirm").exit_code == 0
    wait_until(lambda: pair.held() == set(drift.sent), "the rest is moved")


def test_what_is_deleted_at_the_source_follows_and_nothing_else(pair: Pair) -> None:
    drift = Drift.of(pair, 20)
    foreign = pair.target.store(small_ct(), deadline_s=30.0).instance_id
    gone = sorted(drift.sent)[::7]
    for instance_id in gone:
        pair.source.delete_instance(instance_id)
    audit = pair.home / "audit.jsonl"
    deleting = {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0", "AUDIT_PATH": str(audit)}
    bridge = pair.start("run", **deleting)
    wait_until(lambda: _lacking(pair) == 3, "the source is known to lack them")
    assert set(gone) <= pair.held(), "nobody has asked for deletions"
    bridge.kill()
    pair.start("run", **deleting, **FOLLOWING)
    wanted = {foreign, *drift.sent} - set(gone)
    # A process that follows one that was killed waits first.
    wait_until(
        lambda: pair.held() == wanted, "they are deleted at the target", timeout_s=2 * SETTLE_S
    )
    lines = [json.loads(line) for line in audit.read_text("utf-8").splitlines()]
    told = [line["instance"] for line in lines if line["outcome"] == "deletes_at_target"]
    assert sorted(told) == gone
    drift.wrong = dict.fromkeys(gone, "")
    drift.untouched()


def test_a_source_that_lacks_more_than_a_day_may_take_is_not_followed(pair: Pair) -> None:
    drift = Drift.of(pair, 20)
    for instance_id in sorted(drift.sent)[:11]:
        pair.source.delete_instance(instance_id)
    bridge = pair.start("run", VERIFY_EVERY="1s", VERIFY_RATE="0", **FOLLOWING)
    bridge.wait_health(
        lambda h: "repairs_held" in {reason["code"] for reason in h["reasons"]}, "it says so"
    )
    assert pair.held() == set(drift.sent)


def test_what_a_restored_source_lacks_is_not_taken_for_deleted(pair: Pair) -> None:
    """It came after the backup: the target holds it alone."""
    storage = pair.source_server.directory / "storage"
    backup = pair.home / "backup"
    before = [pair.send(compressed(number)) for number in range(6)]
    pair.source_server.stop()
    shutil.copytree(storage, backup)
    pair.source_server.start()
    verifying = {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0"}
    after = [pair.send(compressed(number)) for number in range(6, 9)]
    assert pair.run("run", "--once", **verifying).exit_code == 0
    pair.source_server.kill()
    shutil.rmtree(storage)
    shutil.copytree(backup, storage)
    pair.source_server.start()
    assert set(pair.source.list_instances(0, 20)) == set(before)
    mirrors = {**verifying, **FOLLOWING}
    assert pair.run("run", "--once", ON_FEED_RESET="snapshot", **mirrors).exit_code == 0
    bridge = pair.start("run", **mirrors)
    # What is deleted on purpose, since it was delivered anew, is followed; and so the rest was
    # looked at as often.
    later = pair.send(compressed(20))
    wait_until(lambda: later in pair.held(), "it is delivered")
    pair.source.delete_instance(later)
    # The source was restarted: 35 s are waited for the notes of other bridges.
    bridge.wait_logged("target_deletes", instance=later, timeout_s=120.0)
    wait_until(lambda: later not in pair.held(), "it is deleted at the target")
    assert pair.held() == {*before, *after}


def _lacking(pair: Pair) -> int:
    with pair.ledger() as ledger:
        return ledger.lacking_count()


@pytest.mark.parametrize("first", ["mirror", "retention"])
def test_one_bridge_mirrors_deletions_to_the_target_that_another_empties_its_source_to(
    pair: Pair, orthanc: Callable[..., OrthancServer], tmp_path: Path, first: str
) -> None:
    """Both had delivered the same instances. The first source was emptied by retention, somebody
    deleted them at the other one, and then they were deleted at the target: the last copies."""
    home = tmp_path / "mirror"
    home.mkdir()
    with ExitStack() as stack:
        other = Pair(orthanc("other", config=CACHELESS), pair.target_server, home, stack)
        made = [compressed(n) for n in range(3)]
        sent = {pair.send(data) for data in made}
        assert {other.send(data) for data in made} == sent
        mirrors = {**FOLLOWING, "VERIFY_EVERY": "1s", "VERIFY_RATE": "0"}
        assert other.run("run", "--once", VERIFY_EVERY="7d").exit_code == 0
        if first == "retention":
            assert pair.run("run", "--once", SOURCE_RETENTION="0s").exit_code == 0
            assert not set(pair.source.list_instances(0, 10))
        bridge = other.start("run", **mirrors)
        wait_until(lambda: any("delivers" in peer for peer in pair.target.peers()), "its note")
        if first == "mirror":
            swept = pair.run("run", "--once", SOURCE_RETENTION="0s")
            assert (swept.exit_code, set(pair.source.list_instances(0, 10))) == (2, sent)
            assert "BRIDGE_RETENTION_RISK=target-emptied" in swept.stderr
        for instance_id in sent:
            assert other.source.delete_instance(instance_id)
        bridge.wait_logged("verification_failed")
        assert pair.held() == sent
        said = bridge.logged("verification_failed")[0]["message"]
        assert "deletes at its source what it has delivered" in said


def test_what_is_parked_because_its_file_cannot_be_read_is_no_difference(pair: Pair) -> None:
    """A file that names no transfer syntax: the source takes it, nobody can tell what it is."""
    data = small_ct()
    assert data.count(ExplicitVRLittleEndian.encode() + b"\0") == 1
    nonsense = b"x" * len(ExplicitVRLittleEndian)
    parked = pair.send(data.replace(ExplicitVRLittleEndian.encode(), nonsense))
    pair.send(small_ct(seed=1))
    assert pair.run("run", "--once", VERIFY_EVERY="7d").exit_code == 3
    assert pair.parked() == {"not_dicom": 1}
    bridge = pair.start("run", VERIFY_EVERY="1s", VERIFY_RATE="0", PARKED_LIMIT="1")
    health = bridge.wait_health(
        lambda told: (told["verification"] or {}).get("instances") == 2, "both are verified"
    )
    assert health["verification"]["counts"] == {"equal": 1, "parked": 1}
    assert health["reasons"] == []
    bridge.send(signal.SIGTERM)
    assert bridge.finish().exit_code == 0
    assert pair.run("parked", "drop", parked).exit_code == 0
    done = pair.run("check", "--repair", "--json", VERIFY_EVERY="7d")
    assert done.json["summary"]["found"] == {"equal": 1, "parked": 1}
    assert done.json["findings"] == []
