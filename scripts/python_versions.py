"""The tests without servers, and one from end to end, with other Pythons: `make test-pythons`.

Each interpreter gets its own environment, build/pythons/VERSION, from the lock files. Counts go
into docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.compatibility_page import table, when_and_where, write_section
from scripts.pytest_runs import Outcome, failures_text, run_pytest

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / "build" / "pythons"
LOCKS = ("requirements.lock", "requirements-dev.lock", "pyproject.toml")
SUPPORTED = ("python3.11", "python3.12", "python3.13")
TESTS = (
    "tests/unit",
    "tests/integration/test_service.py::test_once_moves_everything_and_ends",
)
QUICK_MAX_S = 60
INSTALL_MAX_S = 900


class NotUsable(Exception):
    """An interpreter that cannot be tried."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python: what it is called and its exact version."""

    command: str
    version: str


def say(text: str) -> None:
    """Tell the operator."""
    sys.stderr.write(f"[pythons] {text}\n")


def call(command: Sequence[str], *, deadline_s: float) -> str:
    """Run a command and return what it printed. Raises NotUsable."""
    try:
        done = subprocess.run(  # noqa: S603 - interpreters that the caller named, and pip
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=deadline_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotUsable(str(exc)) from exc
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise NotUsable(f"{command[0]} ended with {done.returncode} and said: {said[0]}")
    return done.stdout.strip()


def interpreter(command: str) -> Interpreter:
    """Ask an interpreter what it is. Raises NotUsable, also for a pyenv name that is not active."""
    code = "import ensurepip, platform, venv; print(platform.python_version())"
    return Interpreter(command, call([command, "-c", code], deadline_s=QUICK_MAX_S))


def environment_for(found: Interpreter) -> Path:
    """Make its environment, or keep the one that these lock files made. Raises NotUsable."""
    directory = ENVIRONMENTS / found.version
    python = directory / "bin" / "python"
    stamp = directory / "locks.sha256"
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in LOCKS)).hexdigest()
    if stamp.exists() and stamp.read_text("ascii") == digest:
        return python
    say(f"making build/pythons/{found.version}")
    call([found.command, "-m", "venv", "--clear", str(directory)], deadline_s=INSTALL_MAX_S)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    lock = ["--requirement", str(ROOT / "requirements-dev.lock")]
    call([*pip, *lock], deadline_s=INSTALL_MAX_S)
    call([*pip, "--no-deps", "--editable", str(ROOT)], deadline_s=INSTALL_MAX_S)
    stamp.write_text(digest, "ascii")
    return python


def page_section(outcomes: Iterable[tuple[str, Outcome]]) -> str:
    """Return the section of the page."""
    named = [(version, outcome) for version, outcome in outcomes]
    rows = [(version, *outcome.cells) for version, outcome in named]
    parts = [
        f"Measured {when_and_where()}.",
        table(("Python", "passed", "failed", "skipped", "took"), rows),
        failures_text(named),
    ]
    return "\n\n".join(part for part in parts if part)


def main() -> int:
    """Try each: 0 when all passed, 1 when something failed, 2 when there was nothing to try."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("pythons", nargs="*", help="commands; without, 3.11 to 3.13 as found")
    parser.add_argument("--jobs", default="auto", help="processes of pytest")
    parser.add_argument("--no-page", action="store_true", help="leave docs/compatibility.md alone")
    chosen = parser.parse_args()
    outcomes = []
    unusable = 0
    for command in chosen.pythons or SUPPORTED:
        try:
            found = interpreter(command)
            python = environment_for(found)
        except NotUsable as exc:
            unusable += 1
            say(f"NOT TRIED: {command}: {exc}")
            continue
        say(f"Python {found.version}")
        outcome = run_pytest(TESTS, python=python, environment=os.environ, jobs=chosen.jobs)
        outcomes.append((found.version, outcome))
    if not outcomes or (chosen.pythons and unusable):
        return 2
    section = page_section(outcomes)
    if not chosen.no_page:
        write_section("pythons", section)
    sys.stdout.write(f"{section}\n")
    return 0 if all(outcome.well for _, outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
