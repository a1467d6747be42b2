"""A source that means harm: memory stays bounded, it is said whose fault it is, nothing is lost."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.untrusted_text import visible
from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair
from tests.hostile_server import (
    Answer,
    HostileServer,
    body,
    endless,
    endless_headers,
    one_huge_header,
    page,
    retry_after,
)

GROWTH_BYTES_MAX = 120 * 1024 * 1024
"""A page may be 64 MiB (and its text a little more); a file is spooled from 8 MiB on."""

BOMB = gzip.compress(b"0" * 200_000_000, 1)

FEEDS: dict[str, Answer] = {
    "endless": endless,
    "endless headers": endless_headers,
    "one huge header": one_huge_header,
    "deep arrays": body(b"[" * 900_000),
    "deep objects": body(b'{"Changes":' * 80_000),
    "no JSON": body(b"\x00\xff" * 1000),
    "a JSON number": body(b"1" * 900_000),
    "compressed": body(BOMB, ("Content-Encoding", "gzip")),
    "Changes is an object": page(Changes={"a": 1}),
    "Changes has texts": page(Changes=["a"] * 10),
    "more rows than asked for": page(Changes=[{}] * 30_000),
    "Seq is a text": page(Seq="1"),
    "Seq is negative": page(Seq=-1),
    "Seq is a fraction": page(Seq=1.5),
    "Seq is true": page(Seq=True),
    "Seq is beyond any database": page(Seq=2**63),
    "Last is beyond any database": page(Last=2**64),
    "waits beyond all time": retry_after("Mon, 01 Jan 99999999999999999999 00:00:00 GMT"),
    "ID is huge": page(ID="a" * 100_000),
    "ID is no text": page(ID=["a"]),
    "Done is a text": page(Done="false"),
    "Last is missing": page(Last=None),
    "ChangeType is huge": page(ChangeType="NewInstance" * 10_000),
}


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no VmHWM")


def peaks(bridge: BridgeProcess) -> dict[int, int]:
    return {pid: peak_bytes(pid) for pid in (bridge.pid, *bridge.templates(), *bridge.workers())}


@pytest.fixture
def hostile() -> Iterator[HostileServer]:
    with HostileServer() as server:
        yield server


@pytest.fixture
def rig(hostile: HostileServer, tmp_path: Path) -> Iterator[tuple[FakeOrthanc, FakePair]]:
    with FakeOrthanc() as target:
        pair = FakePair(
            hostile.url,
            target.url,
            tmp_path / "home",
            HTTP_TIMEOUT_S="2",
            TASK_TIMEOUT_S="6",
            SPOOL_ABOVE_MB="8",
            LOG_LEVEL="debug",
        )
        pair.environment["TMPDIR"] = str(tmp_path)
        yield target, pair
        pair.close()


def test_a_feed_that_is_none(hostile: HostileServer, rig: tuple[FakeOrthanc, FakePair]) -> None:
    target, pair = rig
    bridge = pair.start_new("run")
    first = hostile.honest.put(small_ct())
    wait_until(lambda: first in target.store.instances, "it works")
    before = peaks(bridge)
    sent = set()
    for name, answer in FEEDS.items():
        downs = len(bridge.logged("side_down", side="source"))
        hostile.turn("/changes", answer)
        bridge.wait_logged("side_down", downs + 1, side="source")
        hostile.turn("", None)
        sent.add(hostile.honest.put(small_ct()))
        wait_until(lambda: sent <= target.store.instances.keys(), f"it works after: {name}")
    problems = {line["problem"] for line in bridge.logged("side_down")}
    assert problems <= {"not_orthanc", "server_error", "timed_out", "unreachable"}
    assert bridge.logged("side_down", side="target") == []
    grown = {pid: peak - before[pid] for pid, peak in peaks(bridge).items() if pid in before}
    assert len(grown) == len(before), "nobody has died"
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown
    assert pair.parked() == {}
    assert "etc/passwd" not in bridge.stderr
    assert len(bridge.stderr) < 200_000, "and its content does not fill the log"


def test_a_row_that_names_no_identifier(
    hostile: HostileServer, rig: tuple[FakeOrthanc, FakePair]
) -> None:
    target, pair = rig
    bridge = pair.start_new("run")
    first = hostile.honest.put(small_ct())
    wait_until(lambda: first in target.store.instances, "it works")
    for strange in ("..", "../../../etc/passwd", "0" * 64):
        hostile.honest.store.add_change("NewInstance", strange)
    wait_until(
        lambda: sum(line["refused"] for line in bridge.logged("page_read", level="error")) == 3,
        "each is refused, once",
    )
    second = hostile.honest.put(small_ct())
    wait_until(lambda: second in target.store.instances, "the others go on")
    asked = [request for request in hostile.honest.requests if "/instances/" in request]
    assert all(first in request or second in request for request in asked)
    assert "etc/passwd" not in bridge.stderr


def test_a_proxy_that_knows_no_method_that_writes(
    hostile: HostileServer, rig: tuple[FakeOrthanc, FakePair]
) -> None:
    """As 0.1.0 needed none at the source: only retention does."""
    target, pair = rig
    hostile.writes = False
    bridge = pair.start_new("run")
    first = hostile.honest.put(small_ct())
    wait_until(lambda: first in target.store.instances, "it works")
    assert bridge.logged("side_down") == []


def test_files_that_are_none(hostile: HostileServer, rig: tuple[FakeOrthanc, FakePair]) -> None:
    target, pair = rig
    bridge = pair.start_new("run")
    sent = {hostile.honest.put(small_ct())}
    wait_until(lambda: sent <= target.store.instances.keys(), "it works")
    before = peaks(bridge)
    for name in ("endless", "endless headers", "one huge header", "compressed"):
        downs = len(bridge.logged("side_down", side="source"))
        hostile.turn("/instances/", FEEDS[name])
        sent.add(hostile.honest.put(small_ct()))
        bridge.wait_logged("side_down", downs + 1, side="source")
        hostile.turn("", None)
        wait_until(lambda: sent <= target.store.instances.keys(), f"it is fetched after: {name}")
    grown = {pid: peak - before[pid] for pid, peak in peaks(bridge).items() if pid in before}
    assert len(grown) == len(before), "nobody has died"
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown
    assert pair.parked() == {}
    assert not list(pair.home.parent.glob("tmp*")), "no spool file is left behind"


ESCAPES = "a\x1b[2Jb\nok        forged: line\u202ec\x9bd[red]e[/red]"


@pytest.mark.parametrize("command", ["doctor", "status", "plan", "check", "run --once"])
def test_what_servers_say_of_themselves_does_nothing_to_a_terminal(
    tmp_path: Path, command: str
) -> None:
    """A forged line of ``doctor`` was shown: names and versions come from the servers."""
    told: dict[str, object] = {
        "Name": ESCAPES, "Version": f"1.10.1{ESCAPES}", "DatabaseBackendPlugin": ESCAPES,
        "StorageAreaPlugin": ESCAPES, "IngestTranscoding": ESCAPES, "MaximumStorageMode": ESCAPES,
    }  # fmt: skip
    with FakeOrthanc(system=told) as source, FakeOrthanc(system=told) as target:
        source.put(small_ct())
        pair = FakePair(source.url, target.url, tmp_path / "home")
        if command != "run --once":
            pair.run("run", "--once")
        done = pair.run(*command.split())
        pair.close()
    assert done.exit_code in {0, 2, 3}, done.stderr
    for line in [*done.stdout.split("\n"), *done.stderr.split("\n")]:
        assert visible(line) == line, f"{line!r} acts on a terminal"
        assert not line.startswith("ok        forged"), "a line of their making"
    if command == "doctor":
        assert "forged" in done.stdout, "it shows what they said"
