"""A command that is a fork (tests/preloaded.py) is a process like one that was started anew."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.bridge_process import BridgeProcess, is_alive, run_bridge, start_process, wait_until
from tests.dicom_samples import small_series
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair
from tests.preloaded import STARTED_WITH, can_be_preloaded


def outcome(home: Path, *, fresh: bool) -> tuple[object, ...]:
    out, err = home / f"out-{fresh}", home / f"err-{fresh}"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = start_process(
            "tests.process_probe",
            ["first", "--second", "third é"],
            environment=STARTED_WITH | {"PATH": "/bin", "BRIDGE_X": "1"},
            cwd=home,
            stdout=stdout.fileno(),
            stderr=stderr.fileno(),
            own_session=True,
            fresh=fresh,
        )
        code = process.wait(30)
    return code, out.read_text(), err.read_text()


def test_it_finds_and_leaves_what_a_new_interpreter_would(tmp_path: Path) -> None:
    new = outcome(tmp_path, fresh=True)
    assert new[0] == 7
    assert f'"parent": {os.getpid()}' in str(new[1])
    assert outcome(tmp_path, fresh=False) == new


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "PYTHONPATH", "LD_PRELOAD", "TZ", "LC_ALL"])
def test_what_python_or_the_loader_reads_at_the_start_needs_a_new_one(name: str) -> None:
    settings = STARTED_WITH | {"PATH": "/bin", "BRIDGE_SOURCE_URL": "http://a"}
    assert can_be_preloaded(settings)
    assert not can_be_preloaded(settings | {name: "1"})


def test_exit_codes_and_words(tmp_path: Path) -> None:
    assert run_bridge("--version", settings={}, cwd=tmp_path).exit_code == 0
    refused = run_bridge("no-such-command", settings={}, cwd=tmp_path)
    assert refused.exit_code == 2
    assert "no-such-command" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_signals_reach_it_and_its_workers_end_with_it(tmp_path: Path, number: int) -> None:
    with FakeOrthanc() as source, FakeOrthanc() as target:
        sent = [source.put(data) for data in small_series(3)]
        pair = FakePair(source.url, target.url, tmp_path / "home")
        with BridgeProcess("run", settings=pair.environment, cwd=pair.home) as bridge:
            bridge.wait_logged("instance_delivered", len(sent))
            workers = bridge.workers()
            assert len(workers) == 2
            bridge.send(signal.Signals(number))
            assert bridge.wait() == (-number if number == signal.SIGKILL else 0)
            wait_until(lambda: not any(map(is_alive, workers)), "its workers are gone")
