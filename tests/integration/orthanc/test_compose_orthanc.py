"""The two Orthanc configurations of compose/ start a real Orthanc and do what they are for.

Each server reads a directory with the repository's file and the file that make-secrets.sh wrote,
as the containers do; only ports and storage paths are changed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from pydicom.data import get_testdata_file

from tests.absent import absent
from tests.conftest import require_orthanc

COMPOSE = Path(__file__).resolve().parents[3] / "compose"
README = (COMPOSE / "README.md").read_text("utf-8")
UNCOMPRESSED = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
START_TIMEOUT_S = 30.0

pytestmark = pytest.mark.orthanc

# Options of storescu that propose exactly one syntax, and a file of pydicom's in that syntax.
COMPRESSED = [
    pytest.param("-xv", "MR_small_jp2klossless.dcm", id="JPEG 2000 lossless"),
    pytest.param("-xw", "693_J2KI.dcm", id="JPEG 2000"),
    pytest.param("-xs", "SC_rgb_jpeg_gdcm.dcm", id="JPEG lossless"),
    pytest.param("-xr", "MR_small_RLE.dcm", id="RLE"),
]


@dataclass(frozen=True)
class Server:
    """A running Orthanc with one of the configurations."""

    name: str
    http_port: int
    dicom_port: int
    password: str

    def get(self, path: str, *, login: bool = True) -> Any:
        return self.ask("GET", path, login=login)

    def ask(self, method: str, path: str, *, login: bool = True) -> Any:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        request = urllib.request.Request(url, method=method)
        if login:
            pair = base64.b64encode(f"bridge:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {pair}")
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)

    def store(self, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Send a file with C-STORE, proposing only what the options say."""
        return subprocess.run(
            ["storescu", "--required", *options, "127.0.0.1", str(self.dicom_port), path],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )


def reserve() -> socket.socket:
    """Hold a port without listening: nobody else is given it, and Orthanc can still bind it."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("", 0))
    return held


def configuration(name: str, directory: Path, http_port: int, dicom_port: int) -> str:
    """Return the repository's file, comments and all, with other ports and paths."""
    text = (COMPOSE / f"orthanc-{name}.json").read_text("utf-8")
    for old, new, count in [
        ("/var/lib/orthanc/db", str(directory / "storage"), 2),
        ('"HttpPort" : 8042', f'"HttpPort" : {http_port}', 1),
        ('"DicomPort" : 4242', f'"DicomPort" : {dicom_port}', 1),
    ]:
        assert text.count(old) == count, f"{old} is not {count} times in orthanc-{name}.json"
        text = text.replace(old, new)
    return text


