"""doctor: what it says of source retention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.doctor import NOTE, OK, WARNING, Diagnosis, diagnose
from bridge.ledger.store import Ledger
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, Respond

Start = Callable[..., FakeOrthanc]
PLUGIN = {"DatabaseBackendPlugin": "libOrthancPostgreSQLIndex.so"}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Diagnosis]]:
    monkeypatch.chdir(tmp_path)

    def diagnosed(source: str, target: str, retention: str = "24h") -> list[Diagnosis]:
        monkeypatch.setenv("BRIDGE_SOURCE_URL", source)
        monkeypatch.setenv("BRIDGE_TARGET_URL", target)
        monkeypatch.setenv("BRIDGE_STATE_PATH", str(tmp_path / "state.sqlite3"))
        monkeypatch.setenv("BRIDGE_SOURCE_RETENTION", retention)
        monkeypatch.setenv("BRIDGE_HTTP_TIMEOUT_S", "2")
        return [one for one in diagnose() if one.subject == "retention"]

    return diagnosed


@pytest.mark.slow
def test_nothing_is_said_when_nothing_is_deleted(
    fake_orthanc: Start, found: Callable[..., list[Diagnosis]]
) -> None:
    assert found(fake_orthanc().url, fake_orthanc().url, "keep") == []


@pytest.mark.slow
def test_all_is_well(fake_orthanc: Start, found: Callable[..., list[Diagnosis]]) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    source.put(small_ct())
    assert [one.level for one in found(source.url, target.url)] == [NOTE, OK]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "system", "seen"),
    [
        ("source", {"OverwriteInstances": True}, "OverwriteInstances is on at the source"),
        ("source", {"ReadOnly": True}, "the source is read-only"),
        (
            "target",
            {"MaximumStorageSize": 10, "MaximumStorageMode": "Recycle"},
            "target recycles",
        ),
        ("source", PLUGIN, "The source has its index in a database"),
        ("target", PLUGIN, "The target has its index in a database"),
    ],
)
def test_what_is_dangerous_together(
    fake_orthanc: Start,
    found: Callable[..., list[Diagnosis]],
    side: str,
    system: dict[str, object],
    seen: str,
) -> None:
    servers = {name: fake_orthanc(system=system if name == side else {}) for name in SIDES}
    warnings = [one for one in found(*(s.url for s in servers.values())) if one.level == WARNING]
    assert len(warnings) == 1
    assert seen in warnings[0].message
    assert warnings[0].advice


SIDES = ("source", "target")
UNLIMITED = {"MaximumPatientCount": 0, "MaximumStorageSize": 0}


@pytest.mark.slow
@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("delivered", [False, True])
def test_a_database_that_the_operator_vouches_for(
    fake_orthanc: Start,
    found: Callable[..., list[Diagnosis]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    side: str,
    *,
    delivered: bool,
) -> None:
    """Told once, also where there is a state file; and not where the risk is named."""
    if delivered:
        Ledger(tmp_path / "state.sqlite3").close()
    urls = [fake_orthanc(system=PLUGIN if name == side else {}).url for name in SIDES]
    (warning,) = [one for one in found(*urls) if one.level == WARNING]
    assert "BRIDGE_RETENTION_RISK=shared-database" in str(warning.advice)
    monkeypatch.setenv("BRIDGE_RETENTION_RISK", "shared-database")
    assert [one.level for one in found(*urls)] == [NOTE, OK]


@pytest.mark.slow
def test_a_short_time(fake_orthanc: Start, found: Callable[..., list[Diagnosis]]) -> None:
    said = found(fake_orthanc().url, fake_orthanc().url, "59m")
    assert [one.level for one in said] == [WARNING, NOTE, OK]
    assert "59m" in said[0].message


def test_a_server_that_is_down_is_said_elsewhere(
    fake_orthanc: Start, found: Callable[..., list[Diagnosis]]
) -> None:
    target = fake_orthanc()
    target.stop()
    assert found(fake_orthanc().url, target.url) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "seen"),
    [
        (403, "does not verify its files"),
        (404, "does not verify its files"),
        (400, "is damaged or lost"),
    ],
)
def test_a_target_that_verifies_nothing(
    fake_orthanc: Start, found: Callable[..., list[Diagnosis]], status: int, seen: str
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    target.put(small_ct())
    target.script("POST /instances/.*/verify-md5", Respond(status))
    (warning,) = [one for one in found(source.url, target.url) if one.level == WARNING]
    assert seen in warning.message


def test_the_memory_of_the_target_is_asked_about(
    fake_orthanc: Start, found: Callable[..., list[Diagnosis]]
) -> None:
    said = [one.message for one in found(fake_orthanc().url, fake_orthanc().url)]
    assert any("MaximumStorageCacheSize" in message for message in said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "risk", "level", "seen"),
    [
        ({"MaximumPatientCount": 9, "MaximumStorageSize": 0}, "", WARNING, "The source recycles"),
        ({}, "", WARNING, "does not say whether it recycles"),
        ({}, "source-limits-untold", OK, "after:7d"),
        (UNLIMITED, "", OK, "after:7d"),
        (UNLIMITED | PLUGIN, "", WARNING, "Several Orthancs may serve one database"),
        (UNLIMITED | PLUGIN, "shared-database", OK, "after:7d"),
    ],
)
def test_a_source_that_may_recycle_and_deletions_that_are_mirrored(
    fake_orthanc: Start,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    system: dict[str, object],
    risk: str,
    level: str,
    seen: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "SOURCE_URL": fake_orthanc(system=system).url,
        "TARGET_URL": fake_orthanc().url,
        "STATE_PATH": str(tmp_path / "state.sqlite3"),
        "VERIFY_EVERY": "7d",
        "MIRROR_DELETIONS": "after:7d",
        "RETENTION_RISK": risk,
    }.items():
        monkeypatch.setenv(f"BRIDGE_{name}", value)
    (said,) = [one for one in diagnose() if one.subject == "mirror"]
    assert said.level == level
    assert seen in said.message
