"""What a container test needs of this machine: root, namespaces, and its own configuration.

Packages come from where this machine's apt and pip take them; no address is written down here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

PROXIES = ("http_proxy", "https_proxy", "no_proxy")
DEVICES = ("null", "zero", "full", "random", "urandom")

# PID 1 of the new namespace is this shell, and then, by exec, whatever is run.
_ENTER = """
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o mode=755,size=64k tmpfs "$root/dev"
for device in {devices}; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/dev/shm"
{mounts}
exec chroot "$root" "$@"
"""


def missing() -> str:
    """Say what is not here to build and run an image, "" when nothing is."""
    if os.geteuid() != 0:
        return "only root can make a root file system and namespaces"
    tools = [tool for tool in ("unshare", "nsenter", "chroot") if shutil.which(tool) is None]
    if tools:
        return f"no {', '.join(tools)} on PATH"
    probe = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    tried = subprocess.run(probe, check=False, capture_output=True, text=True, timeout=30)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


def entering(root: Path, mounts: str = "") -> list[str]:
    """Begin a command that runs in ``root``, in namespaces of its own, and dies with us."""
    script = _ENTER.format(devices=" ".join(DEVICES), mounts=mounts)
    return [
        *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
        *("sh", "-c", script, "container", str(root)),
    ]


def mirror(suite: str) -> str:
    """Return where this machine's apt takes a Debian suite from, "" when it does not."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)", "Created-By: Packages"],
        check=False,
        capture_output=True,
        text=True,
    )
    found = [line.split() for line in listed.stdout.splitlines()]
    return next((words[1] for words in found if len(words) == 2 and words[0] == suite), "")


def pip_environment() -> dict[str, str]:
    """Return this machine's configuration of pip as variables, proxies included."""
    listed = subprocess.run(
        ["python3", "-m", "pip", "config", "list"], check=False, capture_output=True, text=True
    )
    found = {name: os.environ[name] for name in PROXIES if name in os.environ}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in ("global", "install", ":env:") and option != "config-file":
            found["PIP_" + option.upper().replace("-", "_")] = value.strip("'\"")
    return found


def paths_in(environment: Mapping[str, str]) -> set[Path]:
    """Return the files and directories of this machine that such variables name."""
    words = {word for value in environment.values() for word in value.split()}
    named = {Path(urlsplit(word).path) for word in words if word.startswith("file:///")}
    named |= {Path(word) for word in words if word.startswith("/")}
    # An index on this machine's disk links to files that lie beside it.
    beside = {path.parent for path in named if path.name == "simple"}
    return {path for path in named | beside if path.exists() and path != Path("/")}


@contextmanager
def lent(root: Path, paths: set[Path]) -> Iterator[str]:
    """Make places for these paths in ``root``; give the commands that mount them, read-only.

    What had to be made for it is gone afterwards: it is not part of the image.
    """
    made: list[Path] = []
    commands = []
    for path in sorted(paths):
        place = root / path.relative_to("/")
        for parent in reversed(place.relative_to(root).parents[:-1]):
            _make(root / parent, made, directory=True)
        _make(place, made, directory=path.is_dir())
        commands.append(f'mount --bind "{path}" "$root{path}"')
        commands.append(f'mount -o remount,bind,ro "$root{path}"')
    try:
        yield "\n".join(commands)
    finally:
        for place in reversed(made):
            if place.is_dir():
                place.rmdir()
            else:
                place.unlink()


def _make(place: Path, made: list[Path], *, directory: bool) -> None:
    if place.exists():
        return
    if directory:
        place.mkdir()
    else:
        place.touch()
    made.append(place)
