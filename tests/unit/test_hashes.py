"""requirements*.hashes: what is installed is what was locked, or nothing is."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.dockerfile import DOCKERFILE, ROOT

SETUP = ROOT / "scripts" / "setup.sh"
NAME = "locked_sample"


def text_of(path: Path) -> str:
    return path.read_text("utf-8").replace("\\\n", " ")


def wheel_in(directory: Path) -> Path:
    """Make the smallest wheel that pip takes."""
    path = directory / f"{NAME}-1.0-py3-none-any.whl"
    info = f"{NAME}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("name", ["", "-dev"])
def test_every_locked_version_has_hashes(name: str) -> None:
    pin = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.M)
    hashed = text_of(ROOT / f"requirements{name}.hashes")
    locked = (ROOT / f"requirements{name}.lock").read_text("utf-8")
    here, there = (
        {(canonicalize_name(package), version) for package, version in pin.findall(text)}
        for text in (locked, hashed)
    )
    assert here == there
    for line in filter(pin.match, hashed.splitlines()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line


@pytest.mark.parametrize(("path", "count"), [(DOCKERFILE, 1), (SETUP, 2)])
def test_whoever_installs_them_has_them_checked(path: Path, count: int) -> None:
    installs = re.findall(r"pip .*install [^\n]*requirements[\w-]*\.hashes", text_of(path))
    assert len(installs) == count
    assert all("--require-hashes" in install for install in installs)


@pytest.mark.slow
@pytest.mark.parametrize("right", [True, False])
def test_a_file_with_another_hash_is_not_installed(tmp_path: Path, right: bool) -> None:
    wheel = wheel_in(tmp_path)
    data = wheel.read_bytes() if right else b"another file"
    listed = tmp_path / "requirements.hashes"
    listed.write_text(f"{NAME}==1.0 --hash=sha256:{hashlib.sha256(data).hexdigest()}\n")
    command = f"{sys.executable} -m pip install --quiet --require-hashes --requirement {listed}"
    command += f" --no-index --find-links {tmp_path} --target {tmp_path / 'site'}"
    done = subprocess.run(command.split(), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode == 0) is right
    assert ("DO NOT MATCH THE HASHES" in done.stderr) is not right
