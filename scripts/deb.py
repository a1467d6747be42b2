"""Build the Debian package: dist/orthanc-bridge_VERSION+deb12_amd64.deb.

    make deb                 for Debian 12 and 13
    make deb DEBIANS=12      for one of them

The package brings the Python libraries of requirements.lock, checked by their hashes, in an
environment of its own in /usr/lib/orthanc-bridge; the interpreter is Debian's. Wheels are
downloaded by pip for that interpreter, so that a package for Debian 13 can be built on Debian 12.
The same source gives the same bytes: times are SOURCE_DATE_EPOCH, or that of the last commit.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import bridge

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "packaging" / "debian"
HOME = Path("usr/lib/orthanc-bridge")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Debian:
    """A release: its number, its name, its Python and its glibc, each as (3, 11)."""

    number: int
    suite: str
    python: tuple[int, int]
    glibc: tuple[int, int]


DEBIANS = (Debian(12, "bookworm", (3, 11), (2, 36)), Debian(13, "trixie", (3, 13), (2, 41)))
GLIBC_OLDEST = 17
"""manylinux2014 is glibc 2.17: nothing that we need is built for an older one."""

ENV_HEAD = """\
# The settings of the orthanc-bridge service.
#
# Set BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL, and the user names if the servers ask for a login.
# Passwords belong into /etc/orthanc-bridge/source-password and /etc/orthanc-bridge/target-password.
# Then: orthanc-bridge doctor; systemctl enable --now orthanc-bridge. After a change:
# systemctl restart orthanc-bridge. All settings: orthanc-bridge docs configuration.
"""


def platforms(machine: str, glibc: tuple[int, int]) -> list[str]:
    """Return the platform tags of wheels that run there, as options of pip."""
    minors = range(glibc[1], GLIBC_OLDEST - 1, -1)
    tags = [f"manylinux_{glibc[0]}_{minor}_{machine}" for minor in minors]
    return [option for tag in (*tags, f"manylinux2014_{machine}") for option in ("--platform", tag)]


def settings(example: str) -> str:
    """Return bridge.env: .env.example without addresses, and with the service's state file."""
    body = example.partition("\n\n")[2]
    body = re.sub(r"^(BRIDGE_(?:SOURCE|TARGET)_URL=)", r"#\1", body, flags=re.MULTILINE)
    state = "BRIDGE_STATE_PATH=/var/lib/orthanc-bridge/bridge.sqlite3"
    body, count = re.subn(r"^#BRIDGE_STATE_PATH=.*$", state, body, flags=re.MULTILINE)
    if count != 1:
        raise SystemExit(".env.example has no BRIDGE_STATE_PATH")
    return f"{ENV_HEAD}\n{body}"


def unit(container_unit: str) -> str:
    """Return the unit of the package: that of compose/, with the package's program and user."""
    replaced = {
        "ExecStart=/opt/orthanc-bridge/bin/orthanc-bridge run": (
            "ExecStart=/usr/lib/orthanc-bridge/start run"
        ),
        "EnvironmentFile=/etc/orthanc-bridge/bridge.env\n": "",
        "Environment=BRIDGE_SOURCE_PASSWORD_FILE=%d/source-password\n": "",
        "Environment=BRIDGE_TARGET_PASSWORD_FILE=%d/target-password\n": "",
        "Environment=BRIDGE_STATE_PATH=%S/orthanc-bridge/bridge.sqlite3\n": "",
        "DynamicUser=yes": "User=orthanc-bridge\nGroup=orthanc-bridge",
        "# /etc/systemd/system/orthanc-bridge.service; see docs/install.md.\n": "",
    }
    for old, new in replaced.items():
        if container_unit.count(old) != 1:
            raise SystemExit(f"compose/orthanc-bridge.service has lost: {old}")
        container_unit = container_unit.replace(old, new)
    return container_unit


