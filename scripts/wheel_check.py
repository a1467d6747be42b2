"""Is everything that requirements.lock pins there as a wheel: `make check-wheels`.

pip answers, as it is configured on this machine, for each supported Python and each kind of
processor. Nothing is installed. The result goes into docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.compatibility_page import table, when_and_where, write_section

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
PYTHONS = ("3.11", "3.12", "3.13")
PROCESSORS = ("x86_64", "aarch64")
GLIBC_MINORS = range(17, 37)
"""The image and Debian 12 have glibc 2.36; manylinux begins at 2.17."""
ASK_MAX_S = 600

Wheels = Mapping[str, str]
"""File names of wheels by requirement; "" where there is none."""


class CannotAsk(Exception):
    """pip cannot answer at all: no network, no index."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A Python on a kind of processor."""

    python: str
    processor: str

    @property
    def options(self) -> list[str]:
        """Return pip's options for it."""
        old = [f"manylinux{name}_{self.processor}" for name in ("2014", "2010", "1")]
        new = [f"manylinux_2_{minor}_{self.processor}" for minor in reversed(GLIBC_MINORS)]
        platforms = [f"--platform={name}" for name in (*new, *old)]
        return [*platforms, f"--python-version={self.python}", "--implementation=cp"]


def pins() -> list[str]:
    """Return what is pinned."""
    lines = LOCK.read_text("utf-8").splitlines()
    return [line for line in lines if re.match(r"[A-Za-z]", line)]


def ask(platform: Platform, wanted: Sequence[str]) -> list[str] | None:
    """Return the wheels that pip would take, in its order; None when one is missing.

    Raises CannotAsk.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
        command += ["--only-binary=:all:", "--ignore-installed", f"--target={directory}/none"]
        command += [f"--report={report}", *platform.options, *wanted]
        try:
            done = subprocess.run(  # noqa: S603 - pip, with what our lock file names
                command,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=ASK_MAX_S,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise CannotAsk(f"pip did not answer within {ASK_MAX_S} s") from exc
        if done.returncode == 0:
            chosen = json.loads(report.read_text("utf-8"))["install"]
            return [one["download_info"]["url"].rpartition("/")[2] for one in chosen]
        if "No matching distribution" in done.stderr:
            return None
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise CannotAsk(f"pip ended with {done.returncode} and said: {said[0]}")


def project_of(name: str) -> str:
    """Return a requirement's or a wheel's project, as wheels spell it."""
    return re.sub(r"[-_.]+", "_", re.split(r"==|-\d", name)[0]).lower()


def wheels_for(platform: Platform, wanted: Sequence[str]) -> Wheels:
    """Ask for all at once, and one by one when one of them is missing. Raises CannotAsk."""
    files = ask(platform, wanted)
    if files is None:
        files = [file for one in wanted for file in ask(platform, [one]) or ()]
    by_project = {project_of(file): file for file in files}
    return {one: by_project.get(project_of(one), "") for one in wanted}


def kind_of(wheel: str) -> str:
    """Say what a wheel needs: its oldest platform tag, or that it is pure Python."""
    if not wheel:
        return "**none**"
    tag = wheel.removesuffix(".whl").rpartition("-")[2]
    minors = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", tag)]
    if minors:
        return f"glibc 2.{min(minors)}"
    if "manylinux2014" in tag:
        return "glibc 2.17"
    return "pure Python" if tag == "any" else tag


def page_section(found: Mapping[Platform, Wheels]) -> str:
    """Return the section of the page: what is compiled, by project and platform."""
    wanted = list(next(iter(found.values())))
    head = ["pinned", *(f"{p.python} {p.processor}" for p in found)]
    rows, pure = [], []
    for one in wanted:
        kinds = [kind_of(wheels[one]) for wheels in found.values()]
        if set(kinds) == {"pure Python"}:
            pure.append(one)
        else:
            rows.append([f"`{one}`", *kinds])
    missing = sum(not wheel for wheels in found.values() for wheel in wheels.values())
    verdict = f"{missing} wheels are missing." if missing else "Every wheel is there."
    return "\n\n".join(
        [
            f"Asked {when_and_where()}. {verdict} {len(pure)} of {len(wanted)} pinned projects are "
            "pure Python everywhere; the others, with the oldest glibc that their wheel runs on:",
            table(head, rows),
        ]
    )


def main() -> int:
    """Ask: 0 when all wheels are there, 1 when one is missing, 2 when pip cannot answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--no-page", action="store_true", help="leave docs/compatibility.md alone")
    chosen = parser.parse_args()
    wanted = pins()
    found: dict[Platform, Wheels] = {}
    for python in PYTHONS:
        for processor in PROCESSORS:
            platform = Platform(python, processor)
            try:
                found[platform] = wheels_for(platform, wanted)
            except CannotAsk as exc:
                sys.stderr.write(f"[wheels] NOT CHECKED: {exc}\n")
                return 2
    section = page_section(found)
    if not chosen.no_page:
        write_section("wheels", section)
    sys.stdout.write(f"{section}\n")
    return 0 if all(wheel for wheels in found.values() for wheel in wheels.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
