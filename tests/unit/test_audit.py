"""The audit file: whole lines, nothing lost by crashes, rotated, shared, no patient data."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import __version__, audit
from bridge.audit import AuditTrail, set_aside
from bridge.dicom.codecs import DECODERS
from bridge.errors import ConfigurationError
from bridge.events import InstanceParked, Progress, Settled
from bridge.model import Action, Delivered, Move, Reason, Skipped, StageTimes
from bridge.versions import decoder_versions

DELIVERED = Delivered(
    status="Success",
    action=Action.TRANSCODED,
    source_syntax="1.2.840.10008.1.2.4.90",
    target_syntax="1.2.840.10008.1.2.1",
    sop_instance_uid="1.2.3",
    source_bytes=100,
    target_bytes=200,
    stages=StageTimes(0.001, 0.002, 0.003, 0.004),
    decoder="OpenJPEG",
    target_md5="0" * 32,
    samples_sha256="1" * 64,
    study_id="a-study",
)


def trail(path: Path, bytes_max: int = 1_000_000) -> AuditTrail:
    return AuditTrail(path, bytes_max=bytes_max, now_s=lambda: 1_700_000_000.25)


def deliver(audit_trail: AuditTrail, number: int, done: Delivered = DELIVERED) -> None:
    audit_trail.on_event(Settled(Move(f"instance-{number}", number), done, 1, "0123456789ab"))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_delivery_is_one_line_with_everything_that_proves_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written = trail(path)
    deliver(written, 7)
    assert lines(path) == [
        {
            "time": "2023-11-14T22:13:20.250Z",
            "sequence": 7,
            "instance": "instance-7",
            "outcome": "delivered",
            "action": "transcoded",
            "study": "a-study",
            "sop_instance_uid": "1.2.3",
            "source_syntax": "1.2.840.10008.1.2.4.90",
            "target_syntax": "1.2.840.10008.1.2.1",
            "decoder": "OpenJPEG",
            "decoder_version": decoder_versions("OpenJPEG"),
            "fallbacks": [],
            "trusted": "",
            "samples_sha256": "1" * 64,
            "source_bytes": 100,
            "target_bytes": 200,
            "target_md5": "0" * 32,
            "rules": "0123456789ab",
            "fetch_ms": 1.0,
            "transcode_ms": 2.0,
            "deliver_ms": 3.0,
            "prove_ms": 4.0,
            "attempt": 1,
            "bridge": __version__,
        }
    ]
    written.close()


def test_the_rules_that_decided_are_named(tmp_path: Path) -> None:
    written = trail(tmp_path / "audit.jsonl")
    written.on_event(Settled(Move("a", 1), DELIVERED, 1, "aaa"))
    written.on_event(Settled(Move("b", 2), Skipped(Reason.RULE), 1, "bbb"))
    written.on_event(InstanceParked(Move("c", 3), Reason.VIDEO, "", 1, rules="ccc"))
    written.on_event(Settled(Move("d", 4), DELIVERED, 1))
    found = [line["rules"] for line in lines(tmp_path / "audit.jsonl")]
    assert found == ["aaa", "bbb", "ccc", ""]
    written.close()


def test_parked_and_skipped_are_written_and_rehearsals_are_not(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written = trail(path)
    written.on_event(InstanceParked(Move("a", 1), Reason.UNDECODABLE, "said here only", 3))
    written.on_event(Settled(Move("b", 2), Skipped(Reason.GONE, "", "1.2"), 1))
    written.on_event(Settled(Move("c", 3), Skipped(Reason.DRY_RUN), 1))
    found = [(line["instance"], line["outcome"], line["reason"]) for line in lines(path)]
    assert found == [("a", "parked", "undecodable"), ("b", "skipped", "gone")]
    assert "said here only" not in path.read_text()
    written.close()


def test_what_is_known_of_a_parked_instance_is_written(tmp_path: Path) -> None:
    written = trail(tmp_path / "audit.jsonl")
    known = InstanceParked(Move("a", 1), Reason.UNDECODABLE, "", 3, "1.2.840.10008.1.2.5", "1.2.3")
    written.on_event(known)
    written.on_event(replace(known, source_syntax="DOE^JOHN", sop_instance_uid="DOE^JOHN"))
    seen = [(ln["source_syntax"], ln["sop_instance_uid"]) for ln in lines(tmp_path / "audit.jsonl")]
    assert seen == [("1.2.840.10008.1.2.5", "1.2.3"), ("", "")]
    written.close()


def test_what_is_no_uid_is_not_written(tmp_path: Path) -> None:
    written = trail(tmp_path / "audit.jsonl")
    deliver(written, 1, replace(DELIVERED, sop_instance_uid="DOE^JOHN"))
    assert lines(tmp_path / "audit.jsonl")[0]["sop_instance_uid"] == ""
    written.close()


def test_a_torn_last_line_is_cut_off_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first = trail(path)
    deliver(first, 1)
    first.close()
    whole = path.read_bytes()
    for kept in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole + whole[:kept])
        again = trail(path)
        deliver(again, 2)
        again.close()
        assert [line["sequence"] for line in lines(path)] == [1, 2]
    path.write_bytes(whole[:10])  # nothing but a torn line
    trail(path).close()
    assert path.read_bytes() == b""


def test_a_full_file_is_put_aside_and_no_line_is_torn_or_lost(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written = trail(path, bytes_max=2000)
    for number in range(20):
        deliver(written, number)
    written.close()
    files = [other for _, other in set_aside(path)] + [path]
    assert len(files) > 3
    assert all(file.stat().st_size <= 2000 for file in files)
    assert [line["sequence"] for file in files for line in lines(file)] == list(range(20))


def test_a_line_larger_than_the_limit_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written = trail(path, bytes_max=10)
    deliver(written, 1)
    deliver(written, 2)
    written.close()
    assert [n for n, _ in set_aside(path)] == [1]
    assert [line["sequence"] for line in lines(path)] == [2]


def write_many(path: Path, first: int, count: int) -> None:
    written = trail(path, bytes_max=20_000)
    for number in range(first, first + count):
        deliver(written, number)
    written.close()


@pytest.mark.slow
def test_several_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, 1000 * n, 200)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    files = [other for _, other in set_aside(path)] + [path]
    seen = [line["sequence"] for file in files for line in lines(file)]
    assert sorted(map(str, seen)) == sorted(str(1000 * n + i) for n in range(3) for i in range(200))


def write_for_ever(path: Path, ready: object) -> None:
    written = trail(path)
    number = 0
    while True:
        number += 1
        deliver(written, number)
        if number == 50:
            ready.set()  # type: ignore[attr-defined]


def test_a_killed_process_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=write_for_ever, args=(path, ready))
    writer.start()
    assert ready.wait(60)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(60)
    found = [line["sequence"] for line in lines(path)]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 50


@pytest.mark.parametrize("count", [1, 2, 7])
def test_lines_that_wait_at_the_end_are_told_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    written = trail(tmp_path / "audit.jsonl")
    logging.getLogger("orthanc_bridge").propagate = True
    monkeypatch.setattr(os, "write", lambda _file, _data: 0)
    for sequence in range(count):
        deliver(written, sequence)
    written.close()
    assert f"lines that are lost: {count}" in caplog.records[-1].getMessage()


def test_an_end_at_which_nothing_waits_tells_of_no_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = trail(tmp_path / "audit.jsonl")
    logging.getLogger("orthanc_bridge").propagate = True
    deliver(written, 1)
    written.close()
    assert not caplog.records


def test_a_full_disk_delays_lines_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    written = trail(path)
    real_write = os.write

    def half(file: int, data: bytes) -> int:
        return real_write(file, data[: len(data) // 2])

    logging.getLogger("orthanc_bridge").propagate = True
    monkeypatch.setattr(os, "write", half)
    deliver(written, 1)
    deliver(written, 2)
    assert path.read_bytes() == b"", "half a line is taken back"
    monkeypatch.setattr(os, "write", real_write)
    written.on_progress(Progress())
    assert [line["sequence"] for line in lines(path)] == [1, 2]
    events = [record.__dict__.get("event") for record in caplog.records]
    assert events == ["audit_failed", "audit_recovered"]
    written.close()


def test_waiting_lines_are_bounded_and_lost_ones_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit, "PENDING_LINES_MAX", 3)
    written = trail(tmp_path / "audit.jsonl")
    logging.getLogger("orthanc_bridge").propagate = True
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for number in range(5):
            deliver(written, number)
    written.on_progress(Progress())
    assert [line["sequence"] for line in lines(tmp_path / "audit.jsonl")] == [2, 3, 4]
    assert "2 lines were lost meanwhile" in caplog.text
    written.close()


def test_a_path_that_cannot_be_written_is_a_setting_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="BRIDGE_AUDIT_PATH"):
        trail(tmp_path / "file" / "audit.jsonl")


def test_every_decoder_has_a_version() -> None:
    for table in DECODERS.values():
        for decoder in table:
            assert any(c.isdigit() for c in decoder_versions(decoder.name)), decoder.name
    assert decoder_versions("") == ""
    assert decoder_versions("libjxl, libjpeg-turbo").count("imagecodecs") == 2


@pytest.mark.parametrize("there", [(2, 5), (5,), (1, 2, 999_999), (7, 3)])
def test_the_next_file_has_a_number_above_all_others(
    tmp_path: Path, there: tuple[int, ...]
) -> None:
    """Also where files in between were archived: none is ever written over."""
    path = tmp_path / "audit.jsonl"
    for number in there:
        (tmp_path / f"audit.jsonl.{number:06d}").write_text(f"kept {number}\n")
    (tmp_path / "audit.jsonl.lost").write_text("no number\n")
    written = trail(path, bytes_max=10)
    for number in range(3):
        deliver(written, number)
    written.close()
    new = [number for number, _ in set_aside(path) if number not in there]
    assert new == [max(there) + 1, max(there) + 2]
    for number in there:
        assert (tmp_path / f"audit.jsonl.{number:06d}").read_text() == f"kept {number}\n"
    assert [lines(other)[0]["sequence"] for n, other in set_aside(path) if n in new] == [0, 1]


def test_a_file_is_on_the_disk_before_it_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never looked at again: what a power cut took from it would be lost for good."""
    synced: list[tuple[int, int]] = []
    right = os.fdatasync

    def noted(file: int) -> None:
        right(file)
        found = os.fstat(file)
        synced.append((found.st_ino, found.st_size))

    monkeypatch.setattr(os, "fdatasync", noted)
    path = tmp_path / "audit.jsonl"
    written = trail(path, bytes_max=10)
    for number in range(4):
        deliver(written, number)
    aside = [other.stat() for _, other in set_aside(path)]
    assert len(aside) == 3
    assert synced == [(found.st_ino, found.st_size) for found in aside]
    written.close()
    assert synced[-1] == (path.stat().st_ino, path.stat().st_size)


