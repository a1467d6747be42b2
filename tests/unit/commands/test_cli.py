"""The command line in this process: help, exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest
import typer

import bridge
import bridge.__main__
import bridge.cli
from bridge import standard_streams
from bridge.__main__ import EXIT_INTERRUPTED as EXIT_AT_THE_START
from bridge.cli import app, exit_code_of
from bridge.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    BridgeError,
    ConfigurationError,
    FeedWentBackwards,
    SourceError,
    StateError,
    TargetError,
)
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason, SideProblem
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.wiring import present_versions
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
    assert exit_code_of([*command, "--help"]) == exit_code_of([*command, "-h"]) == 0
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
        ["check", "--beyond-limit"],
        ["check", "--beyond-limit", "--fix"],
        ["check", "--repair", "--fix"],
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
    assert "Value error" not in said.err, "the name of a class is no advice"


@pytest.mark.usefixtures("pair")
def test_to_confirm_deletions_that_no_setting_allows_says_that_nothing_is_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    monkeypatch.setenv("BRIDGE_STATE_PATH", str(tmp_path / "confirmed.sqlite3"))
    monkeypatch.setattr("bridge.commands.lifecycle.begin", lambda _: None)  # no log set up
    Ledger(tmp_path / "confirmed.sqlite3").close()
    told = "But BRIDGE_SOURCE_RETENTION is keep, so nothing is deleted at the source."
    assert exit_code_of(["retention", "--confirm"]) == 0
    assert told in capsys.readouterr().out
    monkeypatch.setenv("BRIDGE_SOURCE_RETENTION", "24h")
    assert exit_code_of(["retention", "--confirm"]) == 0
    assert told not in capsys.readouterr().out


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

    monkeypatch.setattr(bridge.cli, "program", lambda: fail)
    assert exit_code_of([]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    if isinstance(error, BridgeError):
        assert said.err == "orthanc-bridge: It is wrong. Correct it.\n"
    else:
        assert said.err == "orthanc-bridge: interrupted\n"


def test_it_can_be_interrupted_while_it_starts(
    monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    class Interrupting:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "bridge.cli":
                raise KeyboardInterrupt

    assert EXIT_AT_THE_START == EXIT_INTERRUPTED
    # The main program takes stderr over: only for this test.
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(standard_streams, "_taken", None)
    monkeypatch.delitem(sys.modules, "bridge.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            bridge.__main__.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == EXIT_INTERRUPTED
    assert capfd.readouterr().err == "orthanc-bridge: interrupted\n"


def test_a_bug_tells_its_place_and_not_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError("SOME^PATIENT")

    monkeypatch.setattr(bridge.cli, "program", lambda: fail)
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


@pytest.mark.parametrize("repair", ["missing", "all"])
def test_run_refuses_repairs_that_would_never_happen(
    pair: tuple[FakeOrthanc, FakeOrthanc],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    repair: str,
) -> None:
    monkeypatch.setenv("BRIDGE_REPAIR", repair)
    pair[0].put(small_ct())
    assert exit_code_of(["run", "--once"]) == 2
    assert "BRIDGE_VERIFY_EVERY=7d" in capsys.readouterr().err
    assert exit_code_of(["status", "--json"]) == 0


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
    assert "feed was reset or replaced" in said
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


@pytest.mark.usefixtures("pair")
def test_what_is_dropped_stays_on_record_until_it_arrives(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, record = tmp_path / "state.sqlite3", tmp_path / "audit.jsonl"
    monkeypatch.setenv("BRIDGE_AUDIT_PATH", str(record))
    _park(path, "one", "two", "three")
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert exit_code_of(["parked", "drop", "--all"]) == 2, "nobody is there to be asked"
    assert "--yes" in capsys.readouterr().err
    assert exit_code_of(["parked", "list", "--dropped"]) == 0
    assert capsys.readouterr().out == "Nothing is dropped.\n"
    assert exit_code_of(["parked", "drop", "one"]) == 0
    assert exit_code_of(["parked", "drop", "two", "three", "--yes"]) == 0
    assert capsys.readouterr().err.count("instance_dropped") == 3
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    told = [(line["outcome"], line["instance"], line["reason"]) for line in lines]
    assert sorted(told) == [("dropped", n, "undecodable") for n in ("one", "three", "two")]
    assert exit_code_of(["parked", "list", "--dropped", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["instance"] for row in rows] == ["one", "three", "two"]
    exit_code_of(["status", "--json"])
    assert json.loads(capsys.readouterr().out)["dropped"] == 3
    exit_code_of(["status"])
    assert "3, which have not arrived" in capsys.readouterr().out
    assert Board(path, HealthLimits()).health()["dropped"] == 3
    with Ledger(path) as ledger:
        ledger.commit(Entry(unparked=("two",)))  # delivered after all
        assert ledger.dropped_count() == 2
    _park(path, "one")
    with Ledger(path) as ledger:
        assert [p.move.instance_id for p in ledger.parked(dropped=True)] == ["three"]


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(("answer", "left"), [("n\n", 2), ("y\n", 0)])
def test_a_person_is_asked_before_more_than_one_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    _park(tmp_path / "state.sqlite3", "one", "two")
    asked = io.StringIO(answer)
    monkeypatch.setattr(asked, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", asked)
    assert exit_code_of(["parked", "drop", "--all"]) == (0 if left == 0 else 130)
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        assert len(list(ledger.parked())) == left


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
@pytest.mark.parametrize("json_log", [False, True])
@pytest.mark.parametrize(
    "command",
    ["run --once", "status", "pause", "resume", "parked list", "parked show x", "plan",
     "replay --from 1", "check", "report --from 1", "transcode a b", "parked retry --all"],
)  # fmt: skip
def test_every_command_tells_once_of_a_setting_that_is_none(
    command: str, *, json_log: bool, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("BRIDGE_WORKRES", "3")
    if json_log:
        monkeypatch.setenv("BRIDGE_LOG_FORMAT", "json")
    exit_code_of(command.split())
    said = capsys.readouterr()
    assert said.err.count("BRIDGE_WORKRES is not a setting") == 1
    (line,) = [text for text in said.err.splitlines() if "WORKRES" in text]
    assert "did you mean BRIDGE_WORKERS?" in line
    if json_log:
        assert json.loads(line)["event"] == "unknown_setting"


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"]])
def test_doctor_tells_of_it_once_with_what_to_do(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("BRIDGE_WORKRES", "3")
    assert exit_code_of(arguments) == 2, "the addresses are not set"
    said = capsys.readouterr()
    assert (said.out + said.err).count("BRIDGE_WORKRES is not a setting") == 1
    assert "Did you mean BRIDGE_WORKERS?" in said.out


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["replay"], "orthanc-bridge replay"),
        (["replay", "--from", "x"], "orthanc-bridge replay"),
        (["parked", "retry", "--every"], "orthanc-bridge parked retry"),
        (["deliver"], "orthanc-bridge"),
    ],
)
def test_a_mistake_in_usage_names_the_help_of_that_command(
    arguments: list[str], where: str, capsys: Capture
) -> None:
    assert exit_code_of(arguments) == 2
    assert capsys.readouterr().err.endswith(f"See {where} --help.\n")


def test_it_is_told_as_well_when_the_settings_are_not_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.delenv("BRIDGE_SOURCE_URL", raising=False)
    (tmp_path / ".env").write_text("BRIDGE_SOURCE_ULR=http://one\nBRIDGE_TARGET_URL=http://two\n")
    assert exit_code_of(["status"]) == 2
    said = capsys.readouterr().err
    assert "BRIDGE_SOURCE_ULR is not a setting" in said
    assert "BRIDGE_SOURCE_URL is not set" in said
    assert "orthanc-bridge init" in said


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("command", ["plan", "replay", "report"])
@pytest.mark.parametrize("range_", ["--from 999", "--from 1 --to 999"])
def test_a_range_beyond_the_feed(command: str, range_: str, capsys: Capture) -> None:
    assert exit_code_of([command, *range_.split()]) == 2
    said = capsys.readouterr()
    assert "beyond the feed" in said.err
    assert "up to 0" in said.err
    assert said.out == ""


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("command", ["plan", "replay", "report"])
def test_a_range_that_ends_before_it_begins(command: str, capsys: Capture) -> None:
    assert exit_code_of([command, "--from", "5", "--to", "1"]) == 2
    said = capsys.readouterr()
    assert "--to 1 is below --from 5" in said.err
    assert said.out == ""


@pytest.mark.usefixtures("pair")
def test_pause_and_resume_say_what_they_found(capsys: Capture) -> None:
    said = []
    for command in ("resume", "pause", "pause", "resume", "resume"):
        assert exit_code_of([command]) == 0
        said.append(capsys.readouterr().out.strip())
    assert said[:2] == [
        "not paused: nothing to do",
        "paused; to continue: orthanc-bridge resume",
    ]
    assert said[2].startswith("already paused since 20")
    assert said[3:] == ["resumed: a running bridge delivers again", "not paused: nothing to do"]


@pytest.mark.parametrize(
    ("given", "said", "help_of"),
    [
        ("replay", "Missing option '--from'.", "replay"),
        ("replay --from", "Option '--from' requires an argument.", "replay"),
        ("parked drop --reason", "Option '--reason' requires an argument.", "parked drop"),
        ("replay --from x", "Invalid value for '--from': not a whole number", "replay"),
        ("replay --from -1", "Invalid value for '--from': must not be below 0", "replay"),
        ("parked list --older-than x", "'--older-than': not a number", "parked list"),
        (
            "parked list --reason gone",
            "no instance is parked as 'gone'. Choose: und",
            "parked list",
        ),
        ("parked list --reason x", "no instance is parked as 'x'. Choose: undec", "parked list"),
        ("parked bogus", "No such command 'bogus'.", "parked"),
        ("--bogus", "No such option: --bogus", ""),
        ("report", "Give one of --study, --from and --to, or --since.", "report"),
        ("retention", "Give one of --dry-run, --confirm and --forget.", "retention"),
    ],
)
@pytest.mark.usefixtures("pair")
def test_a_mistake_in_usage_names_the_help_of_its_command(
    given: str, said: str, help_of: str, capsys: Capture
) -> None:
    assert exit_code_of(given.split()) == 2
    told = capsys.readouterr().err
    assert said in told
    assert f"See {' '.join(('orthanc-bridge', *help_of.split()))} --help." in told


@pytest.mark.parametrize(
    ("shell", "begins"),
    [
        ("bash", "_orthanc_bridge_completion() {"),
        ("zsh", "#compdef orthanc-bridge"),
        ("fish", "complete --command orthanc-bridge"),
    ],
)
def test_completion_is_shown_and_installed_for_the_shell_that_is_named(
    shell: str,
    begins: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """Whatever shell the tests run in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit) as shown:
        exit_code_of(["--show-completion", shell])
    assert shown.value.code == 0
    script = capsys.readouterr().out
    assert script.startswith(begins)
    with pytest.raises(SystemExit):
        exit_code_of([f"--show-completion={shell}"])
    assert capsys.readouterr().out == script
    with pytest.raises(SystemExit) as installed:
        exit_code_of(["--install-completion", shell])
    assert installed.value.code == 0
    assert f"{shell} completion installed in {tmp_path}" in capsys.readouterr().out
    files = [path.read_text("utf-8") for path in tmp_path.rglob("*orthanc-bridge*")]
    assert [text.strip() for text in files] == [script.strip()]


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
@pytest.mark.parametrize("arguments", [["tcsh"], []])
def test_without_completion_for_a_shell_it_says_how_to_name_one(
    option: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("typer._completion_shared._get_shell_name", lambda: "dash")
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: "dash")
    assert exit_code_of([option, *arguments]) == 2
    said = capsys.readouterr()
    assert "no completion for" in said.err
    assert f"orthanc-bridge {option} bash" in said.err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(bridge.cli, "warn_of_unknown_settings", interrupted)
    assert exit_code_of(["plan"]) == 130
    assert capsys.readouterr().err == "orthanc-bridge: interrupted\n"


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


