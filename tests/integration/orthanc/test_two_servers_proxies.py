"""Are they two servers? Behind a real nginx, with logins that may do little at either."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import Finished
from tests.dicom_samples import small_series
from tests.fault_bench import FOLLOWING_ONLY, Bench
from tests.integration.conftest import post
from tests.nginx import Nginx, Trust, changed

pytestmark = pytest.mark.orthanc

SIDES = ("source", "target")
OVERWRITES = FOLLOWING_ONLY | {"OverwriteInstances": True}
ENCODES = {"TRANSFER_SYNTAX": "RLELossless"}
"""Every sample is uncompressed: each original would be replaced."""
READS = "GET"
"""What the source's login may do: the bridge needs no more of it."""
READS_AND_STORES = r"GET|POST /orthanc/instances$"
STORES_ONLY = r"GET /orthanc/(system|tools/)|POST /orthanc/instances$"
"""What a login may do that sees nothing of what the target holds."""


@dataclass(frozen=True)
class Front:
    """A bridge that knows two addresses of an nginx, and what lies behind each."""

    bench: Bench
    nginx: Nginx
    trust: Trust
    ports: dict[str, int]

    def serve(self, servers: dict[str, OrthancServer], rights: dict[str, str]) -> None:
        """Lead each address to a server; its login may do what begins like ``rights``."""
        sites = []
        for side in SIDES:
            allowed = (
                f'map "$request_method $uri" $may_{side} {{ default 0; "~^({rights[side]})" 1; }}'
            )
            refuse = f"if ($may_{side} = 0) {{ return 403; }}\n        client_max_body_size 0;"
            site = self.trust.site(self.ports[side], servers[side].http_port)
            sites.append(allowed + changed(site, {"client_max_body_size 0;": refuse}))
        self.nginx.serve(*sites)

    def both(self, *arguments: str) -> tuple[Finished, Finished]:
        """Ask doctor, then run once."""
        return (
            self.bench.run("doctor", **ENCODES),
            self.bench.run(*(arguments or ("run", "--once", "--json")), **ENCODES),
        )


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return Trust.make(tmp_path_factory.mktemp("trust"))


@pytest.fixture
def front(trust: Trust, tmp_path: Path) -> Iterator[Front]:
    with ExitStack() as stack:
        nginx = stack.enter_context(Nginx(tmp_path / "nginx"))
        ports = {side: nginx.port() for side in SIDES}
        settings: dict[str, str] = {}
        for side, port in ports.items():
            settings |= trust.settings(side.upper(), port)
        home = tmp_path / "home"
        home.mkdir()
        source_url, target_url = (settings[f"{side.upper()}_URL"] for side in SIDES)
        bench = stack.enter_context(Bench(source_url, target_url, home, settings))
        yield Front(bench, nginx, trust, ports)


def files_of(server: OrthancServer) -> dict[str, bytes]:
    """Return every file of a server by its name in the storage area."""
    found = (path for path in server.directory.glob("storage/??/??/*") if path.is_file())
    return {path.name: path.read_bytes() for path in found}


def copied(orthanc: Callable[..., OrthancServer], server: OrthancServer) -> OrthancServer:
    """Return another server with the same content, rows, dates and file names."""
    server.stop()
    copy = orthanc("copy", config=OVERWRITES)
    copy.stop()
    shutil.rmtree(copy.directory / "storage")
    shutil.copytree(server.directory / "storage", copy.directory / "storage")
    server.start()
    copy.start()
    return copy


@pytest.mark.parametrize(
    ("at_target", "says"),
    [
        (READS_AND_STORES, "may lead to one server"),
        (STORES_ONLY, "cannot tell whether"),
        ("", "lead to one server"),
    ],
    ids=["may set no mark", "may see nothing", "may do everything"],
)
def test_one_server_under_two_names_is_found_before_the_first_move(
    at_target: str, says: str, front: Front, orthanc: Callable[..., OrthancServer]
) -> None:
    """The source's login may only read. Three originals, and each would be replaced."""
    server = orthanc("one", config=OVERWRITES)
    for data in small_series(3):
        post(server.url, data)
    before = files_of(server)
    front.serve(dict.fromkeys(SIDES, server), {"source": READS, "target": at_target})
    for arguments in (("run", "--once"), ("replay", "--from", "1")):
        diagnosis, done = front.both(*arguments)
        assert (diagnosis.exit_code, done.exit_code) == (2, 2), diagnosis.stdout + done.stderr
        assert says in done.stderr
        assert says in diagnosis.stdout
    assert files_of(server) == before


