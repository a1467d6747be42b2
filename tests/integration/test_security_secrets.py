"""Credentials show nowhere: not in logs, errors, metrics, status, files or process arguments.

Known secrets, a basic login and a token, go with a real bridge through success and every kind of
failure at both servers; then everything that anybody else could read is searched for them.
"""

from __future__ import annotations

import base64
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from bridge.ledger.store import Ledger
from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import small_ct, small_series
from tests.fake_behaviours import Behaviour
from tests.fake_orthanc import FakeOrthanc, HangUp, Respond
from tests.fake_pair import FakePair
from tests.integration.conftest import undecodable_ct

USER = "Qx7user"
PASSWORD = "pw-Zk93%+/:@ßlime"  # noqa: S105  (a colon, a percent sign, non-ASCII: all legal)
TOKEN = "tok3n.Wv8-~+/=AbCdEf"  # noqa: S105
SECRETS = (
    PASSWORD,
    TOKEN,
    base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
    quote(PASSWORD),
    quote(TOKEN, safe=""),
    repr(PASSWORD)[1:-1].encode("ascii", "backslashreplace").decode(),
)
PATHS = ("/livez", "/readyz", "/health", "/metrics", "/api/status", "/")

FAULTS: dict[str, Behaviour] = {
    "login_refused": Respond(401),
    "forbidden": Respond(403),
    "not_found": Respond(404),
    "body_limit": Respond(413),
    "server_error": Respond(503),
    "storage_full": Respond(507),
    "not_orthanc": Respond(200, b"<html>hello</html>"),
    "unreachable": HangUp(),
    "redirected": Respond(307),
}


class Watched:
    """A bridge, and everything of it that can be read from outside."""

    def __init__(self, pair: FakePair, bridge: BridgeProcess) -> None:
        self.pair, self.bridge = pair, bridge
        self.seen: dict[str, str] = {}

    def look(self, when: str) -> None:
        for path in PATHS:
            self.seen[f"{path} {when}"] = str(self.bridge.get(path)[1])
        for pid in (self.bridge.pid, *self.bridge.templates(), *self.bridge.workers()):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
            self.seen[f"arguments of {pid} {when}"] = arguments.decode("utf-8", "replace")

    def look_at_files(self) -> None:
        for path in (self.pair.home, self.pair.home.with_name("tmp")):
            for file in path.rglob("*"):
                if file.is_file():
                    self.seen[f"file {file.name}"] = file.read_bytes().decode("utf-8", "replace")

    def wait_problem(self, side: str, problem: str) -> None:
        self.bridge.wait_health(
            lambda said: said[side]["problem"] == problem, f"{side} {problem} in /health"
        )


def leaks(seen: dict[str, str]) -> list[str]:
    """Name the places where a secret, in whatever form, can be read."""
    return [place for place, text in seen.items() if any(secret in text for secret in SECRETS)]


@pytest.fixture
def servers() -> Iterator[tuple[FakeOrthanc, FakeOrthanc, FakeOrthanc]]:
    with (
        FakeOrthanc(username=USER, password=PASSWORD) as source,
        FakeOrthanc(token=TOKEN) as target,
        FakeOrthanc() as elsewhere,
    ):
        yield source, target, elsewhere


@pytest.fixture
def pair(
    servers: tuple[FakeOrthanc, FakeOrthanc, FakeOrthanc], tmp_path: Path
) -> Iterator[FakePair]:
    source, target, _ = servers
    pair = FakePair(source.url, target.url, tmp_path / "home", LOG_LEVEL="debug", ATTEMPTS="1")
    (tmp_path / "tmp").mkdir()
    # One secret in the environment, the others in files: both ways are supported.
    pair.environment |= {
        "TMPDIR": str(tmp_path / "tmp"),
        "BRIDGE_SOURCE_USERNAME": USER,
        "BRIDGE_SOURCE_PASSWORD_FILE": pair.path_of_secret("password", PASSWORD),
        "BRIDGE_TARGET_TOKEN": TOKEN,
    }
    yield pair
    pair.close()