def test_parked_list_says_when_it_is_tried_again_and_why(
    pair: tuple[FakeOrthanc, FakeOrthanc],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert pair
    reasons = {"a": Reason.UNDECODABLE, "b": Reason.VIDEO, "c": Reason.FILTERED_OUT}
    now = float(int(time.time()) - 60)
    due = datetime.fromtimestamp(now + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        for name, reason in reasons.items():
            one = Parked(Move(name, 3), reason, "No.", 2, 1.0, now, tried_by=present_versions())
            ledger.commit(Entry(parked=(one,)))
    assert exit_code_of(["parked", "list", "--json"]) == 0
    told = {one["instance"]: one for one in json.loads(capsys.readouterr().out)}
    assert {name: told[name]["next_retry"] for name in told} == {
        "a": "codecs",
        "b": "none",
        "c": "time",
    }
    assert told["c"]["next_retry_at"] == due
    assert told["a"]["next_retry_at"] is None
    assert "BRIDGE_ON_VIDEO" in told["b"]["next_retry_why"]
    assert exit_code_of(["parked", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit("  ", 1)[1].strip() for line in lines] == [
        "NEXT RETRY",
        "when the codecs change",
        "never",
        due,
    ]
    monkeypatch.setenv("BRIDGE_PARKED_RETRY", "off")
    assert exit_code_of(["parked", "list", "--json"]) == 0
    off = json.loads(capsys.readouterr().out)
    assert {one["next_retry_why"] for one in off} == {"BRIDGE_PARKED_RETRY is off"}


def test_a_report_says_of_what_a_person_dropped_that_it_was(
    pair: tuple[FakeOrthanc, FakeOrthanc], tmp_path: Path, capsys: Capture
) -> None:
    first, middle, last = (pair[0].put(small_ct(seed=seed)) for seed in range(3))
    _park(tmp_path / "state.sqlite3", middle, last)
    assert exit_code_of(["parked", "drop", middle]) == 0
    capsys.readouterr()
    assert exit_code_of(["report", "--from", "1", "--json"]) == EXIT_INCOMPLETE
    told = json.loads(capsys.readouterr().out)["instances"]
    assert {row["instance"]: (row["fate"], row["how"]) for row in told} == {
        first: ("missing", "there is no record of it"),
        middle: ("parked", "dropped by a person"),
        last: ("parked", "undecodable"),
    }


def test_a_report_without_an_audit_file_says_what_it_cannot_show(
    pair: tuple[FakeOrthanc, FakeOrthanc],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    pair[0].put(small_ct())
    _park(tmp_path / "state.sqlite3")
    assert exit_code_of(["report", "--from", "1"]) == EXIT_INCOMPLETE
    without = capsys.readouterr()
    assert without.out.split("\n", 1)[0].split() == ["INSTANCE", "FATE", "HOW"]
    assert "BRIDGE_AUDIT_PATH is not set" in without.err
    monkeypatch.setenv("BRIDGE_AUDIT_PATH", str(tmp_path / "audit.jsonl"))
    (tmp_path / "audit.jsonl").touch()
    assert exit_code_of(["report", "--from", "1"]) == EXIT_INCOMPLETE
    with_it = capsys.readouterr()
    assert "SEQUENCE" in with_it.out.split("\n", 1)[0]
    assert "BRIDGE_AUDIT_PATH" not in with_it.err


def test_only_reasons_for_which_instances_are_parked_are_offered(capsys: Capture) -> None:
    exit_code_of(["parked", "list", "--help"])
    said = capsys.readouterr().out
    assert "undecodable" in said
    assert not {"dry_run", "rule", "gone"} & set(re.findall(r"[a-z_]+", said))
