"""What a server, a file or another user has chosen is shown as it is, wherever people see it."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import bridge
from bridge.commands import doctor as doctor_command
from bridge.commands.output import Format, print_json, print_pairs, print_result, print_table, say
from bridge.errors import ConfigurationError
from bridge.ledger.store import Ledger
from bridge.log import FIELD_ITEMS_MAX, log, set_up_logging
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.server import application
from bridge.untrusted_text import MESSAGE_CHARACTERS_MAX, visible
from tests.parsed import parsed

STRANGE = "a\x1b[2Jb\nERROR    forged: line\r\u202ec\u2028d\x9be\ud800[red]f[/red]"
SHOWN = visible(STRANGE)


def acts(text: str) -> bool:
    """Whether a text, printed by lines, does more than show itself."""
    return any(visible(line) != line for line in text.split("\n"))


def test_commands_print_in_one_place() -> None:
    """Only ``say`` writes: whatever goes round it may act on a terminal."""
    package = Path(bridge.__file__).parent
    found = []
    printing = {"print", "typer.echo", "click.echo", "typer.secho", "sys.stderr.write"}
    for file, node in parsed(package, {name.rpartition(".")[2] for name in printing}):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = ast.unparse(node.func)
            if name in printing:
                found.append((file, name))
    # Before the code of the commands is read, a text of our own tells an interruption. What a side
    # command has said is made visible by ``log.relay``. What says that a result is lost is our own.
    assert sorted(found) == [
        ("__main__.py", "sys.stderr.write"),
        ("commands/output.py", "typer.echo"),
        ("log.py", "sys.stderr.write"),
        ("standard_streams.py", "sys.stderr.write"),
    ]


def test_a_command_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{STRANGE: STRANGE, "b": {STRANGE: STRANGE}}]
    say(f"{STRANGE}\n")
    print_pairs({STRANGE: STRANGE})
    print_table((STRANGE,), [(STRANGE,)])
    print_json({STRANGE: STRANGE})
    for how in Format:
        print_result(how, summary={"s": STRANGE}, name="rows", rows=rows, columns=[STRANGE, "b"])
    told = capsys.readouterr()
    assert not acts(told.out.replace("\r\n", "\n"))
    assert not acts(told.err)
    assert told.out.count("\nERROR    forged") == 1, "in what say was given as lines of ours"
    assert SHOWN in told.out


def test_doctor_shows_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridge import doctor as diagnosis
    from bridge.doctor.diagnosis import Diagnosis

    finding = Diagnosis("ok", STRANGE, STRANGE, STRANGE)
    monkeypatch.setattr(diagnosis, "diagnose", lambda: [finding])
    doctor_command.doctor()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(SHOWN in line and visible(line) == line for line in lines)


def test_an_error_shows_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridge import cli

    def failing(*_: object, **__: object) -> int:
        raise ConfigurationError(STRANGE, advice=STRANGE)

    monkeypatch.setattr(cli, "program", lambda: failing)
    assert cli.exit_code_of([]) == 2
    assert capsys.readouterr().err == f"orthanc-bridge: {SHOWN} {SHOWN}\n"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_line_is_one_line_and_bounded(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("orthanc_bridge")
    before = logger.handlers, logger.propagate
    set_up_logging(log_format=log_format, level="info")
    try:
        log(logging.INFO, "e", STRANGE, detail=STRANGE)
        log(logging.INFO, "e", "1" * 60_000, syntax="2" * 60_000, many=["3" * 60_000] * 1_000)
    finally:
        logger.handlers, logger.propagate = before
    first, second = capsys.readouterr().err.splitlines()
    assert visible(first) == first
    assert len(second) <= (FIELD_ITEMS_MAX + 3) * MESSAGE_CHARACTERS_MAX
    if log_format == "text":
        assert len(second) <= MESSAGE_CHARACTERS_MAX + 100


def test_the_monitoring_server_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    Ledger(path).close()
    board = Board(path, HealthLimits())
    told = {"status": "ok", STRANGE: [STRANGE, {"x": STRANGE * 10_000}]}
    board.health = board.status = lambda: told  # type: ignore[method-assign,assignment,return-value]
    client = TestClient(application(board, Metrics(board)))
    for address in ("/health", "/api/status"):
        answer = client.get(address, headers={"Host": "localhost"})
        assert answer.status_code == 200
        answer.content.decode("utf-8")
        assert list(answer.json())[1] == SHOWN
        assert answer.json()[SHOWN][0] == SHOWN
        assert len(answer.content) < 20 * MESSAGE_CHARACTERS_MAX
