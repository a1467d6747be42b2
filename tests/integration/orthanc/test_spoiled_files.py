"""A real source behind a proxy that changes files, and one whose own files are damaged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom.uid import RLELossless

from bridge.demo.orthanc_server import OrthancServer
from bridge.errors import InstanceError
from bridge.model import Reason
from tests.bridge_process import wait_until
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset, small_series
from tests.fault_bench import FOLLOWING_ONLY, Bench
from tests.spoiling_proxy import Spoil, SpoilingProxy

pytestmark = pytest.mark.orthanc

Spoiled = Callable[..., tuple[Bench, SpoilingProxy]]
ANOTHER: bytes = small_ct()
KINDS: dict[str, Spoil] = {
    "cut in the pixel data": lambda data: data[:-40],
    "cut in the data set": lambda data: data[: len(data) // 2],
    "cut in the file meta information": lambda data: data[:160],
    "too long": lambda data: data + b"\1" * 1001,
    "a page": lambda _: b"<!DOCTYPE html><html><body>Welcome</body></html>",
    "another instance": lambda _: ANOTHER,
}


@pytest.fixture
def spoiled(orthanc: Callable[..., OrthancServer], tmp_path: Path) -> Iterator[Spoiled]:
    with ExitStack() as stack:

        def begun(**settings: str) -> tuple[Bench, SpoilingProxy]:
            source, target = (orthanc(name, config=FOLLOWING_ONLY) for name in ("source", "target"))
            proxy = stack.enter_context(SpoilingProxy(source.url))
            bench = Bench(source.url, target.url, tmp_path, {"SOURCE_URL": proxy.url} | settings)
            return stack.enter_context(bench), proxy

        yield begun


def _rle() -> bytes:
    dataset = small_ct_dataset()
    dataset.compress(RLELossless, generate_instance_uid=False)
    return file_bytes(dataset)


@pytest.mark.parametrize("make", [small_ct, _rle], ids=["native", "RLE"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_spoiled_once_is_delivered_by_the_next_attempt(
    spoiled: Spoiled, kind: str, make: Callable[[], bytes]
) -> None:
    bench, proxy = spoiled()
    sent = make()
    bad, *others = bench.send(sent), *bench.send_all(small_series(3))
    proxy.spoil(KINDS[kind], instance_id=bad, times=1)
    done = bench.run("run", "--once", "--json")
    assert proxy.spoiled == [f"/instances/{bad}/file"]
    assert done.exit_code == 0, done.stderr
    assert bench.parked() == {}
    assert {bad, *others} <= bench.held()
    if make is small_ct:
        assert bench.file(bad) == sent


@pytest.mark.parametrize("forward", ["park", "forward"])
def test_one_file_that_is_spoiled_each_time_is_parked_with_the_sources_name(
    spoiled: Spoiled, forward: str
) -> None:
    bench, proxy = spoiled(ATTEMPTS="2", ON_UNDECODABLE=forward)
    bad = bench.send(_rle())
    others = bench.send_all(small_series(3))
    proxy.spoil(lambda data: data[:-40], instance_id=bad)
    done = bench.run("run", "--once", "--json")
    assert done.exit_code == 3, done.stderr
    assert bench.held() == set(others)
    parked = bench.parked()
    assert list(parked) == [bad]
    assert parked[bad].reason is Reason.SERVER_REFUSES_INSTANCE
    assert parked[bad].attempts == 2
    assert re.match("The source (serves other|sent the file of another) inst", parked[bad].message)
    assert "cut short" in parked[bad].message
    proxy.heal()
    retried = bench.run("parked", "retry", "--all")
    assert retried.exit_code == 0, retried.stderr
    assert bad in bench.held()


def test_a_proxy_that_cuts_every_file_is_an_outage(spoiled: Spoiled) -> None:
    """Nothing is parked, /health names the source, and all goes on when the proxy is mended."""
    bench, proxy = spoiled()
    before = bench.send_all(small_series(4))
    bridge = bench.start("run")
    bench.await_all(before)
    bench.await_settled(bridge)
    proxy.spoil(lambda data: data[:-40])
    sent = bench.send_all(small_series(4))
    bridge.wait_reason("source_server_error")
    again = len(proxy.spoiled) + 2
    wait_until(lambda: len(proxy.spoiled) >= again, "it is tried again", 60.0)
    bench.assert_untouched()
    assert bench.held() == set(before)
    proxy.heal()
    bench.await_all(sent)
    bench.await_settled(bridge)
    bench.assert_untouched()


def test_a_file_that_is_cut_on_the_sources_disk_names_the_source(
    orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> None:
    source, target = (
        orthanc(name, config=FOLLOWING_ONLY | {"MaximumStorageCacheSize": 0})
        for name in ("source", "target")
    )
    with Bench(source.url, target.url, tmp_path, {"ATTEMPTS": "2"}) as bench:
        bad, *others = bench.send_all(small_series(4))
        uuid = bench.source.stored_file(bad).uuid
        (file,) = (source.directory / "storage").rglob(uuid)
        file.write_bytes(file.read_bytes()[:-40])
        done = bench.run("run", "--once", "--json")
        assert done.exit_code == 3, done.stderr
        assert bench.held() == set(others)
        assert bench.parked()[bad].reason is Reason.SERVER_REFUSES_INSTANCE
        assert "The source" in bench.parked()[bad].message


def _flipped(data: bytes) -> bytes:
    """Change one byte of native pixels: the file parses, and nothing about it is strange."""
    assert data[-1:] == b"\0"
    return data[:-2] + b"\1\0"


@pytest.mark.parametrize("proof", ["answer", "stored"])
def test_a_byte_of_native_pixels_passes_and_a_deep_check_finds_it(
    spoiled: Spoiled, proof: str
) -> None:
    """The documented limit of both proofs."""
    bench, proxy = spoiled(PROOF=proof)
    sent = small_ct()
    instance_id = bench.send(sent)
    proxy.spoil(_flipped, times=1)
    done = bench.run("run", "--once")
    assert done.exit_code == 0, done.stderr
    assert bench.file(instance_id) == _flipped(sent)
    assert bench.run("check", "--deep").exit_code == 3


def test_retention_delivers_no_file_that_was_changed_on_its_way(spoiled: Spoiled) -> None:
    bench, proxy = spoiled(SOURCE_RETENTION="30d", PROOF="stored")
    sent = small_ct()
    instance_id = bench.send(sent)
    proxy.spoil(_flipped, times=1)
    done = bench.run("run", "--once")
    assert done.exit_code == 0, done.stderr
    assert len(proxy.spoiled) == 1
    assert bench.file(instance_id) == sent
    assert bench.arrivals() == [instance_id], "the changed one was never sent"


def test_a_verification_finds_and_repairs_what_was_changed_on_its_way(spoiled: Spoiled) -> None:
    bench, proxy = spoiled(VERIFY_EVERY="1s", VERIFY_RATE="0", REPAIR="all")
    bridge = bench.start("run")
    sent = small_ct()
    proxy.spoil(_flipped, times=1)
    instance_id = bench.send(sent)
    bench.await_all([instance_id])
    assert proxy.spoiled

    def is_repaired() -> bool:
        try:
            return bench.file(instance_id) == sent
        except InstanceError:
            return False  # it is deleted at this moment, and sent in the next

    wait_until(is_repaired, "the copy is repaired", 60.0)
    assert bridge.is_running
