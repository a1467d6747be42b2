"""compose/orthanc-bridge.service: what systemd says of it, and what its hardening takes away."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from bridge.config import Settings, known_variables
from bridge.errors import EXIT_CONFIGURATION, EXIT_FEED
from scripts import deb
from tests.bridge_process import process_environment
from tests.transcode_cases import EXPLICIT, HTJ2K, J2K, JPEG_LS, JPEG_SV1, RLE, Image, encoded_file

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "compose" / "orthanc-bridge.service"
PROGRAM = "/opt/orthanc-bridge/bin/orthanc-bridge"
PACKAGE_PROGRAM = "/usr/lib/orthanc-bridge/start"
EXPOSURE_MAX = 2.0
"""1.4 on 2026-11-25; a unit without any hardening has 9.6."""

DENY = "__import__('ctypes').CDLL(None).prctl(65, 1, 0, 0, 0)"  # PR_SET_MDWE, refuse exec gain
DECODE = f"""
import sys
assert {DENY} == 0
from bridge.cli import exit_code_of
sys.exit(max(exit_code_of(["transcode", name, name + ".out"]) for name in sys.argv[1:]))
"""

Analyze = Callable[..., str]


def settings_in(text: str) -> dict[str, list[str]]:
    """Every assignment of the unit by its name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture(params=["compose", "Debian package"])
def analyze(request: pytest.FixtureRequest, tmp_path: Path) -> Analyze:
    """Return systemd-analyze on a copy of each unit whose program exists here."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("no systemd-analyze on PATH (Debian: apt-get install systemd)")
    program = str(Path(sys.executable).with_name("orthanc-bridge"))

    def run(*arguments: str, change: tuple[str, str] = ("", "")) -> str:
        text, started = UNIT.read_text("utf-8"), PROGRAM
        if request.param != "compose":
            text, started = deb.unit(text), PACKAGE_PROGRAM
        assert started in text
        copy = tmp_path / UNIT.name
        copy.write_text(text.replace(started, program).replace(*change))
        done = subprocess.run(
            [tool, *arguments, str(copy)], check=False, capture_output=True, text=True, timeout=60
        )
        return done.stdout + done.stderr

    return run


def test_systemd_has_nothing_to_say_about_it(analyze: Analyze) -> None:
    verify = ("verify", "--man=no", "--recursive-errors=no")
    assert analyze(*verify) == ""
    assert "Unknown key" in analyze(*verify, change=("UMask=", "UMsk="))


def test_what_it_could_do_to_the_machine_is_little(analyze: Analyze) -> None:
    said = analyze("security", "--offline=true", "--no-pager")
    (level,) = re.findall(r"Overall exposure level for \S+: (\d+\.\d+)", said)
    assert 0 < float(level) <= EXPOSURE_MAX, said


def test_the_unit_stands_in_one_place_and_the_pages_lead_to_it() -> None:
    assert "compose/orthanc-bridge.service)" in (ROOT / "docs" / "install.md").read_text("utf-8")
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert "ExecStart=" not in page.read_text("utf-8"), page.name


def test_it_stops_and_restarts_as_the_program_does() -> None:
    unit = settings_in(UNIT.read_text("utf-8"))
    (timeout,) = unit["TimeoutStopSec"]
    assert float(timeout) > Settings.model_fields["shutdown_timeout_s"].default
    assert unit["RestartPreventExitStatus"] == [f"{EXIT_CONFIGURATION} {EXIT_FEED}"]
    assert unit["KillMode"] == ["mixed"]
    names = {value.partition("=")[0] for value in unit["Environment"]}
    assert {name for name in names if name.startswith("BRIDGE_")} <= known_variables()
    credentials = {value.partition(":")[0] for value in unit["LoadCredential"]}
    used = re.findall(r"=%d/(\S+)", "\n".join(unit["Environment"]))
    assert set(used) == credentials


def test_every_decoder_works_without_writable_and_executable_memory(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute=yes, by the kernel's own means."""
    unit = settings_in(UNIT.read_text("utf-8"))
    assert unit["MemoryDenyWriteExecute"] == ["yes"]
    if not _kernel_can_deny():
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3 and newer have)")
    names = []
    for number, syntax in enumerate((J2K, HTJ2K, JPEG_LS, JPEG_SV1, RLE)):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(encoded_file(Image(), syntax))
        names.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", DECODE, *names],
        check=False,
        capture_output=True,
        text=True,
        env=process_environment({}),
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for name in names:
        assert dcmread(f"{name}.out").file_meta.TransferSyntaxUID == EXPLICIT


def _kernel_can_deny() -> bool:
    """Ask in a process of its own: what is denied stays denied."""
    ask = f"import sys; sys.exit({DENY} != 0)"
    return subprocess.run([sys.executable, "-c", ask], check=False).returncode == 0
