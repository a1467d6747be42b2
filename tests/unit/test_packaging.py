"""What a fresh machine depends on: project metadata, lock files, Makefile and scripts."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)")
SCRIPTS = [
    "scripts/setup.sh",
    "scripts/lock.sh",
    "compose/make-secrets.sh",
    "compose/make-cluster-secrets.sh",
    ".ci/run",
]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found = loaded["project"]
    assert isinstance(found, dict)
    return found


def pins(name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (ROOT / name).read_text("utf-8").splitlines():
        if line.startswith(("#", "--requirement ")):
            continue
        match = PIN.fullmatch(line)
        assert match, f"{name}: {line!r} is not a plain name==version"
        found[canonicalize_name(match[1])] = match[2]
    assert found
    return found


def test_the_locks_satisfy_the_project(project: dict[str, Any]) -> None:
    run = pins("requirements.lock")
    everything = run | pins("requirements-dev.lock")
    for wanted, locked in [
        (project["dependencies"], run),
        (project["optional-dependencies"]["dev"], everything),
    ]:
        for requirement in map(Requirement, wanted):
            version = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement}: {version}"


def test_the_development_lock_adds_to_the_other_and_repeats_nothing() -> None:
    text = (ROOT / "requirements-dev.lock").read_text("utf-8")
    assert "--requirement requirements.lock\n" in text
    assert not set(pins("requirements.lock")) & set(pins("requirements-dev.lock"))


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_every_pin_has_the_hashes_of_its_files_and_no_address(name: str) -> None:
    text = (ROOT / f"{name}.hashes").read_text("utf-8")
    found: dict[str, str] = {}
    for line in text.replace("\\\n", "").splitlines():
        if line.startswith(("#", "--requirement requirements.hashes")):
            continue
        pin, *hashes = line.split()
        match = PIN.fullmatch(pin)
        assert match, pin
        found[canonicalize_name(match[1])] = match[2]
        assert hashes, pin
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), pin
        if canonicalize_name(match[1]) in {"numpy", "imagecodecs", "pydantic-core"}:
            assert len(hashes) >= 6, "for each Python and processor"
    assert found == pins(f"{name}.lock"), "run: make lock"
    assert "://" not in text


def test_what_is_installed_is_checked_by_its_hashes() -> None:
    setup = (ROOT / "scripts/setup.sh").read_text("utf-8")
    docker = (ROOT / "compose/Dockerfile").read_text("utf-8")
    assert setup.count("--require-hashes") == 3
    assert "--require-hashes --requirement requirements.hashes" in docker


def test_the_builder_has_all_that_builds_a_wheel_and_nothing_else() -> None:
    """`make wheel` and `make deb` do without the rest of requirements-dev.hashes."""
    step = (ROOT / "scripts/setup.sh").read_text("utf-8").partition("step_builder() {")[2]
    found = re.search(r"names='\^\(([a-z|-]+)\)=='", step)
    assert found
    wanted: set[str] = set()
    following = ["build", "hatchling"]
    while following:
        name = canonicalize_name(following.pop())
        if name not in wanted:
            wanted.add(name)
            needs = map(Requirement, importlib.metadata.requires(name) or [])
            following += [n.name for n in needs if not n.marker or n.marker.evaluate({"extra": ""})]
    assert set(found[1].split("|")) == wanted


def test_no_gpl_decoder_is_depended_on(project: dict[str, Any]) -> None:
    locked = pins("requirements.lock") | pins("requirements-dev.lock")
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    asked = [Requirement(r).name for r in [*project["dependencies"], *extras]]
    assert "pylibjpeg-libjpeg" not in {canonicalize_name(n) for n in [*locked, *asked]}
    assert not any(Requirement(r).extras for r in project["dependencies"]), "could bring it in"


def test_metadata_names_what_is_there(project: dict[str, Any]) -> None:
    assert project["name"] == "orthanc-bridge"
    assert project["scripts"] == {"orthanc-bridge": "bridge.__main__:main"}
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "MIT"
    assert (ROOT / project["readme"]).is_file()
    for file in project["license-files"]:
        assert (ROOT / file).read_text("utf-8").startswith("MIT License")


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    shell = path.read_text("utf-8").splitlines()[0].rpartition("/")[2].removeprefix("env ")
    assert shell in ("bash", "sh")
    subprocess.run([shell, "-n", str(path)], check=True)


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
        capture_output=True,
        text=True,
    )


def test_make_lists_its_targets_and_does_nothing() -> None:
    listed = make()
    assert listed.returncode == 0
    targets = [line.split()[0] for line in listed.stdout.splitlines()]
    assert {"demo", "test", "test-fast", "lint", "docs", "wheel", "lock", "clean"} <= set(targets)
    for target in targets:
        assert make("--dry-run", target).returncode == 0, target


def test_ci_runs_what_a_developer_runs() -> None:
    text = (ROOT / ".ci" / "run").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[-1] == "exec make --no-print-directory lint test </dev/null"
    assert lines[:3] == [
        "set -euo pipefail",
        "unset PYTHONDONTWRITEBYTECODE",
        'cd "$(dirname "${BASH_SOURCE[0]}")/.."',
    ]
    before = " ".join(lines[3:-1])
    assert "-m scripts.version_matrix --debians trixie" in before
    assert 'echo "Another version of Orthanc: NOT RUN' in before
    assert '*) exit "$ended"' in before, "a failure is one"


def test_the_last_thing_that_make_test_prints_is_pytests() -> None:
    commands = make("--dry-run", "test").stdout.strip().splitlines()
    command, *options = commands[-1].split()
    assert command == ".venv/bin/pytest"
    assert options[-1] == "--ignore=tests/benchmarks"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Only what the set-up reads."""
    locks = [f"requirements{name}" for name in (".lock", ".hashes", "-dev.lock", "-dev.hashes")]
    for name in ("scripts/setup.sh", *locks):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def fake(directory: Path, name: str, script: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return path


def setup(clone: Path, *steps: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(clone / "scripts" / "setup.sh"), *steps],
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_setup_says_which_python_it_found_and_what_to_do(clone: Path, tmp_path: Path) -> None:
    old = fake(tmp_path, "python3.9", '[ "$1" = --version ] && echo Python 3.9.2 || exit 1')
    refused = setup(clone, "venv", PYTHON=str(old))
    assert refused.returncode == 2
    assert "Python 3.9.2; 3.11 or newer is needed" in refused.stderr
    assert "make PYTHON=" in refused.stderr
    missing = setup(clone, "venv", PYTHON="no-such-python")
    assert missing.returncode == 2
    assert "there is no 'no-such-python'" in missing.stderr
    assert not (clone / ".venv").exists()


def test_setup_without_root_says_what_an_administrator_has_to_run(clone: Path) -> None:
    text = (clone / "scripts" / "setup.sh").read_text("utf-8")
    # The script looks in /usr/sbin too; here it must find nothing there.
    assert text.count("PATH=$PATH:/usr/sbin:/sbin\n") == 1
    (clone / "scripts" / "setup.sh").write_text(text.replace("PATH=$PATH:/usr/sbin:/sbin\n", ""))
    tools = clone / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "rm", "env"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    fake(tools, "id", "echo 1000")
    fake(tools, "sudo", "exit 1")
    fake(tools, "apt-get", 'echo "apt-get was called" >&2; exit 1')
    refused = setup(clone, "orthanc", PATH=str(tools))
    assert refused.returncode == 2
    assert "Run as root: apt-get install orthanc" in refused.stderr
    optional = setup(clone, "test-tools", PATH=str(tools))
    assert optional.returncode == 0
    assert "apt-get install dcmtk dicom3tools" in optional.stderr
    assert "apt-get was called" not in refused.stderr + optional.stderr
    (tools / "apt-get").unlink()
    other_system = setup(clone, "orthanc", PATH=str(tools))
    assert other_system.returncode == 2
    assert "no apt-get here. Install Orthanc" in other_system.stderr


def test_setup_refuses_a_step_that_it_does_not_know(clone: Path) -> None:
    assert setup(clone, "everything").returncode == 2
    assert setup(clone).returncode == 2
