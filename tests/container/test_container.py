"""The image of compose/Dockerfile: built, looked into and run, without a container engine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.credentials import Credentials
from bridge.demo.orthanc_server import OrthancServer
from bridge.model import Endpoint, SideName
from bridge.orthanc import OrthancClient
from tests.bridge_process import wait_until
from tests.container import contents
from tests.container.conftest import Servers
from tests.container.image import Image
from tests.container.running import STATE, Container
from tests.dicom_samples import small_series
from tests.dockerfile import DOCKERFILE, instructions
from tests.fault_proxy import FaultProxy, Hang
from tests.poke_figures import reserved_port

pytestmark = [pytest.mark.orthanc, pytest.mark.timeout(900)]

OURS_BYTES_MAX = 260_000_000
"""209 MB on 2026-11-25: codecs and numpy are most of it (docs/container.md)."""
STOP_S = 10.0
"""What ``docker stop`` grants unless it is told otherwise."""


def client_of(server: OrthancServer) -> OrthancClient:
    return OrthancClient(Endpoint(SideName.TARGET, server.url), Credentials())


def send(server: OrthancServer, count: int) -> set[str]:
    with client_of(server) as client:
        return {client.store(data, deadline_s=30).instance_id for data in small_series(count)}


def held(server: OrthancServer) -> set[str]:
    with client_of(server) as client:
        return set(client.list_instances(0, 1000))


def zombies(container: Container) -> list[str]:
    return [name for state, name, _ in container.processes().values() if state == "Z"]


def workers(container: Container) -> list[int]:
    """Its worker processes, by their number inside."""
    return [number for number, (_, name, _) in container.processes().items() if name == "worker"]


def test_every_step_of_the_dockerfile_was_executed_in_order(image: Image) -> None:
    steps = [name for name, _ in instructions(DOCKERFILE.read_text("utf-8"))]
    executed = [line.split()[0] for line in image.log]
    assert executed == steps[steps.index("FROM") :], "an ARG before it names the base"
    assert image.told.noted.keys() == {"VOLUME", "EXPOSE", "STOPSIGNAL"}


def test_the_image_holds_the_program_and_nothing_that_builds_or_fetches(image: Image) -> None:
    ours = image.root / contents.OURS
    assert contents.build_tools(image.root) == []
    assert contents.bytes_in(ours) < OURS_BYTES_MAX
    (packages,) = (ours / "lib").glob("python3*/site-packages")
    names = {path.name.lower() for path in packages.iterdir()}
    assert "bridge" in names
    assert not names & {"pip", "setuptools", "wheel", "tests", "pytest", "hypothesis", "mypy"}
    everything = [path.relative_to(image.root) for path in contents.files(image.root)]
    for name in ("src", "wheels", "root/.cache", "tests", "etc/resolv.conf"):
        assert not (image.root / name).exists(), name
    strays = [path for path in everything if path.suffix == ".whl" or path.name == ".env"]
    assert strays == []
    top = {path.parts[0] for path in everything}
    assert top <= {"bin", "etc", "lib", "opt", "root", "sbin", "usr", "var"}
    assert all((ours / path).lstat().st_uid == 0 for path in ("bin/orthanc-bridge", "lib"))
    (bill,) = packages.glob("orthanc_bridge-*.dist-info/sboms/sbom.cdx.json")
    named = {part["name"].lower() for part in json.loads(bill.read_text("utf-8"))["components"]}
    installed = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert {name.replace("-", "_") for name in named} == installed - {"orthanc_bridge"}
    assert (packages / "bridge" / "docs" / "operations.md").is_file()


def test_the_job_is_done_as_a_user_that_can_write_nothing_else(
    image: Image, servers: Servers, state: Path
) -> None:
    sent = send(servers.source, 6)
    with Container(image, state, servers.settings, "run", "--once", "--json") as container:
        container.wait_logged("monitoring")
        assert container.status("NSpid").split()[-1] == "1"
        assert container.status("Uid").split() == ["10001"] * 4
        assert container.status("Gid").split() == ["10001"] * 4
        assert container.status("Groups") == ""
        assert container.status("NoNewPrivs") == "1"
        assert {container.status(f"Cap{which}") for which in ("Eff", "Prm", "Bnd")} == {"0" * 16}
        mounts = [line.split() for line in container.mounts().splitlines()]
        writable = {words[4] for words in mounts if words[5].split(",")[0] == "rw"}
        assert writable <= {"/proc", "/dev", "/dev/shm", "/tmp", STATE} | {  # noqa: S108
            f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")
        }
        assert container.wait() == 0, container.stderr
    assert json.loads(container.stdout)["delivered"] == len(sent)
    assert held(servers.target) == sent
    assert {path.name for path in state.iterdir()} >= {"bridge.sqlite3"}
    assert {path.stat().st_uid for path in state.iterdir()} == {10001}


def test_it_is_stopped_as_a_container_is(
    image: Image, servers: Servers, state: Path, fault_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = fault_proxy(servers.target.http_port)
    settings = servers.settings | {"BRIDGE_TARGET_URL": proxy.url, "BRIDGE_WINDOW": "2"}
    with Container(image, state, settings) as container:
        before = send(servers.source, 3)
        container.wait_logged("instance_delivered", 3)
        proxy.strike(Hang())
        during = send(servers.source, 4)
        proxy.wait_struck(2)
        container.send(signal.SIGTERM)
        assert container.wait_logged("draining")["in_flight"] == 2
        proxy.heal()
        assert container.wait(STOP_S) == 0, container.stderr
    assert "Traceback" not in container.stderr
    arrived = held(servers.target)
    assert before <= arrived
    assert len(arrived & during) == 2, "what was under way has finished, nothing new was started"
    with Container(image, state, settings, "run", "--once") as container:
        assert container.wait() == 0, container.stderr
    assert held(servers.target) == before | during


def test_a_worker_that_is_killed_is_replaced_and_leaves_no_zombie(
    image: Image, servers: Servers, state: Path
) -> None:
    with Container(image, state, servers.settings) as container:
        send(servers.source, 1)
        container.wait_logged("instance_delivered")
        wait_until(lambda: len(workers(container)) == 2, "both workers are there")
        (first, second) = workers(container)
        for number in (first, second):
            os.kill(container.outside(number), signal.SIGKILL)
        sent = send(servers.source, 4)
        wait_until(lambda: sent <= held(servers.target), "the new workers do their work")
        wait_until(lambda: not zombies(container), "every process that ended is reaped")
        assert not {first, second} & set(container.processes())
        parents = {parent for _, _, parent in container.processes().values()}
        assert parents <= {0, 1, *container.processes()}
        container.send(signal.SIGTERM)
        assert container.wait(STOP_S) == 0, container.stderr


def test_the_health_check_tells_whether_it_is_ready(
    image: Image, servers: Servers, state: Path
) -> None:
    with reserved_port() as port:
        settings = servers.settings | {"BRIDGE_HEALTH_PORT": str(port)}
        with Container(image, state, settings) as container:
            container.wait_logged("monitoring")
            # The variable is the container's; docker runs the check with its environment.
            check = image.told.health_check
            wait_until(lambda: container.execute(*check).returncode == 0, "it is healthy")
            assert container.execute(*check).stdout.startswith("200 ")
            servers.source.kill()
            wait_until(lambda: container.execute(*check).returncode == 1, "it is unhealthy")
            servers.source.start()
            wait_until(lambda: container.execute(*check).returncode == 0, "it is healthy again")
            assert zombies(container) == [], "what is executed beside it is not left to it"
            container.send(signal.SIGTERM)
            assert container.wait(STOP_S) == 0, container.stderr


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_stop_is_obeyed_while_it_starts(
    image: Image, servers: Servers, state: Path, command: str
) -> None:
    """The kernel drops a signal to process 1 that has no handler for it."""
    servers.source.suspend()  # so that it cannot end by itself
    with Container(image, state, servers.settings, command) as container:
        wait_until(lambda: container.catches(signal.SIGTERM), "it has a handler")
        container.send(signal.SIGTERM)
        assert container.wait(STOP_S) in {0, 128 + signal.SIGTERM}
    servers.source.resume()