def answers(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            server.get("/system")
        except urllib.error.HTTPError:
            raise
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
                break
        else:
            return
    pytest.fail(f"the {server.name} does not answer: {log.read_text('utf-8', 'replace')[-3000:]}")


@pytest.fixture(scope="module", params=["source", "target"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    executable = require_orthanc()
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "secrets").mkdir()
    shutil.copy(COMPOSE / "make-secrets.sh", directory)
    subprocess.run(["sh", str(directory / "make-secrets.sh")], check=True, capture_output=True)
    password = (directory / "secrets" / f"{request.param}_password").read_text().strip()
    run = directory / "run"
    run.mkdir()
    shutil.copy(directory / "secrets" / f"{request.param}_users.json", run / "users.json")
    log = directory / "log"
    with reserve() as http, reserve() as dicom, log.open("wb") as out:
        found = Server(request.param, http.getsockname()[1], dicom.getsockname()[1], password)
        (run / "orthanc.json").write_text(
            configuration(found.name, directory, found.http_port, found.dicom_port), "utf-8"
        )
        process = subprocess.Popen([executable, run], stdout=out, stderr=out, cwd=directory)
        try:
            answers(found, process, log)
            yield found
        finally:
            process.kill()
            process.wait()
    assert "E0" not in {line[:2] for line in log.read_text("utf-8", "replace").splitlines()}


@pytest.fixture(autouse=True)
def emptied(server: Server) -> Iterator[None]:
    """Leave nothing behind: some of the files are one instance in two syntaxes."""
    yield
    for patient in server.get("/patients"):
        server.ask("DELETE", f"/patients/{patient}")


@pytest.fixture(scope="session")
def storescu() -> None:
    if shutil.which("storescu") is None:
        absent("storescu is not here (Debian package dcmtk)")


def test_it_starts_with_its_settings(server: Server) -> None:
    system = server.get("/system")
    assert system["Name"] == server.name
    assert system["DicomAet"] == server.name.upper()
    assert system["HttpPort"] == server.http_port
    assert system["DicomPort"] == server.dicom_port
    # Reported by newer versions only.
    assert system.get("OverwriteInstances", False) is False
    assert system.get("MaximumStorageSize", 0) == 0
    assert not system.get("IngestTranscoding")


def test_it_asks_for_the_password_of_the_secret(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get("/system", login=False)
    assert refused.value.code == 401
    wrong = Server(server.name, server.http_port, server.dicom_port, server.password[::-1])
    with pytest.raises(urllib.error.HTTPError) as refused:
        wrong.get("/system")
    assert refused.value.code == 401


def test_the_containers_health_check_tells_up_from_down(server: Server) -> None:
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))["services"]
    command = [part.replace("$$", "$") for part in services[server.name]["healthcheck"]["test"]]
    assert command.pop(0) == "CMD"
    assert command[-1].count("/8042") == 1
    with reserve() as nobody:
        for port, healthy in [(server.http_port, True), (nobody.getsockname()[1], False)]:
            moved = [part.replace("/8042", f"/{port}") for part in command]
            result = subprocess.run(moved, check=False, capture_output=True, timeout=10)
            assert (result.returncode == 0) is healthy


@pytest.mark.usefixtures("storescu")
@pytest.mark.parametrize(("proposal", "file"), COMPRESSED)
def test_the_dicom_port_takes_compressed_instances_at_the_source_only(
    server: Server, proposal: str, file: str
) -> None:
    path = get_testdata_file(file, download=False)
    assert isinstance(path, str)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    assert header.file_meta.TransferSyntaxUID not in UNCOMPRESSED
    stored = server.store(path, proposal)
    held = server.get("/instances")
    if server.name == "target":
        assert stored.returncode != 0
        assert held == []
        return
    assert stored.returncode == 0, stored.stderr
    (instance,) = held
    syntax = server.get(f"/instances/{instance}/metadata?expand")["TransferSyntax"]
    assert syntax == header.file_meta.TransferSyntaxUID, "kept as it came"


@pytest.mark.usefixtures("storescu")
def test_the_command_of_the_readme_sends_compressed_and_uncompressed_files(
    server: Server, tmp_path: Path
) -> None:
    """storescu would refuse to send what is compressed, without an option for its syntax."""
    if server.name == "target":
        return
    (command,) = re.findall(r"`(\w+ -aec SOURCE 127.0.0.1 4242 \*.dcm)`", README)
    files = [str(param.values[1]) for param in COMPRESSED]
    for number, file in enumerate([*files, "CT_small.dcm"]):
        shutil.copy(str(get_testdata_file(file, download=False)), tmp_path / f"{number}.dcm")
    sent = subprocess.run(
        ["sh", "-c", command.replace("4242", str(server.dicom_port))],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert sent.returncode == 0, sent.stderr
    uids = {
        pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in tmp_path.iterdir()
    }
    assert len(server.get("/instances")) == len(uids)


@pytest.mark.usefixtures("storescu")
@pytest.mark.parametrize(
    ("proposal", "file"),
    [
        pytest.param("-xi", "MR_small_implicit.dcm", id="implicit"),
        pytest.param("-xe", "CT_small.dcm", id="explicit"),
        pytest.param("-xb", "MR_small_bigendian.dcm", id="big endian"),
    ],
)
def test_the_dicom_port_takes_uncompressed_instances_at_both(
    server: Server, proposal: str, file: str
) -> None:
    path = get_testdata_file(file, download=False)
    assert isinstance(path, str)
    stored = server.store(path, proposal)
    assert stored.returncode == 0, stored.stderr
    (instance,) = server.get("/instances")
    tags = server.get(f"/instances/{instance}")["MainDicomTags"]
    assert tags["SOPInstanceUID"] == pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
