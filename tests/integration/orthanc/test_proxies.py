"""Both servers behind a real nginx, with the configuration that docs/proxies.md shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.model import Reason
from tests.bridge_process import BridgeProcess
from tests.dicom_samples import identity_of, small_ct, small_series
from tests.fault_bench import (
    FOLLOWING_ONLY,
    Bench,
    assert_few_words,
    endure,
    explanation,
    send_others_after_a_refusal,
)
from tests.fault_proxy import FaultProxy, OnMarker
from tests.integration.worker.test_poison_servers import DEATHS_MAX, Supervisor
from tests.nginx import Nginx, Trust, changed

pytestmark = pytest.mark.orthanc

SIDES = ("source", "target")
NO_LIMIT = "client_max_body_size 0;"
BIG_ROWS = 512
"""A slice of so many rows and columns has half a megabyte."""


@dataclass(frozen=True)
class Front:
    """Two Orthancs, an nginx in front of both, and a bridge that knows only the nginx."""

    bench: Bench
    nginx: Nginx
    trust: Trust
    servers: Mapping[str, OrthancServer]
    ports: Mapping[str, int]

    def serve(self, *, also: str = "", **changes: Mapping[str, str]) -> None:
        """Serve the documented sites, with these changes by side, and perhaps one more."""
        sites = [
            changed(
                self.trust.site(self.ports[side], self.servers[side].http_port),
                changes.get(side, {}),
            )
            for side in SIDES
        ]
        self.nginx.serve(*sites, also)

    def start(self, **settings: str) -> BridgeProcess:
        """Start a bridge that has seen both servers."""
        bridge = self.bench.start("run", **settings)
        self.bench.await_settled(bridge)
        return bridge


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return Trust.make(tmp_path_factory.mktemp("trust"))


@pytest.fixture
def front(orthanc: Callable[..., OrthancServer], trust: Trust, tmp_path: Path) -> Iterator[Front]:
    with ExitStack() as stack:
        nginx = stack.enter_context(Nginx(tmp_path / "nginx"))
        servers = {side: orthanc(side, config=FOLLOWING_ONLY) for side in SIDES}
        ports = {side: nginx.port() for side in SIDES}
        settings: dict[str, str] = {}
        for side, port in ports.items():
            settings |= trust.settings(side.upper(), port)
        source_url, target_url = (servers[side].url for side in SIDES)
        bench = stack.enter_context(Bench(source_url, target_url, tmp_path / "home", settings))
        bench.home.mkdir()
        yield Front(bench, nginx, trust, servers, ports)


def _files(bench: Bench, sent: Mapping[str, bytes]) -> dict[str, bytes]:
    return {instance_id: bench.file(instance_id) for instance_id in sent}


def test_the_documented_configuration(front: Front) -> None:
    front.serve()
    bench = front.bench
    files = [*small_series(5), small_ct(rows=1200, columns=1200)]
    sent = {bench.send(data): data for data in files}
    done = bench.run("run", "--once", "--json", PROOF="stored", SPOOL_ABOVE_MB="1")
    assert done.exit_code == 0, done.stderr
    assert _files(bench, sent) == sent
    bench.assert_delivered_once(sent)
    diagnosis = bench.run("doctor", "--json")
    assert diagnosis.exit_code == 0, diagnosis.stdout


KEEPALIVE = "ssl_certificate_key "
BUFFERS = {
    "proxy_buffering off;": "proxy_buffering on; proxy_buffers 4 4k; gzip on; gzip_types *; "
    "gzip_min_length 1; gzip_proxied any;",
    "proxy_request_buffering off;": "proxy_request_buffering on;",
    "proxy_http_version 1.1;": "proxy_http_version 1.0;",
}
CLOSES = {
    "after two requests": {KEEPALIVE: f"keepalive_requests 2; {KEEPALIVE}"},
    "when idle": {KEEPALIVE: f"keepalive_timeout 50ms; {KEEPALIVE}"},
    "at once": {KEEPALIVE: f"keepalive_timeout 0; {KEEPALIVE}"},
}


@pytest.mark.parametrize(
    ("at_source", "at_target"),
    [("after two requests", "when idle"), ("at once", "after two requests")],
)
def test_a_proxy_that_compresses_buffers_and_closes(
    front: Front, at_source: str, at_target: str
) -> None:
    front.serve(source=BUFFERS | CLOSES[at_source], target=BUFFERS | CLOSES[at_target])
    bench = front.bench
    bridge = front.start()
    sent = {
        bench.send(data): data
        for data in [*small_series(25), small_ct(rows=BIG_ROWS, columns=BIG_ROWS)]
    }
    bench.await_all(sent)
    bench.await_settled(bridge)
    assert _files(bench, sent) == sent
    bench.assert_delivered_once(sent)
    assert_few_words(bridge, outages=0)


def test_a_body_limit_for_some(front: Front) -> None:
    """The small ones arrive, the large one waits and says what to do; then the limit is raised."""
    front.serve(target={NO_LIMIT: "client_max_body_size 100k;"})
    bench = front.bench
    bridge = front.start()
    large = bench.send(small_ct(rows=BIG_ROWS, columns=BIG_ROWS))
    small = bench.send_all(small_series(6))
    bench.await_all(small)
    small += send_others_after_a_refusal(bench, bridge)
    told = explanation(bridge, "instances_refused")
    assert "1 instance is refused by a server that serves others" in told
    assert "HTTP 413" in told
    assert "client_max_body_size" in told
    bench.assert_untouched()
    front.serve()
    bench.await_all([large])
    bench.await_settled(bridge)
    bench.assert_delivered_once([large, *small])


def test_a_body_limit_for_all(front: Front) -> None:
    front.serve(target={NO_LIMIT: "client_max_body_size 1k;"})
    bench = front.bench
    sent = bench.send_all(small_series(3, rows=64, columns=64))
    bridge = bench.start("run")
    assert "client_max_body_size" in explanation(bridge, "target_body_limit")
    endure(bench, bridge, "target_body_limit", front.serve)
    bench.await_all(sent)
    bench.await_settled(bridge)
    bench.assert_delivered_once(sent)
    assert_few_words(bridge, outages=1)


@pytest.mark.parametrize("side", SIDES)
def test_a_server_restarted_behind_its_proxy(front: Front, side: str) -> None:
    front.serve()
    bench, server = front.bench, front.servers[side]
    bridge = front.start(MAX_INSTANCES_S="20")  # slowly: this process may be late with the kill
    sent = bench.send_all(small_series(60, rows=64, columns=64))
    bridge.wait_logged("instance_delivered", 3)
    server.kill()
    told = explanation(bridge, f"{side}_server_error")
    assert f"The {side} at https://127.0.0.1:{front.ports[side]}/orthanc is behind a proxy" in told
    assert "HTTP 502" in told
    assert "Check that it is running" in told
    endure(bench, bridge, f"{side}_server_error", server.start)
    bench.await_all(sent)
    bench.await_settled(bridge)
    bench.assert_delivered_once(sent)
    assert_few_words(bridge, outages=1)


def test_an_address_that_only_redirects(front: Front) -> None:
    """To https, once for each side: explained, nothing parked, exit codes by side."""
    plain = front.nginx.port()
    to_https = (
        f"server {{ listen 127.0.0.1:{plain}; "
        f"return 301 https://127.0.0.1:{front.ports['target']}$request_uri; }}"
    )
    front.serve(also=to_https)
    bench = front.bench
    bench.send(small_ct())
    for side, code in (("SOURCE", 10), ("TARGET", 11)):
        url = {f"{side}_URL": f"http://127.0.0.1:{plain}/orthanc"}
        done = bench.run("run", "--once", COMMAND_PATIENCE_S="1", **url)
        assert done.exit_code == code, done.stderr
        assert "redirects us to https:// on the same host" in done.stderr
        assert f"Write https:// in BRIDGE_{side}_URL" in done.stderr


def test_an_instance_that_its_server_dies_of_behind_the_proxy(front: Front) -> None:
    """The proxy only says 502 each time; the instance is found out all the same."""
    bench, target = front.bench, front.servers["target"]
    poison = small_ct()
    with FaultProxy(target.http_port) as faults:
        supervisor = Supervisor(target, faults)
        front.nginx.serve(
            front.trust.site(front.ports["source"], front.servers["source"].http_port),
            front.trust.site(front.ports["target"], int(faults.url.rpartition(":")[2])),
        )
        faults.strike(OnMarker(identity_of(poison).sop_uid.encode(), supervisor.kill))
        bad = bench.send(poison)
        others = bench.send_all(small_series(4))
        bridge = bench.start("run", ATTEMPTS="2")
        bridge.wait_logged("instance_parked", timeout_s=60.0)
        supervisor.settle()
        bench.await_all(others)
        parked = bench.parked()
        assert {i: p.reason for i, p in parked.items()} == {bad: Reason.TARGET_DIED}
        assert supervisor.deaths <= DEATHS_MAX
        faults.heal()
        supervisor.settle()
