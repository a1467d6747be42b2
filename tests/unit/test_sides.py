"""The calls of the bridge's own process: one at a time, credentials read again after a refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.core.errors import SideError
from bridge.core.model import Endpoint, SideName, SideProblem
from bridge.sides import SideClient
from tests.fake_orthanc import FakeOrthanc, Hang


@pytest.fixture
def fake(fake_orthanc: Callable[..., FakeOrthanc]) -> FakeOrthanc:
    return fake_orthanc()


def test_two_calls_at_once_leave_no_deadline_behind(fake: FakeOrthanc) -> None:
    client = SideClient(Endpoint(SideName.TARGET, fake.url, timeout_s=0.2))
    fake.script("GET /system", Hang(), times=2)
    problems: list[SideProblem] = []

    def hang() -> None:
        with pytest.raises(SideError) as failed:
            client.probe()
        problems.append(failed.value.problem)

    other = threading.Thread(target=hang)
    other.start()
    while not fake.requests:
        other.join(0.005)
    hang()  # begins while the other one hangs, ends after it
    other.join()
    assert problems == [SideProblem.TIMED_OUT] * 2
    for _ in range(10):  # past every deadline of the calls above
        client.probe()
        threading.Event().wait(0.05)
    client.close()


def test_a_renewed_password_is_read_after_a_refusal(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_orthanc(username="bridge", password="new")  # noqa: S106
    secret = tmp_path / "password"
    secret.write_text("old\n")
    monkeypatch.setenv("BRIDGE_SOURCE_USERNAME", "bridge")
    monkeypatch.setenv("BRIDGE_SOURCE_PASSWORD_FILE", str(secret))
    client = SideClient(Endpoint(SideName.SOURCE, fake.url))
    with pytest.raises(SideError) as refused:
        client.probe()
    assert refused.value.problem is SideProblem.LOGIN_REFUSED
    assert "old" not in str(refused.value)
    secret.write_text("new\n")
    client.probe()
    secret.unlink()
    client.probe()  # what works is not read again
    client.close()


def test_credentials_that_cannot_be_read_are_an_outage_of_that_side(
    fake: FakeOrthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_TARGET_USERNAME", "bridge")
    monkeypatch.setenv("BRIDGE_TARGET_PASSWORD_FILE", str(tmp_path / "absent"))
    client = SideClient(Endpoint(SideName.TARGET, fake.url))
    with pytest.raises(SideError) as failed:
        client.probe()
    assert failed.value.side is SideName.TARGET
    assert failed.value.problem is SideProblem.LOGIN_REFUSED
    assert "BRIDGE_TARGET_PASSWORD_FILE" in str(failed.value)