def test_no_secret_can_be_read_anywhere(
    servers: tuple[FakeOrthanc, FakeOrthanc, FakeOrthanc], pair: FakePair
) -> None:
    source, target, elsewhere = servers
    watched = Watched(pair, pair.start("run"))
    sent = source.put(small_ct())
    source.put(undecodable_ct())
    wait_until(lambda: sent in target.store.instances, "the first instance arrives")
    watched.look("working")
    for problem, fault in FAULTS.items():
        if problem == "redirected":
            fault = Respond(307, headers={"Location": f"{elsewhere.url}/instances"})  # noqa: PLW2901
        for side, server in (("source", source), ("target", target)):
            server.script("", fault)
            source.put(small_ct())
            watched.wait_problem(side, problem)
            watched.look(f"{side} {problem}")
            server.behave()
            watched.bridge.wait_health(
                lambda said: said["source"]["up"] and said["target"]["up"], "both are up again"
            )
    wait_until(
        lambda: source.store.instances.keys() - target.store.instances.keys() <= parked(pair),
        "everything arrives or is parked",
    )
    assert elsewhere.requests == [], "redirects are not followed, credentials or not"
    for arguments in (["status"], ["status", "--json"], ["parked", "list", "--json"], ["doctor"]):
        done = pair.run(*arguments)
        watched.seen[" ".join(arguments)] = done.stdout + done.stderr
    watched.look_at_files()
    watched.bridge.send_to_group(signal.SIGTERM)
    finished = watched.bridge.finish()
    watched.seen |= {"stdout": finished.stdout, "stderr": finished.stderr}
    watched.look_at_files()
    assert finished.exit_code == 0
    assert "instance_delivered" in finished.stderr
    assert any("bridge.sqlite3" in place for place in watched.seen)
    assert all(f"/metrics target {problem}" in watched.seen for problem in FAULTS)
    assert leaks(watched.seen) == []
    assert {SECRETS[2] in str(headers) for headers in source.headers_seen} == {True}
    assert {TOKEN in str(headers) for headers in target.headers_seen} == {True}


def parked(pair: FakePair) -> set[str]:
    with Ledger(pair.state_path, create=False) as ledger:
        return {row.move.instance_id for row in ledger.parked()}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_in_the_errors_of_commands(
    servers: tuple[FakeOrthanc, FakeOrthanc, FakeOrthanc], pair: FakePair, log_format: str
) -> None:
    source, target, _ = servers
    for data in small_series(2):
        source.put(data)
    seen = {}
    for server, name in ((source, "source"), (target, "target")):
        for problem in ("login_refused", "not_orthanc"):
            server.script("", FAULTS[problem])
            done = pair.run("run", "--once", LOG_FORMAT=log_format, COMMAND_PATIENCE_S="0")
            seen[f"{name} {problem}"] = done.stdout + done.stderr
            assert done.exit_code in {10, 11}
            server.behave()
    assert leaks(seen) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://Qx7user:tok3n.Wv8-~+/=AbCdEf@127.0.0.1:1",
        "http://tok3n.Wv8-~+/=AbCdEf@127.0.0.1:1",
        "https://Qx7user:tok3n.Wv8-~+/=AbCdEf@[::1",
        "Qx7user:tok3n.Wv8-~+/=AbCdEf@127.0.0.1",
        "http://127.0.0.1:1/?token=tok3n.Wv8-~+/=AbCdEf",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(pair: FakePair, url: str) -> None:
    done = pair.run("run", SOURCE_URL=url)
    assert done.exit_code == 2
    assert "BRIDGE_SOURCE_URL" in done.stderr
    assert leaks({"stderr": done.stderr, "stdout": done.stdout}) == []
    assert "AbCdEf" not in done.stderr
    if re.match(r"http://[^/]*@127", url):
        assert "..._PASSWORD_FILE" in done.stderr, "the advice says where it belongs"
