"""docs/tutorial.md, run as it is written: every command, every output."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import require_orthanc

pytestmark = pytest.mark.orthanc

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
PORTS = ("8142", "8143", "8180", "4142", "4143")
MARK = "=== end of block"


def blocks() -> list[tuple[str, str]]:
    """Commands, each with the output that follows it, or ""."""
    found: list[tuple[str, str]] = []
    for language, text in re.findall(r"^```(sh|text)\n(.*?)^```$", TUTORIAL, re.M | re.S):
        if language == "sh":
            found.append((text, ""))
        else:
            found[-1] = (found[-1][0], text)
    return found


def free_ports() -> dict[str, str]:
    """A free port for each of the tutorial's."""
    with ExitStack() as stack:
        reserved = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        return {port: str(s.getsockname()[1]) for port, s in zip(PORTS, reserved, strict=True)}


def elsewhere(text: str, ports: dict[str, str]) -> str:
    return re.sub(rf"\b(?:{'|'.join(PORTS)})\b", lambda found: ports[found[0]], text)


def pattern(expected: str) -> str:
    """Let ``...`` stand for anything or nothing, and blanks for any number of blanks."""
    found = ""
    for word in expected.split():
        alone = word == "..."
        found += "(?: .*?)?" if alone else " " + re.escape(word).replace(r"\.\.\.", ".*?")
    return found


def blanks(output: str) -> str:
    return "".join(f" {word}" for word in output.split())


def program(home: Path) -> None:
    """Make ``orthanc-bridge`` a command, whether it is installed or not."""
    path = home / "bin" / "orthanc-bridge"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m bridge "$@"\n')
    path.chmod(0o755)


def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    orthanc = require_orthanc()
    program(tmp_path)
    ports = free_ports()
    script = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
    script += "".join(f"{elsewhere(code, ports)}echo '{MARK}'\n" for code, _ in blocks())
    path = [tmp_path / "bin", Path(sys.executable).parent, orthanc.parent]
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={
            "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]]),
            "HOME": str(tmp_path),
            "no_proxy": "127.0.0.1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    log = tmp_path / "bridge.log"
    assert done.returncode == 0, done.stdout + done.stderr + log.read_text()
    outputs = done.stdout.split(f"{MARK}\n")[:-1]
    assert len(outputs) == len(blocks()) > 8
    for (code, expected), output in zip(blocks(), outputs, strict=True):
        wanted = pattern(elsewhere(expected, ports))
        assert re.fullmatch(wanted, blanks(output)), f"{code}\n{expected}\n{output}"


def test_the_comparison_of_outputs_can_fail() -> None:
    assert re.fullmatch(pattern("a.  ... c\nd"), blanks("a. b c d"))
    assert re.fullmatch(pattern("a\n...\nc...e ..."), blanks("a cde"))
    assert not re.fullmatch(pattern("a ... c"), blanks("a b d"))
    assert sum(bool(expected) for _, expected in blocks()) > 6
