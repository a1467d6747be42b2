"""The cluster's settings, handshake and reports, without a cluster."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.config import load_settings
from bridge.errors import ConfigurationError
from bridge.events import InstanceRetried, Progress, RefusedWorker, SideView, Workforce
from bridge.model import ExecutorFailed
from bridge.monitoring.health import HealthLimits, judge, unready
from bridge.worker.dask.build import Build, build_of_this_installation, build_refusal
from tests.bridge_process import REPOSITORY, process_environment
from tests.pipeline_bench import DELIVERED, Bench, Stuck

OWN = Build("1.0", "c0de", ("j2k/OpenJPEG openjpeg 2.0", "rle/packbits imagecodecs 1"))
UNUSABLE = Workforce(
    0, 0, place="tcp://s:1", problem="no_workers", message="None.", advice="Start one."
)
MANY = [f"i{number:02}" for number in range(20)]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SOURCE_URL", "http://source:8042")
    monkeypatch.setenv("BRIDGE_TARGET_URL", "http://target:8042")


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        (OWN, ""),
        (replace(OWN, version="1.1"), "orthanc-bridge 1.1, this bridge is 1.0"),
        (replace(OWN, problem="j2k: OpenJPEG fails"), "j2k: OpenJPEG fails"),
        (replace(OWN, codecs=OWN.codecs[:1]), "here: rle/packbits imagecodecs 1"),
        (replace(OWN, codecs=(OWN.codecs[0], "rle/packbits imagecodecs 2")), "imagecodecs 2"),
        (replace(OWN, code="other"), "code differs"),
    ],
)
def test_who_is_refused_and_why(worker: Build, said: str) -> None:
    found = build_refusal(worker, OWN)
    assert bool(found) is bool(said)
    assert said in found
    assert (worker.digest == OWN.digest) is (not said or bool(worker.problem))


def test_a_bridge_that_is_broken_itself_does_not_blame_its_workers() -> None:
    assert "this bridge cannot decode" in build_refusal(
        OWN, replace(OWN, codecs=(), problem="killed")
    )


def test_a_worker_that_was_repaired_says_so_when_it_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = pytest.importorskip("bridge.worker.dask.remote")
    builds = [replace(OWN, problem="killed"), OWN, replace(OWN, version="1.1")]
    monkeypatch.setattr(remote, "_BUILDS", [], raising=False)
    monkeypatch.setattr(remote, "build_of_this_installation", lambda: builds.pop(0))
    assert [remote.own_build() for _ in range(3)] == [replace(OWN, problem="killed"), OWN, OWN]


def test_this_installation_is_its_own_equal_and_complete() -> None:
    build = build_of_this_installation()
    assert build.problem == ""
    assert any(line.startswith("j2k/OpenJPEG ") for line in build.codecs)
    assert build_refusal(build, build) == ""


@pytest.mark.parametrize(
    "value", ["tcp://scheduler:8786", "tcp://10.0.0.1:8786", "tcp://[::1]:8786", "local"]
)
def test_addresses_that_are_taken(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BRIDGE_EXECUTOR", value)
    assert load_settings().executor == value


@pytest.mark.parametrize(
    "value",
    [
        "tcp://scheduler",
        "tcp://scheduler:99999",
        "tcp://:8786",
        "tcp://scheduler:8786/x",
        "tcp://user:secret@scheduler:8786",
        "http://scheduler:8786",
        "scheduler:8786",
    ],
)
def test_addresses_that_are_not(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BRIDGE_EXECUTOR", value)
    with pytest.raises(ConfigurationError, match="BRIDGE_EXECUTOR"):
        load_settings()


def test_tls_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "some.pem"
    file.touch()
    monkeypatch.setenv("BRIDGE_EXECUTOR", "tls://scheduler:8786")
    with pytest.raises(ConfigurationError, match="BRIDGE_DASK_TLS_CA_FILE"):
        load_settings()
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.setenv(f"BRIDGE_DASK_TLS_{name}_FILE", str(file))
    assert load_settings().dask_tls_key_file == str(file)
    monkeypatch.setenv("BRIDGE_EXECUTOR", "tcp://scheduler:8786")
    with pytest.raises(ConfigurationError, match="not be encrypted"):
        load_settings()


def test_without_dask_it_says_what_to_install(tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError('No module named distributed', name='distributed')\n"
    (tmp_path / "distributed.py").write_text(missing)
    settings = {
        "BRIDGE_SOURCE_URL": "http://127.0.0.1:9",
        "BRIDGE_TARGET_URL": "http://127.0.0.1:10",
        "BRIDGE_EXECUTOR": "tcp://127.0.0.1:8786",
        "BRIDGE_HEALTH_PORT": "0",
        "PYTHONPATH": f"{tmp_path}:{REPOSITORY}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "run"],
        env=process_environment(settings),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Install orthanc-bridge[dask]" in done.stderr


def test_dask_is_imported_only_when_it_is_configured() -> None:
    code = (
        "import sys, bridge.service, bridge.wiring, bridge.commands.check\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('dask', 'distributed')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_worker_is_a_reason_in_health_and_not_ready() -> None:
    progress = Progress(
        source=SideView(), target=SideView(), workforce=UNUSABLE, executor_error="lost", waiting=3
    )
    found = judge(progress, {}, HealthLimits(), now=10_000.0)
    assert [finding.code for finding in found] == ["no_workers"], "told once"
    assert found[0].advice == "Start one."
    assert unready(progress)


def test_refused_workers_are_a_reason_in_health_while_others_work() -> None:
    workforce = Workforce(
        2, 2, place="tcp://s:1", refused=(RefusedWorker("tcp://w:1", "Old."),), refused_count=1
    )
    progress = Progress(source=SideView(), target=SideView(), workforce=workforce)
    [finding] = judge(progress, {}, HealthLimits(), now=0.0)
    assert finding.code == "workers_refused"
    assert "tcp://w:1: Old." in finding.message
    assert not unready(progress), "the others work"


def test_the_window_follows_the_workers() -> None:
    bench = Bench(window=0, work_s=1.0)
    bench.workers = Workforce(1, 1)
    grown = Workforce(4, 4)
    bench.time.at(10.0, lambda: setattr(bench, "workers", grown))
    bench.run([f"i{number:03}" for number in range(100)])
    alone = [len(p.in_flight) for p in bench.progress if p.workforce.threads == 1]
    assert 0 < max(alone) <= 3
    assert bench.most_running == 12
    assert bench.summary.delivered == 100


def test_a_window_that_is_set_is_kept() -> None:
    bench = Bench(window=5)
    bench.workers = Workforce(100, 100)
    bench.run(MANY)
    assert bench.most_running == 5


def test_without_workers_nothing_is_started_and_it_waits_for_ever() -> None:
    bench = Bench()
    bench.workers = UNUSABLE
    with pytest.raises(Stuck):
        bench.run(MANY)
    assert not bench.started
    assert bench.progress[-1].waiting > 0, "the feed is read all the same"


def test_it_goes_on_when_there_are_workers_again() -> None:
    bench = Bench(patience_s=30.0)
    bench.workers = UNUSABLE
    bench.time.at(29.0, lambda: setattr(bench, "workers", Workforce(2, 2)))
    assert bench.run(MANY).delivered == 20
    assert not bench.happened(InstanceRetried)


def test_patience_without_workers_ends() -> None:
    bench = Bench(patience_s=30.0)
    bench.workers = UNUSABLE
    with pytest.raises(ConfigurationError, match="Start one") as error:
        bench.run(MANY)
    assert error.value.exit_code == 2
    assert bench.time.s == pytest.approx(30.0, abs=2.0)


def test_one_lost_worker_does_not_end_a_command_while_its_task_is_done_elsewhere() -> None:
    bench = Bench(patience_s=60.0, work_s=200.0)
    bench.script["large"] = [ExecutorFailed("The worker a is gone."), DELIVERED]
    assert bench.run(["large"]).delivered == 1


def test_workers_that_lose_every_task_end_a_command() -> None:
    bench = Bench(patience_s=60.0, work_s=1.0)
    bench.script["any"] = [ExecutorFailed("The worker a is gone.")]
    with pytest.raises(ConfigurationError, match="is gone"):
        bench.run(["any"])
    assert bench.time.s == pytest.approx(60.0, abs=5.0)
