"""The command line in this process: help, exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import typer

import bridge
import bridge.cli
from bridge.cli import app, exit_code_of
from bridge.core.errors import (
    BridgeError,
    ConfigurationError,
    FeedWentBackwards,
    SourceError,
    StateError,
    TargetError,
)
from bridge.core.model import Move, Reason, SideProblem
from bridge.entry import Entry, Parked
from bridge.ledger import Ledger
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc

Capture = pytest.CaptureFixture[str]


def _commands() -> list[list[str]]:
    """Every command and every command of a group."""
    found = []
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        found.append([name])
        found += [[name, inner] for inner in getattr(command, "commands", ())]
    return found


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pair(
    fake_orthanc: Callable[..., FakeOrthanc], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[FakeOrthanc, FakeOrthanc]:
    source, target = fake_orthanc(), fake_orthanc()
    for name, value in {
        "SOURCE_URL": source.url,
        "TARGET_URL": target.url,
        "STATE_PATH": str(tmp_path / "state.sqlite3"),
        "HEALTH_PORT": "0",
        "WORKERS": "1",
        "COMMAND_PATIENCE_S": "0",
        "HTTP_TIMEOUT_S": "2",
    }.items():
        monkeypatch.setenv(f"BRIDGE_{name}", value)
    return source, target


def _park(path: Path, *instances: str) -> None:
    with Ledger(path) as ledger:
        ledger.commit(
            Entry(
                parked=tuple(
                    Parked(Move(i, 3), Reason.UNDECODABLE, "It is broken.", 2, 1.0, 2.0)
                    for i in instances
                )
            )
        )


@pytest.mark.parametrize("command", [[], *_commands()], ids=" ".join)
def test_every_command_explains_itself(command: list[str], capsys: Capture) -> None:
    assert exit_code_of([*command, "--help"]) == 0
    said = capsys.readouterr()
    assert "Usage:" in said.out
    assert " ".join(command) in said.out
    assert said.err == ""


def test_the_commands_of_the_contract_are_there() -> None:
    names = {command[0] for command in _commands()}
    assert names >= {"run", "replay", "status", "parked", "doctor", "transcode", "demo"}
    parked = {command[1] for command in _commands() if command[0] == "parked" and command[1:]}
    assert parked == {"list", "show", "retry", "drop", "export"}


def test_its_version(capsys: Capture) -> None:
    assert exit_code_of(["--version"]) == 0
    assert capsys.readouterr().out == f"{bridge.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["run", "--twice"],
        ["replay"],
        ["replay", "--from"],
        ["replay", "--from", "x"],
        ["replay", "--from", "-1"],
        ["replay", "--from", "1.5"],
        ["replay", "--from", "1", "--to", "many"],
        ["replay", "--from", "5", "--to", "3"],
        ["parked", "eat"],
        ["parked", "show"],
        ["parked", "list", "--reason", "bad mood"],
        ["parked", "list", "--older-than", "-1"],
        ["transcode"],
        ["transcode", "in"],
        ["status", "extra"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("pair")
def test_usage_that_is_wrong_ends_with_2(arguments: list[str], capsys: Capture) -> None:
    assert exit_code_of(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("It is wrong.", advice="Correct it."), 2),
        (SourceError(SideProblem.UNREACHABLE, "It is wrong.", advice="Correct it."), 10),
        (TargetError(SideProblem.UNREACHABLE, "It is wrong.", advice="Correct it."), 11),
        (StateError("It is wrong.", advice="Correct it."), 12),
        (FeedWentBackwards("It is wrong.", advice="Correct it."), 13),
        (BridgeError("It is wrong.", advice="Correct it."), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_becomes_a_message_and_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(bridge.cli, "app", fail)
    assert exit_code_of([]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    if isinstance(error, BridgeError):
        assert said.err == "orthanc-bridge: It is wrong. Correct it.\n"


def test_a_bug_tells_its_place_and_not_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError("SOME^PATIENT")

    monkeypatch.setattr(bridge.cli, "app", fail)
    assert exit_code_of([]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "test_cli.py" in said
    assert "SOME^PATIENT" not in said.replace('raise ZeroDivisionError("SOME^PATIENT")', "")


def test_without_settings_every_command_that_needs_them_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("BRIDGE_SOURCE_URL", raising=False)
    monkeypatch.delenv("BRIDGE_TARGET_URL", raising=False)
    for arguments in (
        ["run"],
        ["run", "--once"],
        ["replay", "--from", "1"],
        ["status"],
        ["parked", "list"],
        ["parked", "retry", "--all"],
        ["doctor"],
    ):
        assert exit_code_of(arguments) == 2, arguments
        said = capsys.readouterr()
        assert "BRIDGE_SOURCE_URL is not set" in said.err + said.out
        assert "BRIDGE_TARGET_URL is not set" in said.err + said.out


def test_status_as_json_and_as_text(
    pair: tuple[FakeOrthanc, FakeOrthanc], tmp_path: Path, capsys: Capture
) -> None:
    pair[0].put(small_ct())
    assert exit_code_of(["status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["checkpoint"] is None
    assert told["last"] == 4
    assert not (tmp_path / "state.sqlite3").exists(), "looking creates nothing"
    _park(tmp_path / "state.sqlite3", "an-instance")
    assert exit_code_of(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parked"] == {"undecodable": 1}
    assert exit_code_of(["status"]) == 0
    said = capsys.readouterr()
    assert "undecodable: 1" in said.out
    assert said.err == ""


def test_a_feed_that_ends_below_the_checkpoint_is_told(
    pair: tuple[FakeOrthanc, FakeOrthanc], tmp_path: Path, capsys: Capture
) -> None:
    pair[0].put(small_ct())
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        ledger.commit(Entry(checkpoint=15))
    assert exit_code_of(["status", "--json"]) == 13
    told = json.loads(capsys.readouterr().out)
    assert told["feed_went_backwards"] is True
    assert told["behind"] is None
    assert exit_code_of(["status"]) == 13
    said = capsys.readouterr().out
    assert "the feed went backwards" in said
    assert exit_code_of(["doctor"]) == 13
    assert "ends at 4, but it was read up to 15" in capsys.readouterr().out


@pytest.mark.usefixtures("pair")
def test_status_of_a_state_that_is_no_state(
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "state.sqlite3").write_text("nothing of the kind" * 99)
    assert exit_code_of(["status"]) == 12
    monkeypatch.setenv("BRIDGE_STATE_PATH", "x" * 300)
    assert exit_code_of(["status"]) == 12
    assert exit_code_of(["doctor"]) == 12
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("pair")
def test_parked_list_show_and_drop(tmp_path: Path, capsys: Capture) -> None:
    assert exit_code_of(["parked", "list"]) == 12, "no state yet"
    capsys.readouterr()
    _park(tmp_path / "state.sqlite3", "one", "two")
    assert exit_code_of(["parked", "list", "--json"]) == 0
    assert [row["instance"] for row in json.loads(capsys.readouterr().out)] == ["one", "two"]
    assert exit_code_of(["parked", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["one", "3", "undecodable", "2"]
    assert exit_code_of(["parked", "show", "one", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["message"] == "It is broken."
    assert shown["first_failed_at"] == "1970-01-01T00:00:01Z"
    assert exit_code_of(["parked", "show", "three"]) == 2
    assert "three" in capsys.readouterr().err
    assert exit_code_of(["parked", "drop", "one", "three"]) == 2
    assert exit_code_of(["parked", "drop", "one", "--all"]) == 2
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        assert len(list(ledger.parked())) == 2, "a mistake drops nothing"
    capsys.readouterr()
    assert exit_code_of(["parked", "drop", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"dropped": ["one"]}


@pytest.mark.parametrize(("side", "code"), [("source", 10), ("target", 11)])
@pytest.mark.parametrize("arguments", [["run", "--once"], ["replay", "--from", "1"]])
def test_a_server_that_is_down_ends_a_job_with_its_code(
    pair: tuple[FakeOrthanc, FakeOrthanc],
    arguments: list[str],
    side: str,
    code: int,
    capsys: Capture,
) -> None:
    pair[0].put(small_ct())
    (pair[0] if side == "source" else pair[1]).stop()
    assert exit_code_of(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert f"BRIDGE_{side.upper()}_URL" in said.err
    assert "Traceback" not in said.err


@pytest.mark.usefixtures("pair")
def test_an_unknown_setting_is_warned_of(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("BRIDGE_WORKER", "3")
    assert exit_code_of(["run", "--once"]) == 0
    assert "BRIDGE_WORKER is not a setting" in (said := capsys.readouterr().err)
    assert "did you mean BRIDGE_WORKERS?" in said


def test_a_reader_that_has_enough_is_no_bug() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m bridge --help | true"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "bug" not in done.stderr
    assert "Traceback" not in done.stderr
