"""doctor: what it finds at fake servers and on this machine, with what to do and the exit code."""

from __future__ import annotations

import datetime
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge import doctor
from bridge.cli import exit_code_of
from bridge.doctor import Diagnosis, machine
from bridge.doctor.diagnosis import ERROR, NOTE, OK, WARNING
from bridge.errors import EXIT_CONFIGURATION, EXIT_SOURCE, EXIT_STATE, EXIT_TARGET
from bridge.ledger.records import Entry
from bridge.ledger.store import Ledger
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
        return doctor.diagnose()

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
        "the feed can be read; its newest change is 4",
        "the source filters changes",
        "listed and fetched",
        "uploads are allowed",
        "clock agrees",
        "will be created by run",
        "worker processes can be started",
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
        ("target", "POST /instances", 401, "refused the login"),
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


LIMITED = {"MaximumStorageSize": 100, "MaximumStorageMode": "Recycle"}


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize(
    ("side", "route", "settings", "level", "part"),
    [
        ("target", "GET /instances[?]", {}, NOTE, "cannot be listed, which run does not need"),
        ("source", "GET /instances[?]", {}, NOTE, "run follows the feed without it"),
        ("source", "GET /instances[?]", {"START": "snapshot"}, ERROR, "/instances"),
        ("source", "GET /instances/[^/]+/metadata", {}, OK, "instances can be listed and fetched"),
        ("source", "GET /statistics", {}, WARNING, "how full it is could not be read"),
    ],
)
def test_a_right_that_run_can_do_without_is_no_error(
    *,
    fake_orthanc: Start,
    diagnosed: Diagnosed,
    side: str,
    route: str,
    settings: dict[str, str],
    level: str,
    part: str,
    status: int,
) -> None:
    """doctor judges as run does: what only commands use is a note, with who needs it."""
    source, target = fake_orthanc(**NEW, system=LIMITED), fake_orthanc(**NEW)
    source.put(small_ct())
    {"source": source, "target": target}[side].script(route, Respond(status))
    found = diagnosed(source, target, **settings)
    assert [one.subject for one in found if one.level == ERROR] == (
        [side] if level == ERROR else []
    )
    (one,) = (one for one in found if one.subject == side and part in one.message)
    assert one.level == level
    assert one.advice or level == OK


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_fails_at_its_list_is_an_outage(
    fake_orthanc: Start, diagnosed: Diagnosed, side: str
) -> None:
    servers = {"source": fake_orthanc(**NEW), "target": fake_orthanc(**NEW)}
    servers["source"].put(small_ct())
    servers[side].script("GET /instances[?]", Respond(500))
    found = diagnosed(servers["source"], servers["target"])
    assert side in [one.subject for one in found if one.level == ERROR]


POSTGRESQL = "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so"


def test_the_database_of_both_servers_is_named_and_what_it_means(
    fake_orthanc: Start, diagnosed: Diagnosed
) -> None:
    source = fake_orthanc(**NEW, system={"DatabaseBackendPlugin": POSTGRESQL, "DatabaseVersion": 6})
    target = fake_orthanc(**NEW, system={"DatabaseVersion": 10})
    found = diagnosed(source, target)
    assert said(found, WARNING) == said(found, ERROR) == []
    (of_source,) = (
        f"{one.message} {one.advice}"
        for one in found
        if "its index" in one.message and "late" in one.message
    )
    for part in (
        "libOrthancPostgreSQLIndex.so, schema 6",
        "for 6 h (BRIDGE_FEED_GAP_HOURS)",
        "every 30 min (BRIDGE_RECOUNT_INTERVAL_S)",
        "IndexConnectionsCount 1",
        "TransactionMode Serializable",
        "half the speed",
    ):
        assert part in of_source, part
    messages = [message for subject, message in said(found, OK) if subject == "target"]
    assert any("its index is in SQLite, schema 10" in message for message in messages)
    assert any("HasExtendedChanges" in message for message in messages)
    assert any(
        "filters changes itself, because rows may become visible late" in one.message
        for one in found
    )
    (unwatched,) = (
        one.message
        for one in diagnosed(source, target, RECOUNT_INTERVAL_S="0")
        if "IndexConnectionsCount" in one.advice
    )
    assert "BRIDGE_RECOUNT_INTERVAL_S is 0" in unwatched


def test_a_source_with_its_index_in_sqlite_has_its_feed_in_order(
    fake_orthanc: Start, diagnosed: Diagnosed
) -> None:
    found = diagnosed(fake_orthanc(**NEW), fake_orthanc(system={"DatabaseBackendPlugin": "x.so"}))
    (of_source,) = (m for s, m in said(found, OK) if s == "source" and "its index" in m)
    assert "SQLite" in of_source
    assert "changes become visible in order" in of_source
    (of_target,) = (m for s, m in said(found, OK) if s == "target" and "its index" in m)
    assert "the database of x.so" in of_target


