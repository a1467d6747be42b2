"""``POST /api/actions/...`` over real sockets: who may, what is confirmed, done and recorded."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.audit import AuditTrail
from bridge.checks.audit_reader import read_lines
from bridge.credentials import admin_tokens
from bridge.errors import ConfigurationError
from bridge.events import ActionTaken, Event, InstanceDropped, Progress
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import is_asked_for
from bridge.log import set_up_logging
from bridge.model import Move, Reason
from bridge.monitoring.action_request import A_MINUTE_MAX
from bridge.monitoring.actions import BODY_BYTES_MAX
from bridge.monitoring.board import Board
from bridge.monitoring.guesses import GUESSES_AT_ONCE
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.server import MonitoringServer, application
from tests.acting import FAIL, IDS, OTHER, TOKEN, TOKENS, WAIT, Acting
from tests.bridge_process import wait_until

ANSWERING_THREADS = 40
"""Of the server; who takes them all takes /livez, too."""


@pytest.fixture
def acting(tmp_path: Path) -> Iterator[Acting]:
    found = Acting(tmp_path)
    yield found
    found.close()


def test_pause_and_resume_are_the_orders_of_the_commands(acting: Acting) -> None:
    status, told = acting.ask("pause")
    assert (status, told["confirm"]) == (409, "pause")
    assert not acting.paused()
    assert acting.do("pause")[0] == 200
    assert acting.paused()
    assert acting.ask("pause") == (409, {"message": "The bridge is already paused."})
    assert acting.do("resume")[0] == 200
    assert not acting.paused()
    assert acting.taken() == [
        ("anna", "pause", "", "begins"),
        ("anna", "pause", "", "done"),
        ("anna", "resume", "", "begins"),
        ("anna", "resume", "", "done"),
    ]
    assert acting.counted("pause") == {"done": 1, "unconfirmed": 2, "refused": 1}


def test_a_drop_is_of_what_was_confirmed_and_of_nothing_else(acting: Acting) -> None:
    status, told = acting.ask("drop", {"reason": "video"})
    assert status == 409
    assert "drops 3 parked instances" in told["message"]
    for guess in ("drop 3", "yes", "", told["confirm"].upper()):
        assert acting.ask("drop", {"reason": "video", "confirm": guess})[0] == 409
    with Ledger(acting.path) as ledger:  # as many as before, and another one among them
        ledger.commit(Entry(unparked=(IDS[0],)))
        other = Parked(Move("another"), Reason.VIDEO, "no", 1, 1.0, 1.0)
        ledger.commit(Entry(parked=(other,)))
    assert acting.ask("drop", {"reason": "video", "confirm": told["confirm"]})[0] == 409
    assert len(acting.parked()) == 5
    assert acting.events == []
    assert acting.do("drop", {"reason": "video"})[1]["message"] == "Dropped 3 instances."
    assert acting.parked() == IDS[3:]
    assert [type(event) for event in acting.events] == [
        ActionTaken, InstanceDropped, InstanceDropped, InstanceDropped, ActionTaken,
    ]  # fmt: skip
    assert acting.taken()[0] == ("anna", "drop", "reason video (3)", "begins")
    assert acting.ask("drop", {"instances": [IDS[0]]})[0] == 409


def test_a_replay_and_a_retry_are_the_commands_themselves(acting: Acting) -> None:
    assert acting.do("replay", {"from": 5, "to": 900})[0] == 200
    assert acting.ended.wait(30)
    state = acting.actions.commands.state
    assert state is not None
    assert (state.exit_code, state.result) == (0, "done")
    assert state.summary == {
        "delivered": 3, "arguments": ["replay", "--from", "5", "--to", "900", "--json"],
    }  # fmt: skip
    assert acting.taken()[-1] == ("anna", "replay", "5 to 900", "done")
    acting.ended.clear()
    assert acting.do("retry", {"instances": IDS[:2]})[0] == 200
    assert acting.ended.wait(30)
    assert acting.actions.commands.state is not None
    told = acting.actions.commands.state.summary
    assert told is not None
    assert told["arguments"] == ["parked", "retry", *IDS[:2], "--json"]


@pytest.mark.parametrize("body", [{"from": 901}, {"from": 1, "to": 901}, {"from": 2**31 - 1}])
def test_a_range_beyond_the_feed_is_refused(acting: Acting, body: dict[str, object]) -> None:
    status, told = acting.ask("replay", body)
    assert status == 409
    assert told == {"message": "The range is beyond the feed: its last change is 900."}
    acting.newest = None
    assert acting.ask("replay", {"from": 1})[0] == 409
    assert acting.actions.commands.state is None


def test_a_verification_is_asked_for_where_there_are_some(tmp_path: Path) -> None:
    for verifies in (True, False):
        (tmp_path / str(verifies)).mkdir()
        acting = Acting(tmp_path / str(verifies), verifies=verifies)
        status, told = acting.ask("verify")
        if verifies:
            assert acting.ask("verify", {"confirm": told["confirm"]})[0] == 200
        else:
            assert "BRIDGE_VERIFY_EVERY" in told["message"]
            assert "confirm" not in told
        with Ledger(acting.path) as ledger:
            assert is_asked_for(ledger) is verifies
        assert status == 409
        acting.close()


def test_one_command_at_a_time_and_it_ends_with_the_bridge(tmp_path: Path) -> None:
    acting = Acting(tmp_path, WAIT)
    assert acting.do("replay", {"from": 1})[0] == 200
    status, told = acting.ask("retry", {"all": True})
    assert (status, "confirm" in told) == (409, False)
    assert acting.do("pause")[0] == 200, "what takes no time is done meanwhile"
    acting.close()
    state = acting.actions.commands.state
    assert state is not None
    assert state.exit_code == 128 + 15
    assert acting.taken()[-1][:2] == ("anna", "replay")
    assert not acting.actions.commands.start((), "", lambda _: None)


SAYS = """
import json, sys
kept = {"time": "t", "level": "info", "event": "progress", "message": "m"}
print(json.dumps(kept), file=sys.stderr)
print("replay: 3 of 7, \\x1b[31m", "", "{}", "[]", '{"level": 1}', sep="\\n", file=sys.stderr)
sys.stderr.write("orthanc-bridge: it is full")
sys.exit(12)
"""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_a_command_says_is_in_the_form_of_the_log(
    tmp_path: Path, log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("orthanc_bridge")
    before = logger.handlers, logger.propagate
    set_up_logging(log_format=log_format, level="info")
    acting = Acting(tmp_path, SAYS)
    try:
        acting.do("retry", {"all": True})
        assert acting.ended.wait(30)
        told = acting.raw("", None, method="GET")[1]["command"]
    finally:
        acting.close()
        logger.handlers, logger.propagate = before
    assert told["message"] == "it is full"
    lines = capsys.readouterr().err.splitlines()
    if log_format == "text":
        assert [line for line in lines if "of 7" in line] == ["replay: 3 of 7, \\x1b[31m"]
        assert lines[-1] == "orthanc-bridge: it is full"
        return
    found = [json.loads(line) for line in lines]
    assert [line["message"] for line in found if line["event"] == "progress"] == ["m"]
    said = [(line["level"], line["message"]) for line in found if line["event"] == "command_said"]
    assert said == [
        ("info", "replay: 3 of 7, \\x1b[31m"),
        ("info", "{}"),
        ("info", "[]"),
        ("info", '{"level": 1}'),
        ("error", "orthanc-bridge: it is full"),
    ]


def test_why_a_command_failed_is_told_and_cannot_act_on_who_reads_it(tmp_path: Path) -> None:
    acting = Acting(tmp_path, FAIL)
    acting.do("retry", {"all": True})
    assert acting.ended.wait(30)
    _, told, _ = acting.raw("", None, method="GET")
    assert told["who"] == "anna"
    assert told["command"]["exit_code"] == 12
    assert told["command"]["message"] == "it is \\x1b[31m full"
    acting.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_web_page_cannot_act_even_with_the_token(
    acting: Acting, headers: dict[str, str]
) -> None:
    body = json.dumps({"confirm": "pause"}).encode()
    assert acting.raw("/pause", body, **headers)[0] == 403
    assert not acting.paused()
    assert acting.raw("/pause", body, Sec_Fetch_Site="same-origin")[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_form_can_send_is_refused(acting: Acting, kind: str) -> None:
    assert acting.raw("/pause", b'{"confirm": "pause"}', Content_Type=kind)[0] == 415
    assert not acting.paused()


def test_a_browser_is_not_told_that_another_page_may(acting: Acting) -> None:
    status, _, headers = acting.raw("/pause", None, method="OPTIONS", Origin="http://evil.example")
    assert status == 405
    assert not [name for name in headers if name.startswith("access-control")]
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        assert acting.raw("/pause", None, method=method)[0] in (404, 405)


def test_only_who_brings_a_token_may(acting: Acting) -> None:
    body = b'{"confirm": "pause"}'
    for given in (None, "", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), f" {TOKEN} "):
        status, _, headers = acting.raw("/pause", body, token=given)
        assert (status, headers.get("www-authenticate")) == (401, "Bearer")
    assert acting.raw("/pause", body, token=None, Authorization=TOKEN)[0] == 401
    assert acting.raw("/pause", body, token=None, Authorization=f"Basic {TOKEN}")[0] == 401
    assert acting.raw("/pause", body, token=None, Cookie=f"token={TOKEN}")[0] == 401
    assert not acting.paused()
    assert acting.events == []


def test_each_token_has_its_name(acting: Acting) -> None:
    assert acting.raw("/pause", b'{"confirm": "pause"}', token=OTHER)[0] == 200
    assert acting.taken()[0][0] == "bert"


def test_who_guesses_is_slowed_and_learns_nothing_from_a_right_guess(acting: Acting) -> None:
    answers = [acting.raw("/pause", token=f"{n:030}")[0] for n in range(GUESSES_AT_ONCE)]
    assert set(answers) == {401}
    wrong, right = (acting.raw("/pause", token=one) for one in ("x" * 30, TOKEN))
    assert wrong[0] == right[0] == 429
    assert wrong[1] == right[1]
    assert acting.counted("pause")["slowed"] == 2


def test_too_many_requests_are_refused_whoever_asks(acting: Acting) -> None:
    asked = [acting.raw("", None, method="GET")[0] for _ in range(A_MINUTE_MAX + 5)]
    assert set(asked) == {200}, "who only asks does not use up what others may do"
    statuses = [acting.raw("/pause")[0] for _ in range(A_MINUTE_MAX)]
    assert set(statuses) == {409}
    assert acting.raw("/pause", b'{"confirm": "pause"}')[0] == 429
    assert acting.raw("", None, method="GET")[0] == 200
    assert not acting.paused()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 8000, 400),
        (b'{"confirm": "\\ud800"}', 409),
        (b'{"x": ' + b"1" * 5000 + b"}", 400),
        (b" " * (BODY_BYTES_MAX + 1), 413),
    ],
)
def test_a_body_is_bounded_and_read_with_care(acting: Acting, body: bytes, status: int) -> None:
    assert acting.raw("/pause", body)[0] == status
    assert not acting.paused()


def test_a_body_without_end_is_refused_unread(acting: Acting) -> None:
    assert acting.raw("/pause", None, Transfer_Encoding="chunked")[0] == 413


def test_clicks_that_pile_up_take_no_thread_from_others_and_do_nothing_later(
    acting: Acting,
) -> None:
    """The state file hangs while somebody clicks again and again."""
    begun, goes_on = threading.Event(), threading.Event()

    def hangs(event: Event) -> None:
        acting.report(event)
        begun.set()
        goes_on.wait(30.0)

    acting.actions.reports_to(hangs)
    answers: list[int] = []
    body: dict[str, object] = {"confirm": "pause"}
    clicks = [
        threading.Thread(target=lambda: answers.append(acting.ask("pause", body)[0]), daemon=True)
        for _ in range(ANSWERING_THREADS + 5)
    ]
    clicks[0].start()
    assert begun.wait(10.0)
    for click in clicks[1:]:
        click.start()
    for click in clicks[1:]:
        click.join(10.0)
    try:
        assert answers == [409] * len(clicks[1:])
        connection = http.client.HTTPConnection("127.0.0.1", acting.port, timeout=10)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        goes_on.set()
    clicks[0].join(10.0)
    assert answers[-1] == 200
    assert [told[3] for told in acting.taken()] == ["begins", "done"]


def test_who_goes_away_within_a_body_leaves_no_trace_of_an_error(
    acting: Acting, caplog: pytest.LogCaptureFixture
) -> None:
    head = (
        f"POST /api/actions/pause HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", acting.port)) as leaves:
        leaves.sendall(head.encode())
    wait_until(lambda: acting.counted("pause") == {"refused": 1}, "it was noticed")
    assert caplog.records == []
    assert not acting.paused()


def test_nothing_is_done_before_it_can_be_reported(tmp_path: Path) -> None:
    acting = Acting(tmp_path)
    acting.actions._report = None
    assert acting.ask("pause", {"confirm": "pause"})[0] == 503
    assert not acting.paused()
    acting.close()


def test_without_a_token_there_is_nothing_to_act_with(tmp_path: Path) -> None:
    Ledger(tmp_path / "state.sqlite3").close()
    board = Board(tmp_path / "state.sqlite3", HealthLimits())
    server = MonitoringServer(application(board, Metrics(board)), host="127.0.0.1", port=0)
    server.start()
    for method, path, status in (("POST", "/pause", 405), ("GET", "", 404)):
        connection = http.client.HTTPConnection(
            "127.0.0.1", int(server.url.rsplit(":", 1)[1]), timeout=10
        )
        connection.request(method, f"/api/actions{path}", headers={"Authorization": "Bearer "})
        assert connection.getresponse().status == status
        connection.close()
    server.stop()


def test_the_audit_file_says_who_and_report_passes_over_it(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.jsonl", bytes_max=10_000, now_s=lambda: 1_700_000_000.25)
    trail.on_event(ActionTaken("anna", "drop", "reason video (3)", "begins"))
    trail.on_event(InstanceDropped(Move(IDS[0], 1), Reason.VIDEO))
    trail.on_progress(Progress())
    trail.close()
    first = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[0])
    assert first.pop("bridge")
    assert first == {
        "time": "2023-11-14T22:13:20.250Z", "outcome": "action", "who": "anna", "action": "drop",
        "detail": "reason video (3)", "result": "begins",
    }  # fmt: skip
    assert [line["instance"] for line in read_lines(tmp_path / "audit.jsonl")] == [IDS[0]]


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        (TOKEN, {"admin": TOKEN}),
        (f"anna:{TOKEN}", {"anna": TOKEN}),
        (f"anna:{TOKEN},bert:{OTHER}", TOKENS),
        (f"anna:{TOKEN}\nbert:{OTHER}\n", TOKENS),
        (f" {TOKEN} ", {"admin": TOKEN}),
        ("", {}),
    ],
)
def test_tokens_have_names(tmp_path: Path, given: str, tokens: dict[str, str]) -> None:
    assert admin_tokens({"BRIDGE_ADMIN_TOKEN": given}, tmp_path / "none") == tokens


@pytest.mark.parametrize(
    "given",
    [
        "short",
        "x" * 23,
        f"anna:{TOKEN},anna:{OTHER}",
        f"anna:{TOKEN},bert:{TOKEN}",
        f"an na:{TOKEN}",
        f"a/b:{TOKEN}",
        f":{TOKEN}",
        f"a:b:{TOKEN}",
        "ä" * 30,
        ",".join(f"n{n}:{n:030}" for n in range(101)),
    ],
)
def test_a_token_that_is_guessed_or_cannot_be_sent(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_ADMIN_TOKEN") as refused:
        admin_tokens({"BRIDGE_ADMIN_TOKEN": given}, tmp_path / "none")
    assert given not in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_who_may_poke_cannot_act(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_POKE_TOKEN have the same"):
        admin_tokens(
            {"BRIDGE_ADMIN_TOKEN": f"anna:{TOKEN}", "BRIDGE_POKE_TOKEN": TOKEN}, tmp_path / "none"
        )