@pytest.mark.parametrize("in_the_way", ["link", "directory", "pipe", "no_directory"])
def test_a_file_whose_place_is_taken_waits_and_no_other_file_is_touched(
    in_the_way: str, tmp_path: Path
) -> None:
    """Somebody moves the file and puts something else there: no number is closed twice."""
    path = tmp_path / "there" / "audit.jsonl"
    written = trail(path)
    deliver(written, 1)
    path.rename(tmp_path / "moved")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    match in_the_way:
        case "link":
            path.symlink_to(victim)
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path.parent.rename(tmp_path / "away")
    others = []
    try:
        for number in range(2, 5):
            deliver(written, number)
            assert written.failing
            # Whatever is opened meanwhile, a connection or the ledger, stays open.
            others.append(os.open(tmp_path / f"other-{number}", os.O_RDWR | os.O_CREAT))
            written.on_progress(Progress())
        assert [os.fstat(other).st_size for other in others] == [0] * 3
        if in_the_way == "no_directory":
            path.parent.mkdir()
        elif in_the_way == "directory":
            path.rmdir()
        else:
            path.unlink()
        written.on_progress(Progress())
        assert not written.failing
        written.close()
        assert [os.fstat(other).st_size for other in others] == [0] * 3
    finally:
        for other in others:
            os.close(other)
    assert [line["sequence"] for line in lines(path)] == [2, 3, 4]
    assert [line["sequence"] for line in lines(tmp_path / "moved")] == [1]
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("late", [1, 3])
def test_what_a_sweep_tells_after_the_end_is_written_and_to_no_other_file(
    late: int, tmp_path: Path
) -> None:
    """Proves that a closed number is not used: it is another file's by then, the ledger's say."""
    path = tmp_path / "audit.jsonl"
    written = trail(path)
    deliver(written, 1)
    written.close()
    others = [os.open(tmp_path / f"other-{n}", os.O_RDWR | os.O_CREAT) for n in range(8)]
    try:
        for number in range(late):
            deliver(written, 2 + number)
            written.on_progress(Progress())
            assert not written.failing
        written.close()
        assert [line["sequence"] for line in lines(path)] == list(range(1, 2 + late))
        assert [os.fstat(other).st_size for other in others] == [0] * 8
    finally:
        for other in others:
            os.close(other)