def test_one_server_behind_two_names_is_told(fake_orthanc: Start, diagnosed: Diagnosed) -> None:
    server, other = fake_orthanc(), fake_orthanc()
    server.put(small_ct())
    name = server.url.replace("127.0.0.1", "localhost")
    found = diagnosed(server, other, TARGET_URL=name)
    assert [one.exit_code for one in found if "lead to one server" in one.message] == [2]
    assert said(diagnosed(server, other), WARNING) == []


def blind(server: FakeOrthanc) -> None:
    """Let a login see nothing of what a server holds, and set no mark anywhere."""
    server.script(r"GET /(changes|instances|peers)", Respond(403))
    server.script("PUT", Respond(403))


@pytest.mark.parametrize("start", ["beginning", "snapshot", "1"])
@pytest.mark.parametrize("overwrites", [True, None])
def test_what_run_would_refuse_to_move_to_is_refused(
    start: str, overwrites: bool | None, fake_orthanc: Start, diagnosed: Diagnosed
) -> None:
    source = fake_orthanc()
    target = fake_orthanc(system={"OverwriteInstances": overwrites})
    source.put(small_ct())
    source.script("PUT", Respond(403))
    blind(target)
    found = diagnosed(source, target, START=start)
    (one,) = (found for found in found if "The bridge cannot tell whether" in found.message)
    assert (one.level, one.exit_code) == (ERROR, 2)
    assert "GET on /changes" in one.advice
    for settings in ({"START": "now"}, {"SERVERS_ARE_DISTINCT": "true"}):
        found = diagnosed(source, target, **{"START": start} | settings)
        assert not [one for one in found if one.exit_code == 2]
        assert [m for _, m in said(found, WARNING) if "cannot tell whether" in m]


@pytest.mark.parametrize("held", [0, 1])
def test_what_run_would_follow_is_warned_of_at_most(
    held: int, fake_orthanc: Start, diagnosed: Diagnosed
) -> None:
    """The target keeps what it has, or there is nothing to move."""
    source = fake_orthanc()
    target = fake_orthanc(system={"OverwriteInstances": not held})
    if held:
        source.put(small_ct())
    source.script("PUT", Respond(403))
    blind(target)
    found = diagnosed(source, target)
    assert not [one for one in found if one.exit_code == 2]
    assert [m for _, m in said(found, WARNING) if "cannot tell whether" in m]


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
    assert "behind the clock" in warnings[0].message
    assert any(f" {seconds} s" in warnings[0].message for seconds in range(89, 96))


def test_a_clock_that_cannot_be_read_is_no_fault(fake_orthanc: Start, diagnosed: Diagnosed) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    target.script("GET /tools/now", Respond(403))
    found = diagnosed(source, target)
    assert said(found, WARNING) + said(found, ERROR) == []
    assert ("target", "its clock could not be read") in said(found, NOTE)


def test_each_problem_is_told_once(fake_orthanc: Start, diagnosed: Diagnosed) -> None:
    down, gone = fake_orthanc(), fake_orthanc()
    down.stop()
    gone.stop()
    found = diagnosed(down, gone, SOURCE_RETENTION="24h", WORKRES="3")
    troubles = [(one.subject, one.message) for one in found if one.level not in (OK, NOTE)]
    assert len(troubles) == len(set(troubles))
    subjects = [subject for subject, _ in troubles]
    assert sorted(subjects) == ["settings", "source", "target"]


def test_what_a_person_must_look_at_is_never_ok(fake_orthanc: Start, diagnosed: Diagnosed) -> None:
    for found in (
        diagnosed(fake_orthanc(), fake_orthanc()),
        diagnosed(fake_orthanc(**NEW), fake_orthanc()),
    ):
        assert [
            one for one in found if one.level == OK and (one.advice or "make sure" in one.message)
        ] == []
        assert all(one.advice for one in found if one.level != OK)


def test_a_file_that_is_listed_and_lacking_is_a_warning(
    fake_orthanc: Start, diagnosed: Diagnosed
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    instance_id = source.put(small_ct())
    source.script(f"GET /instances/{instance_id}/file", Respond(404))
    warnings = said(diagnosed(source, target), WARNING)
    assert [subject for subject, _ in warnings] == ["source"]
    assert "sends no file" in warnings[0][1]


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


@pytest.mark.slow
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
        "bridge.doctor.machine.os.access", lambda path, mode: path != locked and real(path, mode)
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
