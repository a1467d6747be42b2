"""Bad input and bad luck: the setting, what was seen, what to do, and the documented exit code."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import run_bridge
from tests.conftest import require_orthanc
from tests.dicom_samples import small_ct
from tests.integration.conftest import Pair

pytestmark = pytest.mark.orthanc

PASSWORD = "a-secret-of-the-test"  # noqa: S105


class _Page(BaseHTTPRequestHandler):
    """Some other web server."""

    def do_GET(self) -> None:
        body = b"<html>Welcome</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Two real servers, one of them locked, a page, and a port where nobody listens."""
    executable = require_orthanc()
    home = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:

        def start(name: str, **arguments: str) -> OrthancServer:
            server = OrthancServer(name, home / name, executable=executable, **arguments)  # type: ignore[arg-type]
            return stack.enter_context(server)

        open_one = start("open")
        locked = start("locked", username="bridge", password=PASSWORD)
        page = stack.enter_context(HTTPServer(("127.0.0.1", 0), _Page))
        Thread(target=page.serve_forever, daemon=True).start()
        stack.callback(page.shutdown)
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        yield {
            "open": open_one.url,
            "locked": locked.url,
            "page": f"http://127.0.0.1:{page.server_port}",
            "nobody": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }


LOGIN = {"TARGET_USERNAME": "bridge", "TARGET_PASSWORD": PASSWORD}

CASES = {
    "no source": ({"SOURCE_URL": ""}, 2, ["BRIDGE_SOURCE_URL is not set", "http://orthanc:8042"]),
    "no target": ({"TARGET_URL": ""}, 2, ["BRIDGE_TARGET_URL is not set"]),
    "no login": ({}, 11, ["401", "BRIDGE_TARGET_USERNAME"]),
    "wrong password": (
        {**LOGIN, "TARGET_PASSWORD": "wrong-" + PASSWORD},
        11,
        ["401", "BRIDGE_TARGET_PASSWORD"],
    ),
    "wrong port of the source": ({**LOGIN, "SOURCE_URL": "nobody"}, 10, ["BRIDGE_SOURCE_URL"]),
    "wrong port of the target": ({**LOGIN, "TARGET_URL": "nobody"}, 11, ["BRIDGE_TARGET_URL"]),
    "a source that is no Orthanc": (
        {**LOGIN, "SOURCE_URL": "page"},
        10,
        ["BRIDGE_SOURCE_URL", "Orthanc"],
    ),
    "a target that is no Orthanc": ({"TARGET_URL": "page"}, 11, ["BRIDGE_TARGET_URL", "Orthanc"]),
    "a host that does not exist": (
        {**LOGIN, "SOURCE_URL": "http://no-such-host.invalid"},
        10,
        ["BRIDGE_SOURCE_URL", "no-such-host.invalid"],
    ),
    "a path that is wrong": ({"TARGET_URL": "open/wrong"}, 11, ["BRIDGE_TARGET_URL", "404"]),
    "one server twice": ({"TARGET_URL": "open"}, 2, ["BRIDGE_SOURCE_URL", "BRIDGE_TARGET_URL"]),
    "a login in the address": (
        {"TARGET_URL": f"http://bridge:{PASSWORD}@127.0.0.1"},
        2,
        ["BRIDGE_TARGET_URL", "_PASSWORD"],
    ),
    "a state below a file": (
        {**LOGIN, "STATE_PATH": "/dev/null/state"},
        12,
        ["BRIDGE_STATE_PATH", "/dev/null/state"],
    ),
    "a state where nothing can be": (
        {**LOGIN, "STATE_PATH": "/proc/state.sqlite3"},
        12,
        ["BRIDGE_STATE_PATH"],
    ),
    "a state that is a directory": ({**LOGIN, "STATE_PATH": "."}, 12, ["BRIDGE_STATE_PATH"]),
    "a number that is none": ({**LOGIN, "WORKERS": "many"}, 2, ["BRIDGE_WORKERS", "'many'"]),
    "a syntax that is none": (
        {**LOGIN, "TRANSFER_SYNTAX": "MPEG2MPML"},
        2,
        ["BRIDGE_TRANSFER_SYNTAX", "'MPEG2MPML'"],
    ),
    "a secret file that is not there": (
        {"TARGET_USERNAME": "bridge", "TARGET_PASSWORD_FILE": "/nowhere/secret"},
        2,
        ["BRIDGE_TARGET_PASSWORD_FILE"],
    ),
    "a monitoring address that is none": (
        {**LOGIN, "HEALTH_HOST": "256.0.0.1"},
        2,
        ["HEALTH_HOST"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_run_once_tells_what_is_wrong(name: str, places: dict[str, str], tmp_path: Path) -> None:
    given, exit_code, named = CASES[name]
    settings = {
        "SOURCE_URL": "open",
        "TARGET_URL": "locked",
        "STATE_PATH": str(tmp_path / "state.sqlite3"),
        "HEALTH_PORT": "0",
        "HTTP_TIMEOUT_S": "3",
        "COMMAND_PATIENCE_S": "0",
        **given,
    }
    for key in ("SOURCE_URL", "TARGET_URL"):
        place, _, rest = settings[key].partition("/")
        if place in places:
            settings[key] = places[place] + (f"/{rest}" if rest else "")
    done = run_bridge(
        "run",
        "--once",
        settings={f"BRIDGE_{key}": value for key, value in settings.items()},
        cwd=tmp_path,
    )
    assert done.exit_code == exit_code, done.stderr
    complaint = [line for line in done.stderr.splitlines() if line.startswith("orthanc-bridge: ")]
    assert len(complaint) == 1, done.stderr
    for text in named:
        assert text in complaint[0]
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr + done.stdout
    assert done.stdout == ""


def test_a_monitoring_port_in_use(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = pair.run("run", HEALTH_PORT=port)
    assert done.exit_code == 2
    assert f"BRIDGE_HEALTH_PORT {port}: Address already in use" in done.stderr
    assert "0 takes any free one" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["--from", "999"], ["--from", "1", "--to", "999"], ["--from", "99999999999999"]]
)
def test_a_replay_beyond_the_feed(pair: Pair, arguments: list[str]) -> None:
    pair.send(small_ct())
    done = pair.run("replay", *arguments)
    assert done.exit_code == 2
    assert "beyond the feed" in done.stderr
    assert str(pair.last()) in done.stderr
    assert "--from" in done.stderr
    assert "--to" in done.stderr
    assert done.stdout == ""
    assert pair.held() == set(), "nothing was done"


def test_an_outage_in_the_middle_of_a_job_loses_nothing(pair: Pair) -> None:
    sent = {pair.send(small_ct(seed=number)) for number in range(40)}
    # Slowly: this process may be late with the kill.
    slowly = {"MAX_INSTANCES_S": "10", "COMMAND_PATIENCE_S": "0.5", "HTTP_TIMEOUT_S": "2"}
    job = pair.start("run", "--once", **slowly)
    job.wait_logged("instance_delivered", 3)
    pair.target_server.kill()
    done = job.finish()
    assert done.exit_code == 11
    assert "BRIDGE_TARGET_URL" in done.stderr
    assert "Traceback" not in done.stderr
    pair.target_server.start()
    again = pair.run("run", "--once")
    assert again.exit_code == 0
    assert pair.held() == sent
    assert sorted(pair.arrivals()) == sorted(sent)
