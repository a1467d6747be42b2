"""Builds the image of compose/Dockerfile without an engine: its steps, in order, for real.

The base image is made by debootstrap and kept: Debian of the release that the tag names, its
Python, and in /usr/local what the official image has there (``python``, ``pip``, ``setuptools``).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.container.machine import PROXIES, entering, lent, mirror, paths_in, pip_environment
from tests.dockerfile import DOCKERFILE, ROOT, Stage, Told, instructions, stages

STEP_S = 300.0
RESOLVER = Path("/etc/resolv.conf")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# ensurepip is only lent to the base image: the official one has pip from elsewhere.
_DRESS = """
python3 -m venv /usr/local
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -y purge python3-venv python3.11-venv python3-pip-whl python3-setuptools-whl
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/*.log /var/log/apt
rm -f /etc/resolv.conf /etc/hostname
"""


class BuildFailed(Exception):
    """A step did not end with 0; the text has what it said."""


@dataclass
class Image:
    """A root file system and what is said about running it. ``log``: each step as executed."""

    root: Path
    told: Told = field(default_factory=Told)
    log: list[str] = field(default_factory=list)


def base_image(tag: str) -> Path:
    """Return the kept root that stands for ``python:3.11-slim-bookworm``.

    The first time it is made, which takes a minute or two. Raises BuildFailed.
    """
    found = re.fullmatch(r"python:(3\.\d+)-slim-(\w+)", tag)
    if found is None:
        raise BuildFailed(f"{tag} is not an official slim image of Python")
    recipe = hashlib.sha256(f"{tag}{_DRESS}".encode()).hexdigest()[:12]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orthanc-bridge"
    base = home / f"{found[2]}-{recipe}"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run on this machine may be at it
        if not base.is_dir():
            _make_base(base, suite=found[2], python=found[1])
    return base


def _make_base(base: Path, *, suite: str, python: str) -> None:
    where = mirror(suite)
    if not where:
        raise BuildFailed(f"this machine's apt has no Debian {suite}")
    unfinished = base.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    packages = "--include=python3,python3-venv,ca-certificates"
    _run(["debootstrap", "--variant=minbase", packages, suite, str(unfinished), where], {})
    _run([*entering(unfinished), "sh", "-euxc", _DRESS], {"PATH": PATH})
    version = _run([*entering(unfinished), "python", "--version"], {"PATH": PATH})
    if not version.startswith(f"Python {python}."):
        raise BuildFailed(f"Debian {suite} has {version.strip()}, the tag says {python}")
    unfinished.rename(base)


@contextmanager
def built(base: Path, directory: Path) -> Iterator[Image]:
    """Execute the Dockerfile in ``directory``; the root is removed at the end."""
    roots: dict[str, Path] = {}
    image = Image(base)
    try:
        for number, stage in enumerate(stages(instructions(DOCKERFILE.read_text("utf-8")))):
            image = Image(directory / f"stage-{number}", log=image.log)
            roots[stage.name] = image.root
            _begin_with(base, image.root)
            _build(stage, image, roots)
        yield image
    finally:
        for root in roots.values():
            shutil.rmtree(root)


def _begin_with(base: Path, root: Path) -> None:
    """Copy the base image. Nothing changes a file of /usr in place, so that part is linked."""
    root.mkdir()
    for path in base.iterdir():
        link = ["--link"] if path.name == "usr" and _same_disk(base, root) else []
        subprocess.run(["cp", "-a", *link, str(path), str(root)], check=True)


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _build(stage: Stage, image: Image, roots: dict[str, Path]) -> None:
    image.told.environment["PATH"] = PATH
    image.log.append(f"FROM {stage.image}")
    arguments: dict[str, str] = {}
    for name, rest in stage.steps:
        image.log.append(f"{name} {rest}")
        if image.told.take(name, rest):
            continue
        if name == "WORKDIR":
            image.told.workdir = rest
            _in(image.root, rest).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            _copy(rest, image, roots)
        elif name == "ARG":
            # As built without --build-arg: its default, for the steps of this stage only.
            argument, _, default = rest.partition("=")
            arguments[argument] = default
        elif name == "RUN":
            _run_step(rest, image, arguments)
        else:
            raise BuildFailed(f"this builder does not know {name}")


def _run_step(command: str, image: Image, arguments: Mapping[str, str]) -> None:
    if image.told.user != "0:0":
        raise BuildFailed("RUN after USER: this builder runs steps as root only")
    settings = pip_environment()
    with lent(image.root, paths_in(settings) | {RESOLVER}) as mounts:
        _run(
            [*entering(image.root, mounts), *_within(image.told.workdir, command)],
            settings | dict(arguments) | image.told.environment | {"HOME": "/root"},
        )


def _within(workdir: str, command: str) -> list[str]:
    return ["env", "-C", workdir, "/bin/sh", "-c", command]


def _copy(rest: str, image: Image, roots: dict[str, Path]) -> None:
    *sources, target = rest.split()
    context = ROOT
    if sources[0].startswith("--from="):
        context = roots[sources.pop(0).removeprefix("--from=")]
    place = _in(image.root, os.path.join(image.told.workdir, target))  # noqa: PTH118 (absolute wins)
    if target.endswith("/"):
        place.mkdir(parents=True, exist_ok=True)
    for source in sources:
        found = _in(context, source)
        if found.is_dir():
            # The contents of a directory are copied, as the engine does. From the repository
            # without caches; from an earlier stage, which is not used any more, by links.
            if context == ROOT:
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True, ignore=ignored)
            else:
                subprocess.run(["cp", "-a", "--link", "-T", str(found), str(place)], check=True)
        else:
            shutil.copy(found, place)


def _in(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _run(command: list[str], environment: dict[str, str]) -> str:
    proxies = {name: os.environ[name] for name in PROXIES if name in os.environ}
    done = subprocess.run(
        command,
        env={"PATH": PATH, "LANG": "C.UTF-8"} | proxies | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=STEP_S,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-3000:]
        raise BuildFailed(f"{command[-1]}\nended with {done.returncode}:\n{said}")
    return done.stdout
