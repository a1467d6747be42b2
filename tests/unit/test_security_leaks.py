"""What must not travel or be told: secrets in tasks, texts of exceptions, foreign log records."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import warnings
from pathlib import Path

import pytest

from bridge import cli, log
from bridge.config import load_settings
from bridge.credentials import credentials_of
from bridge.errors import ConfigurationError
from bridge.ledger.store import Ledger
from bridge.model import Move, SideName, Task

SECRET = "hush-hush-4711"  # noqa: S105
PATIENT = "Mustermann^Erika"


@pytest.fixture
def settings_with_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "BRIDGE_SOURCE_URL": "http://a",
        "BRIDGE_TARGET_URL": "http://b",
        "BRIDGE_SOURCE_USERNAME": "user",
        "BRIDGE_SOURCE_PASSWORD": SECRET,
        "BRIDGE_TARGET_TOKEN": SECRET,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("settings_with_secrets")
def test_a_task_carries_no_secret() -> None:
    settings = load_settings()
    task = Task(Move("an-instance", 1), settings.job(), 1)
    assert SECRET.encode() not in pickle.dumps(task)
    assert SECRET not in repr(settings) + repr(task)


@pytest.mark.usefixtures("settings_with_secrets")
def test_credentials_neither_travel_nor_show() -> None:
    for side in SideName:
        found = credentials_of(side)
        assert SECRET in (found.password, found.token)
        assert SECRET not in repr(found)
        with pytest.raises(TypeError):
            pickle.dumps(found)


@pytest.mark.parametrize("name", ["USERNAME", "PASSWORD"])
def test_a_login_that_is_not_utf_8_is_refused_and_not_quoted(name: str) -> None:
    environ = {"BRIDGE_SOURCE_USERNAME": "u", "BRIDGE_SOURCE_PASSWORD": "p"}
    environ[f"BRIDGE_SOURCE_{name}"] = f"{SECRET}\udcff"
    with pytest.raises(ConfigurationError) as refused:
        credentials_of(SideName.SOURCE, environ, Path("no.env"))
    assert f"BRIDGE_SOURCE_{name} is not UTF-8" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{SECRET}@host",
        f"http://u:{SECRET}/x@host",
        f"http://{SECRET}#y@host",
        f"http://u:{SECRET}\\@host",
        f"//{SECRET}@host",
        f"http://{SECRET}~/",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(source_url=url, target_url="http://b")
    assert "BRIDGE_SOURCE_URL" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://orthanc:8042",
        "https://pacs.example.org/orthanc-a",
        "http://[::1]:8042",
        "http://10.0.0.1",
        "http://my_container:8042/",
        "http://köln.example",
    ],
)
def test_addresses_that_are_all_right(url: str) -> None:
    settings = load_settings(source_url=url, target_url="http://b")
    assert settings.source_url == url.rstrip("/")


def test_a_bug_ends_with_its_place_and_not_with_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_arguments: object, **_settings: object) -> None:
        raise RuntimeError(f"{SECRET} {PATIENT}")

    monkeypatch.setattr("bridge.doctor.diagnose", fails)
    monkeypatch.setattr("bridge.commands.doctor.diagnose", fails, raising=False)
    assert cli.exit_code_of(["doctor"]) == 1
    said = capsys.readouterr()
    assert "RuntimeError" in said.err
    assert "in fails" in said.err
    assert SECRET not in said.err + said.out
    assert PATIENT not in said.err + said.out


@pytest.fixture
def logging_restored() -> object:
    """Give the process its logging back: these tests set up the bridge's in this process."""
    handlers, level = list(logging.root.handlers), logging.root.level
    ours, hook = list(log.LOGGER.handlers), threading.excepthook
    yield
    logging.captureWarnings(capture=False)
    logging.root.handlers, logging.root.level = handlers, level
    log.LOGGER.handlers, threading.excepthook = ours, hook
    log.LOGGER.propagate = True


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.usefixtures("logging_restored")
def test_what_libraries_say_is_told_without_their_words(
    log_format: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    log.set_up_logging(log_format=log_format, level="debug")
    logging.getLogger("pydicom").warning("Invalid value %s", PATIENT)
    logging.getLogger("httpx").debug("Authorization: %s", SECRET)
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    try:
        raise ValueError(f"{PATIENT} {SECRET}")
    except ValueError:
        logging.getLogger("asyncio").exception("It failed with %s", PATIENT)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # Not what an earlier test left behind: on only from off.
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(PATIENT, stacklevel=1)

    def fails() -> None:
        raise ValueError(f"{PATIENT} {SECRET}")

    thread = threading.Thread(target=fails, name="some-thread")
    thread.start()
    thread.join()
    said = capsys.readouterr().err
    assert PATIENT not in said
    assert SECRET not in said
    lines = said.splitlines()
    assert len(lines) == 4, "one line each, and none for HTTP that is none"
    assert ["pydicom" in lines[0], "asyncio" in lines[1], "some-thread ended" in lines[3]] == [
        True,
        True,
        True,
    ]
    assert "ValueError at test_security_leaks.py" in lines[1]
    if log_format == "json":
        assert all(json.loads(line)["level"] for line in lines)


def test_the_state_is_for_its_owner(tmp_path: Path) -> None:
    """It holds no patient data, but identifiers: nobody else needs to read or write it."""
    path = tmp_path / "new" / "bridge.sqlite3"
    with Ledger(path, follow=True) as ledger:
        ledger.set_meta("a", "b")
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o022 == 0, file.name
