"""doctor: what it finds at fake servers and on this machine, with what to do and the exit code."""

from __future__ import annotations

import datetime
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge import diagnosis
from bridge.cli import exit_code_of
from bridge.core.errors import EXIT_CONFIGURATION, EXIT_SOURCE, EXIT_STATE, EXIT_TARGET
from bridge.diagnosis import Diagnosis, machine
from bridge.diagnosis.finding import ERROR, OK, WARNING
from bridge.entry import Entry
from bridge.ledger import Ledger
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, Respond

Start = Callable[..., FakeOrthanc]
Diagnosed = Callable[..., list[Diagnosis]]
NEW = {"version": "1.12.7", "extended_changes": True}


@pytest.fixture
def diagnosed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Diagnosed:
    """Diagnose with these servers; workers are not started again and again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "_start_one", lambda _: "")

    def run(source: FakeOrthanc, target: FakeOrthanc, **settings: str) -> list[Diagnosis]:
        for name, value in {
            "SOURCE_URL": source.url,
            "TARGET_URL": target.url,
            "STATE_PATH": str(tmp_path / "state.sqlite3"),
            "HTTP_TIMEOUT_S": "2",
            **settings,
        }.items():
            monkeypatch.setenv(f"BRIDGE_{name}", value)
        return diagnosis.diagnose()

    return run


def said(found: list[Diagnosis], level: str) -> list[tuple[str, str]]:
    return [(one.subject, one.message) for one in found if one.level == level]


def test_two_healthy_servers_have_no_warnings_and_are_left_as_they_were(
    fake_orthanc: Start, diagnosed: Diagnosed, tmp_path: Path
) -> None:
    source, target = fake_orthanc(**NEW), fake_orthanc(**NEW)
    source.put(small_ct())
    found = diagnosed(source, target)
    assert said(found, ERROR) == []
    assert said(found, WARNING) == []
    messages = " / ".join(message for _, message in said(found, OK))
    for part in (
        "Orthanc 1.12.7",
        "the feed can be read; its last change is 4",
        "filtered on the server",
        "listed and fetched",
        "uploads are allowed",
        "clock agrees",
        "will be created by run",
        "worker processes start",
        "OpenJPEG (pylibjpeg-openjpeg ",
    ):
        assert part in messages, part
    assert list(target.store.instances) == []
    assert len(source.store.instances) == 1
    assert not (tmp_path / "state.sqlite3").exists()


@pytest.mark.parametrize(
    ("side", "route", "status", "part"),
    [
        ("source", "GET /changes", 403, "GET /changes"),
        ("source", "GET /instances/", 403, "forbids"),
        ("target", "POST /instances", 403, "POST /instances"),
        ("target", "POST /instances", 401, "refused our login"),
    ],
)
def test_a_right_that_is_missing_is_named(
    *, fake_orthanc: Start, diagnosed: Diagnosed, side: str, route: str, status: int, part: str
) -> None:
    servers = {"source": fake_orthanc(), "target": fake_orthanc()}
    servers["source"].put(small_ct())
    servers[side].script(route, Respond(status))
    found = diagnosed(servers["source"], servers["target"])
    errors = [one for one in found if one.level == ERROR]
    assert [one.subject for one in errors] == [side]
    assert part in errors[0].message
    assert errors[0].advice
    assert errors[0].exit_code == {"source": EXIT_SOURCE, "target": EXIT_TARGET}[side]


def test_one_server_behind_two_names_is_told(fake_orthanc: Start, diagnosed: Diagnosed) -> None:
    server, other = fake_orthanc(), fake_orthanc()
    server.put(small_ct())
    name = server.url.replace("127.0.0.1", "localhost")
    found = diagnosed(server, other, TARGET_URL=name)
    assert [s for s, m in said(found, WARNING) if "one server behind two" in m] == ["target"]
    assert said(diagnosed(server, other), WARNING) == []


def test_deleting_is_probed_only_when_the_bridge_would_delete(
    fake_orthanc: Start, diagnosed: Diagnosed
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    source.script("DELETE", Respond(403))
    assert said(diagnosed(source, target), ERROR) == []
    found = diagnosed(source, target, SOURCE_RETENTION="24h")
    assert [subject for subject, _ in said(found, ERROR)] == ["source"]


@pytest.mark.parametrize(
    ("side", "system", "level", "part"),
    [
        ("source", {"MaximumPatientCount": 1, "MaximumStorageMode": "Recycle"}, ERROR, "recycles"),
        ("source", {"MaximumStorageSize": 9, "MaximumStorageMode": "Recycle"}, WARNING, "0% full"),
        ("source", {"MaximumPatientCount": 1, "MaximumStorageMode": "Reject"}, WARNING, "100%"),
        ("source", {"OverwriteInstances": True}, WARNING, "keeps the first version"),
        ("target", {"IngestTranscoding": "1.2.840.10008.1.2.1"}, WARNING, "IngestTranscoding"),
        ("target", {"MaximumStorageSize": 9, "MaximumStorageMode": "Recycle"}, WARNING, "recycles"),
        ("target", {"ReadOnly": True}, ERROR, "read-only"),
    ],
)
def test_settings_that_lose_data_are_found(
    *,
    fake_orthanc: Start,
    diagnosed: Diagnosed,
    tmp_path: Path,
    side: str,
    system: dict[str, object],
    level: str,
    part: str,
) -> None:
    calm = {"OverwriteInstances": False}
    start = {name: calm | (system if name == side else {}) for name in ("source", "target")}
    servers = {name: fake_orthanc(**NEW, system=told) for name, told in start.items()}
    servers["source"].put(small_ct())
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.commit(Entry(checkpoint=1))
    found = diagnosed(servers["source"], servers["target"])
    worst = [(one.level, one.message) for one in found if one.level != OK]
    assert [seen for seen, _ in worst] == [level], worst
    assert part in worst[0][1]


def test_a_clock_that_is_wrong_is_told_with_its_direction(
    fake_orthanc: Start, diagnosed: Diagnosed
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    late = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=90)
    source.script("GET /tools/now", Respond(200, late.strftime("%Y%m%dT%H%M%S").encode()))
    warnings = [one for one in diagnosed(source, target) if one.level == WARNING]
    assert [one.subject for one in warnings] == ["source"]
    assert "behind ours" in warnings[0].message
    assert any(f" {seconds} s" in warnings[0].message for seconds in range(89, 96))


def test_a_clock_that_cannot_be_read_is_no_fault(fake_orthanc: Start, diagnosed: Diagnosed) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    target.script("GET /tools/now", Respond(403))
    found = diagnosed(source, target)
    assert said(found, WARNING) + said(found, ERROR) == []


def test_a_file_that_is_listed_and_lacking_is_a_warning(
    fake_orthanc: Start, diagnosed: Diagnosed
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    instance_id = source.put(small_ct())
    source.script(f"GET /instances/{instance_id}/file", Respond(404))
    warnings = said(diagnosed(source, target), WARNING)
    assert [subject for subject, _ in warnings] == ["source"]
    assert "gives no file" in warnings[0][1]


def test_without_semaphores_it_says_that_no_worker_can_start(
    fake_orthanc: Start, diagnosed: Diagnosed, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoSemaphores:
        def Semaphore(self) -> None:  # noqa: N802  (multiprocessing's name)
            raise OSError(38, "Function not implemented")

    monkeypatch.setattr(multiprocessing, "get_context", lambda _: NoSemaphores())
    errors = [one for one in diagnosed(fake_orthanc(), fake_orthanc()) if one.level == ERROR]
    assert [(one.subject, one.exit_code) for one in errors] == [("workers", EXIT_CONFIGURATION)]
    assert str(machine.SHARED_MEMORY) in errors[0].advice


def test_a_worker_that_has_too_little_memory_is_found() -> None:
    assert machine._start_one(2048 * 1024 * 1024) == ""
    assert machine._start_one(64 * 1024 * 1024) != ""


def test_directories_that_cannot_be_used(
    fake_orthanc: Start, diagnosed: Diagnosed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = machine.os.access  # type: ignore[attr-defined]
    locked = tmp_path / "locked"
    locked.mkdir()
    monkeypatch.setattr(
        "bridge.diagnosis.machine.os.access", lambda path, mode: path != locked and real(path, mode)
    )
    state = str(locked / "deeper" / "state.sqlite3")
    found = diagnosed(
        fake_orthanc(), fake_orthanc(), STATE_PATH=state, AUDIT_PATH=str(locked / "audit.jsonl")
    )
    errors = [(one.subject, one.exit_code) for one in found if one.level == ERROR]
    assert errors == [("state", EXIT_STATE), ("audit", EXIT_STATE)]


def test_the_exit_code_is_that_of_the_first_error(
    fake_orthanc: Start,
    diagnosed: Diagnosed,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    diagnosed(source, target)
    assert exit_code_of(["doctor"]) == 0
    target.stop()
    assert exit_code_of(["doctor"]) == EXIT_TARGET
    assert "-> Check that it is running" in capsys.readouterr().out
    monkeypatch.setenv("BRIDGE_TARGET_URL", "nonsense")
    assert exit_code_of(["doctor", "--json"]) == EXIT_CONFIGURATION
