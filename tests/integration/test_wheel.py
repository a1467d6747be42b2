"""The wheel: it builds, holds the package and nothing else, and works where it is installed."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import bridge

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "README.md", "CHANGELOG.md": "CHANGELOG.md", ".env.example": "env.example"}
"""What ``orthanc-bridge docs`` and ``init`` read, beside the folder docs."""
BUILT_FROM = ("bridge", "docs", "packaging", "pyproject.toml", "LICENSE", *PAGES)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, so that nothing is written into the repository."""
    copy = tmp_path_factory.mktemp("copy")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"],
        cwd=copy,
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = (copy / "dist").iterdir()
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {name for name in names if name.startswith("bridge/")}
    here = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "bridge").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    pages = {
        f"bridge/{path.relative_to(ROOT)}" for path in (ROOT / "docs").rglob("*") if path.is_file()
    }
    assert inside == here | pages | {f"bridge/docs/{name}" for name in PAGES.values()}
    assert "bridge/ledger/store.sql" in inside
    information = f"orthanc_bridge-{bridge.__version__}.dist-info/"
    data = f"orthanc_bridge-{bridge.__version__}.data/data/share/"
    assert {name for name in names - inside if not name.startswith(information)} == {
        f"{data}man/man1/orthanc-bridge.1",
        f"{data}bash-completion/completions/orthanc-bridge",
        f"{data}zsh/site-functions/_orthanc-bridge",
        f"{data}fish/vendor_completions.d/orthanc-bridge.fish",
    }
    assert f"{information}licenses/LICENSE" in names
    assert f"{information}sboms/sbom.cdx.json" in names


def test_the_same_source_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    """Built again elsewhere, from files with other dates: wheel and sdist, twice."""
    built: list[dict[str, bytes]] = []
    for name in ("one", "another"):
        copy = tmp_path / name
        shutil.copytree(wheel.parents[1], copy, ignore=shutil.ignore_patterns("dist"))
        for path in copy.rglob("*"):
            os.utime(path, (1_700_000_000 + len(built), 1_700_000_000 + len(built)))
        done = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist"],
            cwd=copy,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        built.append({file.name: file.read_bytes() for file in (copy / "dist").iterdir()})
    assert set(built[0]) == {wheel.name, wheel.name.replace("-py3-none-any.whl", ".tar.gz")}
    assert built[0] == built[1]
    assert built[0][wheel.name] == wheel.read_bytes(), "the wheel of the sdist is the other one"


def test_the_metadata_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = f"orthanc_bridge-{bridge.__version__}.dist-info/METADATA"
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Name"] == "orthanc-bridge"
    assert metadata["Version"] == bridge.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert any(value.startswith("pydicom") for value in metadata.get_all("Requires-Dist", []))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install into an environment that sees our dependencies, but not this repository.

    A directory named by a .pth file is searched, while .pth files in it (an editable install of
    this repository is one) are not read.
    """
    home = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (home / "lib" / version / "site-packages" / "dependencies.pth").write_text(
        sysconfig.get_path("purelib") + "\n", "utf-8"
    )
    pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-index", "--no-deps", "--force-reinstall"]
    done = subprocess.run([*install, str(wheel)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home


def run(home: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(home / "bin" / command[0]), *command[1:]],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_installed_package_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    where = run(installed, "python", "-c", "import bridge; print(bridge.__file__)", cwd=tmp_path)
    assert where.returncode == 0, where.stderr
    assert Path(where.stdout.strip()).is_relative_to(installed)


def test_the_commands_start(installed: Path, tmp_path: Path) -> None:
    script = run(installed, "orthanc-bridge", "--help", cwd=tmp_path)
    assert script.returncode == 0, script.stderr
    assert "replay" in script.stdout
    module = run(installed, "python", "-m", "bridge", "--help", cwd=tmp_path)
    assert module.returncode == 0, module.stderr
    assert "replay" in module.stdout
    assert list(tmp_path.iterdir()) == [], "help leaves something behind"


def test_the_pages_come_with_the_package(installed: Path, tmp_path: Path) -> None:
    listed = run(installed, "orthanc-bridge", "docs", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert {"readme", "operations", "licences", "changelog"} <= set(listed.stdout.split())
    page = run(installed, "orthanc-bridge", "docs", "install", cwd=tmp_path)
    assert page.stdout == (ROOT / "docs" / "install.md").read_text("utf-8")
    template = "from bridge.commands.docs import env_template; print(env_template(), end='')"
    told = run(installed, "python", "-c", template, cwd=tmp_path)
    assert told.stdout == (ROOT / ".env.example").read_text("utf-8")
    assert (installed / "share" / "man" / "man1" / "orthanc-bridge.1").is_file()


def test_without_settings_it_says_which_and_ends_with_2(installed: Path, tmp_path: Path) -> None:
    refused = run(installed, "orthanc-bridge", "run", cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "BRIDGE_SOURCE_URL" in refused.stderr
    assert "Traceback" not in refused.stderr
