"""Servers that go away: killed, stopped, refusing, hidden. Nothing is parked, work goes on (G4)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.credentials import Credentials
from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import reasons_in, wait_until
from tests.dicom_samples import small_ct, small_series
from tests.fake_orthanc import FakeOrthanc, Hang, Respond
from tests.fault_bench import (
    FOLLOWING_ONLY,
    Bench,
    assert_few_words,
    await_reason,
    delivered_count,
    endure,
)

Orthancs = Callable[..., OrthancServer]
Fakes = Callable[..., FakeOrthanc]

SIDES = ("source", "target")
MANY = 400
"""So many that they are not all delivered before this process, which may be late, strikes."""
HANG_S = 4.0
"""BRIDGE_HTTP_TIMEOUT_S is 2 here: a call to a silent server ends within twice that."""


def _two(orthanc: Orthancs) -> dict[str, OrthancServer]:
    return {side: orthanc(side, config=FOLLOWING_ONLY) for side in SIDES}


@pytest.mark.orthanc
@pytest.mark.parametrize("down", [("source",), ("target",), SIDES], ids="+".join)
def test_down_before_it_starts(orthanc: Orthancs, tmp_path: Path, down: tuple[str, ...]) -> None:
    servers = _two(orthanc)
    with Bench(servers["source"].url, servers["target"].url, tmp_path) as bench:
        sent = bench.send_all(small_series(3))
        for side in down:
            servers[side].kill()
        bridge = bench.start("run")
        for side in down:
            said = await_reason(bridge, f"{side}_unreachable")
            assert servers[side].url in str(said["reasons"])
        assert bridge.get("/livez")[0] == 200

        def recover() -> None:
            for side in down:
                servers[side].start()

        endure(bench, bridge, f"{down[0]}_unreachable", recover)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=len(down))


@pytest.mark.orthanc
def test_a_source_without_its_files(orthanc: Orthancs, tmp_path: Path) -> None:
    """Its index is there, the disk with the files is not: no instance is to blame."""
    uncached = FOLLOWING_ONLY | {"MaximumStorageCacheSize": 0}
    source, target = orthanc("source", config=uncached), orthanc("target", config=FOLLOWING_ONLY)
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(5))
        storage = source.directory / "storage"
        files = [path for path in storage.iterdir() if path.is_dir()]
        for path in files:
            path.rename(tmp_path / path.name)
        bridge = bench.start("run", ATTEMPTS="1")

        def recover() -> None:
            for path in files:
                (tmp_path / path.name).rename(path)

        endure(bench, bridge, "source_server_error", recover)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)


@pytest.mark.orthanc
def test_the_only_file_of_a_source_is_lost(orthanc: Orthancs, tmp_path: Path) -> None:
    """Its index answers, and nothing else is there to compare with: this instance is to blame."""
    uncached = FOLLOWING_ONLY | {"MaximumStorageCacheSize": 0}
    source, target = orthanc("source", config=uncached), orthanc("target", config=FOLLOWING_ONLY)
    with Bench(source.url, target.url, tmp_path) as bench:
        (sent,) = bench.send_all(small_series(1))
        (file,) = (source.directory / "storage").glob("??/??/*")
        file.rename(tmp_path / file.name)
        done = bench.run("run", "--once")
        assert done.exit_code == 3, done.stderr
        assert bench.parked()[sent].reason == "server_refuses_instance"
        assert bench.checkpoint() >= bench.last()
        (tmp_path / file.name).rename(file)
        assert bench.run("parked", "retry", "--all").exit_code == 0
        assert bench.held() == {sent}


@pytest.mark.orthanc
@pytest.mark.parametrize("down", [("source",), ("target",), SIDES], ids="+".join)
def test_killed_at_work(orthanc: Orthancs, tmp_path: Path, down: tuple[str, ...]) -> None:
    servers = _two(orthanc)
    with Bench(servers["source"].url, servers["target"].url, tmp_path) as bench:
        sent = bench.send_all(small_series(MANY, rows=64, columns=64))
        bridge = bench.start("run")
        bridge.wait_logged("instance_delivered", 5)
        for side in down:
            servers[side].kill()
        assert delivered_count(bridge) < len(sent)

        def recover() -> None:
            for side in down:
                servers[side].start()

        endure(bench, bridge, f"{down[0]}_unreachable", recover)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=len(down))


@pytest.mark.orthanc
@pytest.mark.parametrize("side", SIDES)
def test_killed_while_idle(orthanc: Orthancs, tmp_path: Path, side: str) -> None:
    servers = _two(orthanc)
    with Bench(servers["source"].url, servers["target"].url, tmp_path) as bench:
        sent = [bench.send(small_ct())]
        bridge = bench.start("run")
        bench.await_all(sent)
        bench.await_settled(bridge)
        servers[side].kill()
        await_reason(bridge, f"{side}_unreachable")
        servers[side].start()
        bench.await_settled(bridge)
        sent.append(bench.send(small_ct()))
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=1)


@pytest.mark.orthanc
@pytest.mark.parametrize("side", SIDES)
def test_a_server_that_accepts_and_never_answers(
    orthanc: Orthancs, tmp_path: Path, side: str
) -> None:
    servers = _two(orthanc)
    with Bench(servers["source"].url, servers["target"].url, tmp_path) as bench:
        sent = bench.send_all(small_series(MANY, rows=64, columns=64))
        bridge = bench.start("run")
        bridge.wait_logged("instance_delivered", 5)
        servers[side].suspend()
        assert delivered_count(bridge) < len(sent)
        endure(bench, bridge, f"{side}_timed_out", servers[side].resume, hang_s=HANG_S)
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=1)


def test_killed_again_and_again_while_the_same_instances_are_under_way(
    fake_orthanc: Fakes, tmp_path: Path
) -> None:
    """Instances under way in two outages are under suspicion, and sent alone from then on: the
    innocent ones may lose an attempt when the server dies in their presence, never their place.
    """
    source, target = fake_orthanc(), fake_orthanc()
    with Bench(source.url, target.url, tmp_path) as bench:
        bridge = bench.start("run")
        bench.await_settled(bridge)
        target.script("POST /instances", Hang())
        sent = bench.send_all(small_series(8))
        for _ in range(4):
            bridge.wait_health(lambda said: said["in_flight"] > 0, "instances under way")
            target.stop()
            await_reason(bridge, "target_unreachable")
            target.start()
        target.behave()
        bench.await_all(sent, timeout_s=60)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)


STATUSES = [
    (401, "login_refused"),
    (403, "forbidden"),
    (500, "server_error"),
    (503, "server_error"),
    (507, "storage_full"),
]


@pytest.mark.parametrize("route", ["POST /instances", ""], ids=["uploads", "everything"])
def test_a_target_that_refuses_for_a_while(fake_orthanc: Fakes, tmp_path: Path, route: str) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    with Bench(source.url, target.url, tmp_path) as bench:
        bridge = bench.start("run")
        sent = bench.send_all(small_series(3))
        bench.await_all(sent)
        for status, problem in STATUSES:
            target.script(route, Respond(status))
            sent += bench.send_all(small_series(20))
            await_reason(bridge, f"target_{problem}")
            asked = len(target.requests)
            endure(bench, bridge, f"target_{problem}", target.behave)
            assert len(target.requests) - asked < 200, "a server in trouble is not flooded"
            bench.await_all(sent)
            bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=len(STATUSES))


@pytest.mark.parametrize("route", [r"GET /instances/[^/]+/file", ""], ids=["files", "everything"])
def test_a_source_that_refuses_for_a_while(fake_orthanc: Fakes, tmp_path: Path, route: str) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    with Bench(source.url, target.url, tmp_path) as bench:
        bridge = bench.start("run")
        sent = bench.send_all(small_series(3))
        bench.await_all(sent)
        for status, problem in STATUSES[:-1]:
            source.script(route, Respond(status))
            sent += [source.put(data) for data in small_series(20)]
            endure(bench, bridge, f"source_{problem}", source.behave)
            bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=len(STATUSES) - 1)


@pytest.mark.orthanc
def test_a_password_that_is_corrected_while_it_runs(orthanc: Orthancs, tmp_path: Path) -> None:
    source = orthanc("source", config=FOLLOWING_ONLY)
    login = Credentials("bridge", "right")
    target = orthanc(
        "target", config=FOLLOWING_ONLY, username=login.username, password=login.password
    )
    secret = tmp_path / "password"
    secret.write_text("wrong")
    user = {"TARGET_USERNAME": "bridge", "TARGET_PASSWORD_FILE": str(secret)}
    with Bench(source.url, target.url, tmp_path, user, login=login) as bench:
        sent = bench.send_all(small_series(5))
        bridge = bench.start("run")
        endure(bench, bridge, "target_login_refused", lambda: secret.write_text("right"))
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=1)


@pytest.mark.parametrize("side", SIDES)
def test_a_name_that_does_not_resolve(fake_orthanc: Fakes, tmp_path: Path, side: str) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    with Bench(source.url, target.url, tmp_path) as bench:
        sent = bench.send_all(small_series(2))
        nowhere = {f"{side.upper()}_URL": "http://orthanc.invalid:8042"}
        bridge = bench.start("run", **nowhere)
        said = await_reason(bridge, f"{side}_unreachable")
        (reason,) = (r for r in said["reasons"] if r["code"].startswith(side))
        assert "does not resolve" in reason["message"]
        assert f"BRIDGE_{side.upper()}_URL" in reason["advice"]
        assert_few_words(bridge, outages=1)
        bridge.kill()
        bench.assert_untouched()
        assert bench.run("run", "--once").exit_code == 0
        bench.assert_delivered_once(sent)


def test_a_long_outage_is_told_in_few_lines(fake_orthanc: Fakes, tmp_path: Path) -> None:
    """At the shortest poll interval, so that dozens of probes and trials are silent."""
    source, target = fake_orthanc(), fake_orthanc()
    with Bench(source.url, target.url, tmp_path, {"POLL_INTERVAL_S": "0.05"}) as bench:
        target.script("POST /instances", Respond(507))
        sent = bench.send_all(small_series(30))
        bridge = bench.start("run")
        wait_until(lambda: len(target.requests) >= 60, "many trials", 40)
        bridge.wait_health(lambda said: reasons_in(said) == ["target_storage_full"], "no other")
        (line,) = bridge.logged("side_down")
        assert line["problem"] == "storage_full"
        assert_few_words(bridge, outages=1)
        target.behave()
        bench.await_all(sent)
        bench.await_settled(bridge)
        bench.assert_delivered_once(sent)
        assert_few_words(bridge, outages=1)