def test_what_cannot_be_written_after_the_end_is_told_so_that_nothing_is_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "there" / "audit.jsonl"
    written = trail(path)
    written.close()
    path.unlink()
    (tmp_path / "there" / "audit.jsonl.lock").unlink()
    path.parent.rmdir()
    numbers = Path("/proc/self/fd")
    before = len(list(numbers.iterdir()))
    with caplog.at_level(logging.ERROR):
        for number in range(3):
            deliver(written, number)
    failing = [written.failing]
    assert "cannot be written" in caplog.text
    assert len(list(numbers.iterdir())) == before
    path.parent.mkdir()
    deliver(written, 3)
    failing.append(written.failing)
    assert failing == [True, False]
    assert [line["sequence"] for line in lines(path)] == [0, 1, 2, 3]


def test_lines_are_brought_to_the_disk_each_second_and_only_where_there_are_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    now_s = 100.0
    written = AuditTrail(tmp_path / "audit.jsonl", bytes_max=10**6, steady_s=lambda: now_s)
    progress = Progress(checkpoint=None, last=None)
    found = []
    for step_s, lines_new in ((5.0, 0), (0.0, 1), (0.5, 1), (0.6, 0), (5.0, 0), (0.0, 1), (1.0, 0)):
        now_s += step_s
        for number in range(lines_new):
            deliver(written, number)
        written.on_progress(progress)
        found.append(len(synced))
    assert found == [0, 1, 1, 2, 2, 3, 3]
    written.close()


