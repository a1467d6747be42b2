"""The Debian package: what goes into it besides the program, without building it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from bridge.config import load_settings
from scripts import deb

SHELL = ("start", "orthanc-bridge", "postinst", "prerm", "postrm")


@pytest.mark.parametrize("name", SHELL)
def test_its_scripts_parse_and_are_executable(name: str) -> None:
    path = deb.SOURCES / name
    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", str(path)], check=True)


def test_its_settings_are_those_of_the_example_but_for_addresses_and_state_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = (deb.ROOT / ".env.example").read_text("utf-8")
    text = deb.settings(example)
    set_there = dict(re.findall(r"^(BRIDGE_\w+)=(.*)$", text, re.M))
    assert set_there == {"BRIDGE_STATE_PATH": "/var/lib/orthanc-bridge/bridge.sqlite3"}
    names = re.findall(r"^#?(BRIDGE_\w+)=", example, re.M)
    assert re.findall(r"^#?(BRIDGE_\w+)=", text, re.M) == names, "every setting has its line"
    (tmp_path / "bridge.env").write_text(text + "BRIDGE_SOURCE_URL=http://one\n", "utf-8")
    monkeypatch.setenv("BRIDGE_ENV_FILE", str(tmp_path / "bridge.env"))
    monkeypatch.setenv("BRIDGE_TARGET_URL", "http://two")
    assert load_settings().source_url == "http://one"


def test_its_unit_is_the_other_one_with_a_user_and_a_program_of_its_own() -> None:
    other = (deb.ROOT / "compose" / "orthanc-bridge.service").read_text("utf-8")
    unit = deb.unit(other)
    lines = {line for line in unit.splitlines() if not line.startswith("#")}
    added = lines - set(other.splitlines())
    assert added == {
        "ExecStart=/usr/lib/orthanc-bridge/start run",
        "User=orthanc-bridge",
        "Group=orthanc-bridge",
    }
    for kept in ("LoadCredential=source-password:", "ProtectSystem=strict", "NoNewPrivileges=yes"):
        assert kept in unit
    assert "DynamicUser" not in unit
    with pytest.raises(SystemExit, match="DynamicUser"):
        deb.unit(other.replace("DynamicUser=yes\n", ""))


def run_start(tmp_path: Path, passwords: dict[str, str]) -> str:
    """Run the script that starts the program, with everything below ``tmp_path``."""
    for name in ("state", "passwords"):
        (tmp_path / name).mkdir()
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$*"; pwd; env | grep ^BRIDGE_ | sort\n')
    program.chmod(0o755)
    for side in ("source", "target"):
        (tmp_path / "passwords" / f"{side}-password").write_text(passwords.get(side, ""))
    text = (deb.SOURCES / "start").read_text("utf-8")
    for old, new in {
        "cd /var/lib/orthanc-bridge": f"cd {tmp_path / 'state'}",
        "/usr/lib/orthanc-bridge/bin/orthanc-bridge": str(program),
    }.items():
        assert old in text
        text = text.replace(old, new)
    environment = {"PATH": os.environ["PATH"], "CREDENTIALS_DIRECTORY": str(tmp_path / "passwords")}
    return subprocess.run(
        ["sh", "-c", text, "start", "status", "--json"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_a_password_file_counts_when_something_is_in_it(tmp_path: Path) -> None:
    said = run_start(tmp_path, {"target": "secret\n"})
    assert said.splitlines() == [
        "status --json",
        str(tmp_path / "state"),
        "BRIDGE_ENV_FILE=/etc/orthanc-bridge/bridge.env",
        f"BRIDGE_TARGET_PASSWORD_FILE={tmp_path}/passwords/target-password",
    ]


def test_wheels_are_asked_for_up_to_the_glibc_of_that_debian() -> None:
    asked = deb.platforms("x86_64", (2, 36))
    assert asked[:2] == ["--platform", "manylinux_2_36_x86_64"]
    assert "manylinux_2_28_x86_64" in asked
    assert asked[-1] == "manylinux2014_x86_64"
    assert not any("2_37" in option for option in asked)
