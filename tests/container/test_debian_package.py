"""The Debian package in the Debian that it is for: installed, at work, upgraded, removed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.credentials import Credentials
from bridge.demo.orthanc_server import OrthancServer
from bridge.model import Endpoint, SideName
from bridge.orthanc import OrthancClient
from scripts import deb
from tests.bridge_process import wait_until
from tests.container.conftest import ASKED_VARIABLE
from tests.container.machine import entering, missing
from tests.dicom_samples import small_series
from tests.integration.conftest import ORTHANC

pytestmark = [pytest.mark.orthanc, pytest.mark.timeout(1800)]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGE = "/srv/orthanc-bridge.deb"
USER, PASSWORD = "bridge", "a b'c"
STAYS = {
    "/var/lib/orthanc-bridge": "the state file says what was delivered",
    "/var/lib/orthanc-bridge/bridge.sqlite3": "",
    "/var/lib/orthanc-bridge/bridge.sqlite3.lock": "",
}


def base(debian: deb.Debian) -> Path:
    """Return a kept root of that Debian with its Python in it, made the first time."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orthanc-bridge"
    home.mkdir(parents=True, exist_ok=True)
    kept = home / f"package-{debian.suite}"
    asked = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]
    listed = subprocess.run([*asked, "Label: Debian"], check=True, capture_output=True, text=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            unfinished = kept.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            packages = "--include=python3,ca-certificates"
            made = ["debootstrap", "--variant=minbase", packages, debian.suite, str(unfinished)]
            subprocess.run([*made, listed.stdout.splitlines()[0]], check=True, capture_output=True)
            unfinished.rename(kept)
    return kept


class Machine:
    """A Debian without systemd: commands run in it as root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(
            [*entering(self.root), *command],
            env={"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root"},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def files(self) -> set[str]:
        """Every path, without what the system itself writes down."""
        ours = ("/tmp/", "/var/lib/dpkg/", "/var/log/", "/var/cache/", "/dev/", "/proc/")  # noqa: S108
        found = {"/" + str(path.relative_to(self.root)) for path in self.root.rglob("*")}
        return {name for name in found if not name.startswith(ours)}


@pytest.fixture(scope="module", params=deb.DEBIANS, ids=lambda debian: debian.suite)
def package(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[deb.Debian, Path]:
    if os.environ.get(ASKED_VARIABLE) != "run":
        pytest.skip("the packages are built and installed by make test-container only")
    lacking = missing()
    if lacking:
        pytest.fail(lacking)
    debian: deb.Debian = request.param
    return debian, deb.build(debian, tmp_path_factory.mktemp("packages"))


@pytest.fixture
def machine(package: tuple[deb.Debian, Path], tmp_path: Path) -> Iterator[Machine]:
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", str(base(package[0])), str(root)], check=True)
    shutil.copy(package[1], root / PACKAGE.lstrip("/"))
    yield Machine(root)
    shutil.rmtree(root)


def client_of(server: OrthancServer) -> OrthancClient:
    return OrthancClient(
        Endpoint(SideName.TARGET, server.url), Credentials(username=USER, password=PASSWORD)
    )


def configure(machine: Machine, source: OrthancServer, target: OrthancServer) -> None:
    """Do what the package says when it is installed."""
    settings = machine.root / "etc/orthanc-bridge/bridge.env"
    text = settings.read_text("utf-8")
    for name, value in {
        "SOURCE_URL": source.url,
        "TARGET_URL": target.url,
        "SOURCE_USERNAME": USER,
        "TARGET_USERNAME": USER,
        "WORKERS": "2",
        "POLL_INTERVAL_S": "0.1",
        "HEALTH_PORT": "0",
    }.items():
        line = next(one for one in text.splitlines() if one.startswith(f"#BRIDGE_{name}="))
        text = text.replace(line, f"BRIDGE_{name}={value}")
    settings.write_text(text, "utf-8")
    for side in ("source", "target"):
        path = machine.root / "etc/orthanc-bridge" / f"{side}-password"
        assert path.stat().st_mode & 0o777 == 0o640
        path.write_text(PASSWORD + "\n")


def test_from_nothing_to_a_delivered_study_and_back(
    machine: Machine, orthanc: Callable[..., OrthancServer]
) -> None:
    login = ORTHANC | {
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
    }
    source, target = orthanc("source", config=login), orthanc("target", config=login)
    with client_of(source) as client:
        sent = {client.store(data, deadline_s=30).instance_id for data in small_series(3)}
    before = machine.files()

    said = machine.run("dpkg", "--install", PACKAGE)
    assert "orthanc-bridge doctor" in said, "it says what to do next"
    machine.run("setpriv", "--reuid=65534", "orthanc-bridge", "docs", "operations")
    configure(machine, source, target)
    assert "ERROR" not in machine.run("orthanc-bridge", "doctor")

    # As the unit does, without systemd: the service's user, and passwords as credentials.
    credentials = machine.root / "run/credentials"
    shutil.copytree(machine.root / "etc/orthanc-bridge", credentials)
    machine.run("chown", "-R", "orthanc-bridge", "/run/credentials")
    user = ["setpriv", "--reuid=orthanc-bridge", "--regid=orthanc-bridge", "--init-groups"]
    service = subprocess.Popen(
        [*entering(machine.root), *user, "/usr/lib/orthanc-bridge/start", "run"],
        env={"PATH": PATH, "CREDENTIALS_DIRECTORY": "/run/credentials"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with client_of(target) as client:
            wait_until(lambda: set(client.list_instances(0, 100)) == sent, "all arrive", 120)
        told = json.loads(machine.run("orthanc-bridge", "status", "--json"))
        assert told["bridge"]["running"] is True
        assert told["state_path"] == "/var/lib/orthanc-bridge/bridge.sqlite3"
        assert "differences" in machine.run("orthanc-bridge", "check")
        # What root does beside the service leaves nothing that the service cannot write.
        state = machine.root / "var/lib/orthanc-bridge"
        assert state.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_uid for path in state.iterdir()} == {state.stat().st_uid} != {0}
    finally:
        children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        service.communicate(timeout=60)

    machine.run("dpkg", "--install", PACKAGE)
    assert source.url in (machine.root / "etc/orthanc-bridge/bridge.env").read_text("utf-8")
    machine.run("dpkg", "--remove", "orthanc-bridge")
    assert not (machine.root / "usr/lib/orthanc-bridge").exists()
    assert (machine.root / "etc/orthanc-bridge/source-password").exists()
    machine.run("dpkg", "--purge", "orthanc-bridge")
    left = machine.files() - before
    accounts = {"/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-", "/etc/subuid-"}
    left -= accounts | {"/etc/subgid-", "/etc/.pwd.lock"}
    shutil.rmtree(credentials)
    assert {name for name in left if not name.startswith("/run/")} <= set(STAYS) | {
        f"{name}-{what}" for name in STAYS for what in ("wal", "shm")
    }
    assert before <= machine.files() | {"/etc/.pwd.lock"}


def test_the_same_source_gives_the_same_package(
    package: tuple[deb.Debian, Path], tmp_path: Path
) -> None:
    debian, first = package
    assert deb.build(debian, tmp_path).read_bytes() == first.read_bytes()