def test_a_torn_line_of_any_length_is_cut_off_and_no_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first = trail(path)
    for number in (1, 2, 3):
        deliver(first, number)
    first.close()
    whole = path.read_bytes()
    for torn in (1, 500, audit.LINE_BYTES_MAX - len(whole), audit.LINE_BYTES_MAX - 1):
        path.write_bytes(whole + b"x" * torn)
        trail(path).close()
        assert path.read_bytes() == whole


def test_a_file_that_another_writer_began_is_gone_on_with_and_repaired(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written = trail(path)
    deliver(written, 1)
    path.rename(tmp_path / "audit.jsonl.000001")
    path.write_bytes(b'{"sequence": 2}\n{"torn": ')
    deliver(written, 3)
    path.unlink()
    deliver(written, 4)
    written.close()
    assert [line["sequence"] for line in lines(tmp_path / "audit.jsonl.000001")] == [1]
    assert [line["sequence"] for line in lines(path)] == [4]


def test_a_file_that_another_writer_left_torn_has_whole_lines_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written = trail(path)
    deliver(written, 1)
    path.unlink()
    path.write_bytes(b'{"sequence": 2}\n{"torn": ')
    deliver(written, 3)
    deliver(written, 4)
    written.close()
    assert [line["sequence"] for line in lines(path)] == [2, 3, 4]


def test_each_trouble_counts_its_own_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit, "PENDING_LINES_MAX", 2)
    written = trail(tmp_path / "audit.jsonl")
    right = os.write

    def full(_file: int, _line: bytes) -> int:
        raise OSError(28, "No space left on device")

    told: list[str] = []
    for begin, count in ((10, 5), (20, 3)):
        monkeypatch.setattr(os, "write", full)
        for number in range(begin, begin + count):
            deliver(written, number)
        states = [written.failing]
        monkeypatch.setattr(os, "write", right)
        caplog.clear()
        written.on_progress(Progress(checkpoint=None, last=None))
        states.append(written.failing)
        assert states == [True, False]
        told += [record.getMessage() for record in caplog.records]
    assert [text for text in told if "3 lines were lost meanwhile" in text], told
    assert [text for text in told if "1 lines were lost meanwhile" in text], told
    written.close()
    assert [line["sequence"] for line in lines(tmp_path / "audit.jsonl")] == [13, 14, 21, 22]


@pytest.mark.parametrize("bytes_max", [10, 10**6])
def test_a_line_of_which_the_disk_took_a_part_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_max: int
) -> None:
    """In the file that was just begun as well: what was taken is cut off where it began."""
    path = tmp_path / "audit.jsonl"
    written = trail(path, bytes_max=bytes_max)
    deliver(written, 1)
    right = os.write
    monkeypatch.setattr(os, "write", lambda file, line: right(file, line[: len(line) // 2]))
    deliver(written, 2)
    assert written.failing
    monkeypatch.setattr(os, "write", right)
    deliver(written, 3)
    written.close()
    files = [*(other for _, other in set_aside(path)), path]
    assert [line["sequence"] for file in files for line in lines(file)] == [1, 2, 3]