def test_one_empty_server_is_found_with_the_first_instance(
    front: Front, orthanc: Callable[..., OrthancServer]
) -> None:
    """Nothing tells before; then nothing is moved."""
    server = orthanc("one", config=OVERWRITES)
    front.serve(dict.fromkeys(SIDES, server), {"source": READS, "target": READS_AND_STORES})
    diagnosis, done = front.both()
    assert (diagnosis.exit_code, done.exit_code) == (0, 0)
    assert "cannot tell whether" in diagnosis.stdout
    for data in small_series(3):
        post(server.url, data)
    before = files_of(server)
    diagnosis, done = front.both()
    assert (diagnosis.exit_code, done.exit_code) == (2, 2)
    assert files_of(server) == before


@pytest.mark.parametrize("held", [0, 1, 3])
def test_two_servers_are_two_with_the_least_rights(
    held: int, front: Front, orthanc: Callable[..., OrthancServer]
) -> None:
    source, target = (orthanc(side, config=OVERWRITES) for side in SIDES)
    for data in small_series(3):
        post(source.url, data)
    for data in small_series(held) if held else ():
        post(target.url, data)
    rights = {"source": READS, "target": READS_AND_STORES}
    front.serve({"source": source, "target": target}, rights)
    diagnosis, done = front.both()
    assert (diagnosis.exit_code, done.exit_code) == (0, 0), diagnosis.stdout + done.stderr
    assert "are two servers" in diagnosis.stdout
    assert done.json["delivered"] + done.json["already_there"] == 3


@pytest.mark.parametrize(
    "allowed",
    [
        r"|(PUT|DELETE) /orthanc/peers/orthanc-bridge-probe-",
        r"|(PUT|DELETE) /orthanc/instances/[^/]+/metadata/",
        r"|(PUT|DELETE) /orthanc/(peers/orthanc-bridge-probe-|instances/[^/]+/metadata/)",
    ],
    ids=["peers", "metadata", "both"],
)
def test_of_a_copy_the_operator_is_told_what_to_allow(
    allowed: str, front: Front, orthanc: Callable[..., OrthancServer]
) -> None:
    source = orthanc("source", config=OVERWRITES)
    for data in small_series(3):
        post(source.url, data)
    servers = {"source": source, "target": copied(orthanc, source)}
    front.serve(servers, {"source": READS, "target": READS_AND_STORES})
    diagnosis, done = front.both()
    assert (diagnosis.exit_code, done.exit_code) == (2, 2)
    for said in (diagnosis.stdout, done.stderr):
        words = " ".join(said.split())
        assert "PUT and DELETE on /peers/orthanc-bridge-probe-... and on" in words
        assert "/instances/.../metadata/... at one of the two" in words
    front.serve(servers, {"source": READS, "target": READS_AND_STORES + allowed})
    diagnosis, done = front.both()
    told = 0 if "metadata" in allowed else 2  # a peer alone tells nothing of a common database
    assert (diagnosis.exit_code, done.exit_code) == (told, told), diagnosis.stdout + done.stderr


@pytest.mark.parametrize(
    "allowed", [r"|GET /orthanc/changes", r"|GET /orthanc/instances"], ids=["feed", "instances"]
)
def test_of_a_target_that_shows_nothing_the_operator_is_told_what_to_allow(
    allowed: str, front: Front, orthanc: Callable[..., OrthancServer]
) -> None:
    source, target = (orthanc(side, config=OVERWRITES) for side in SIDES)
    for data in small_series(3):
        post(source.url, data)
    servers = {"source": source, "target": target}
    front.serve(servers, {"source": READS, "target": STORES_ONLY})
    diagnosis, done = front.both()
    assert (diagnosis.exit_code, done.exit_code) == (2, 2)
    for said in (diagnosis.stdout, done.stderr):
        assert "GET on /changes or on /instances/... at the target" in " ".join(said.split())
    front.serve(servers, {"source": READS, "target": STORES_ONLY + allowed})
    diagnosis, done = front.both()
    assert done.exit_code == 0, done.stderr
    assert diagnosis.exit_code != 2
    assert "are two servers" in diagnosis.stdout