def install(site: Path, debian: Debian, machine: str) -> None:
    """Put the locked libraries and this package into ``site``, for that Debian's Python."""
    python = ".".join(map(str, debian.python))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    into = [*pip, "--target", str(site), "--no-compile", "--upgrade", "--no-deps"]
    foreign = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    tags = ["--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    locked = ["--require-hashes", "--requirement", "requirements.hashes"]
    subprocess.run(  # noqa: S603 (this interpreter's pip)
        [*into, *foreign, *tags, *platforms(machine, debian.glibc), *locked], check=True, cwd=ROOT
    )
    with tempfile.TemporaryDirectory(prefix="orthanc-bridge-wheel-") as wheels:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels]
        subprocess.run(build, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: S603
        (wheel,) = Path(wheels).glob("*.whl")
        subprocess.run([*into, str(wheel)], check=True, cwd=ROOT)  # noqa: S603
    for left in ("bin", "share"):
        shutil.rmtree(site / left, ignore_errors=True)
    # What pip writes down of where a file came from is of this machine.
    for record in site.glob("*.dist-info/direct_url.json"):
        record.unlink()
    for record in site.glob("*.dist-info/RECORD"):
        lines = record.read_text("utf-8").splitlines()
        kept = [line for line in lines if "direct_url.json" not in line and ".." not in line]
        record.write_text("\n".join(sorted(kept)) + "\n", "utf-8")


def tree(root: Path, debian: Debian, machine: str, version: str) -> None:
    """Make the files of the package below ``root``."""
    home = root / HOME
    site = home / "lib" / f"python{debian.python[0]}.{debian.python[1]}" / "site-packages"
    site.mkdir(parents=True)
    install(site, debian, machine)
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(f"/usr/bin/python{debian.python[0]}.{debian.python[1]}")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    program = home / "bin" / "orthanc-bridge"
    program.write_text(
        # Worker processes import this file: only the first process may run the program.
        f"#!/{HOME}/bin/python3 -P\nimport sys\n\nfrom bridge.__main__ import main\n\n"
        'if __name__ == "__main__":\n    sys.exit(main())\n'
    )
    program.chmod(0o755)
    for name, place in (("start", home / "start"), ("orthanc-bridge", root / "usr/bin")):
        place.parent.mkdir(parents=True, exist_ok=True)
        if name == "orthanc-bridge":
            place.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCES / name, place)
    texts = {
        "etc/orthanc-bridge/bridge.env": settings((ROOT / ".env.example").read_text("utf-8")),
        "usr/lib/systemd/system/orthanc-bridge.service": unit(
            (ROOT / "compose" / "orthanc-bridge.service").read_text("utf-8")
        ),
        "usr/share/doc/orthanc-bridge/copyright": (ROOT / "LICENSE").read_text("utf-8")
        + "\n"
        + (ROOT / "docs" / "reference" / "licences.md").read_text("utf-8"),
        "usr/share/bash-completion/completions/orthanc-bridge": (
            ROOT / "packaging" / "completions" / "orthanc-bridge.bash"
        ).read_text("utf-8"),
    }
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    manual = root / "usr/share/man/man1/orthanc-bridge.1.gz"
    manual.parent.mkdir(parents=True)
    manual.write_bytes(gzip.compress((ROOT / "packaging/orthanc-bridge.1").read_bytes(), mtime=0))
    _control(root, debian, version)


def _control(root: Path, debian: Debian, version: str) -> None:
    major, minor = debian.python
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    values = {
        "VERSION": version,
        "ARCHITECTURE": architecture(),
        "KILOBYTES": str(sum(path.stat().st_size for path in files) // 1024),
        "PYTHON": f"{major}.{minor}",
        "PYTHON_AFTER": f"{major}.{minor + 1}",
    }
    control = root / "DEBIAN"
    control.mkdir()
    text = (SOURCES / "control.in").read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (control / "control").write_text(text, "utf-8")
    (control / "conffiles").write_text("/etc/orthanc-bridge/bridge.env\n")
    for name in ("postinst", "prerm", "postrm"):
        shutil.copy(SOURCES / name, control / name)


def architecture() -> str:
    """Return Debian's name of this machine's processor."""
    asked = ["dpkg", "--print-architecture"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def epoch() -> str:
    """Return the time of the files, in epoch seconds."""
    asked = ["git", "log", "-1", "--format=%ct"]
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return (
        given
        or subprocess.run(  # noqa: S603
            asked, check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout.strip()
    )


def build(debian: Debian, into: Path) -> Path:
    """Build the package for one Debian; returns its path."""
    version = f"{bridge.__version__}+deb{debian.number}"
    name = f"orthanc-bridge_{version}_{architecture()}.deb"
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="orthanc-bridge-deb-") as directory:
        root = Path(directory, "root")
        root.mkdir(mode=0o755)
        tree(root, debian, MACHINES[architecture()], version)
        for path in [root, *root.rglob("*")]:
            if path.is_symlink():
                continue
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)
        environment = os.environ | {"SOURCE_DATE_EPOCH": epoch()}
        packed = [
            "dpkg-deb",
            "--root-owner-group",
            "-Zzstd",
            "--threads-max=1",
            "--build",
            str(root),
            str(into / name),
        ]
        subprocess.run(  # noqa: S603
            packed, check=True, stdout=subprocess.DEVNULL, env=environment
        )
    return into / name


def main() -> int:
    """Build for the Debians that are named, or for all."""
    parser = argparse.ArgumentParser(prog="make deb", description=__doc__.partition("\n")[0])
    parser.add_argument("debians", nargs="*", type=int, help="12, 13; without one: both")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where to put it")
    asked = parser.parse_args()
    known = {debian.number: debian for debian in DEBIANS}
    for number in asked.debians or known:
        if number not in known:
            parser.error(f"there is no Debian {number} here: {', '.join(map(str, known))}")
        sys.stdout.write(f"{build(known[number], asked.out)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
