"""Runs of pytest whose counts go into docs/compatibility.md."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN_MAX_S = 900


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of pytest."""

    passed: int
    failed: tuple[str, ...]
    skipped: int
    duration_s: float
    trouble: str = ""

    @property
    def well(self) -> bool:
        """Whether something ran and nothing failed."""
        return bool(self.passed) and not self.failed and not self.trouble

    @property
    def cells(self) -> tuple[str, ...]:
        """Return its part of a row."""
        if self.trouble:
            return (self.trouble, "", "", f"{self.duration_s:.0f} s")
        counts = (self.passed, len(self.failed), self.skipped)
        return (*map(str, counts), f"{self.duration_s:.0f} s")


def read_report(path: Path, duration_s: float) -> Outcome:
    """Count the tests in pytest's JUnit file."""
    passed, skipped, failed = 0, 0, []
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 - written by our own pytest
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed.append(f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}")
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return Outcome(passed, tuple(failed), skipped, duration_s)


def run_pytest(
    tests: Sequence[str], *, python: Path, environment: Mapping[str, str], jobs: str
) -> Outcome:
    """Run tests in their own process and count them; what they print goes to stderr."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [str(python), "-m", "pytest", "-q", "-n", jobs, "--dist", "worksteal"]
        try:
            done = subprocess.run(  # noqa: S603 - our own tests
                [*command, f"--junitxml={report}", *tests],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                timeout=RUN_MAX_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            took_s = time.monotonic() - started_s
            return Outcome(0, (), 0, took_s, f"not finished after {RUN_MAX_S} s")
        duration_s = time.monotonic() - started_s
        if done.returncode not in (0, 1) or not report.exists():
            return Outcome(0, (), 0, duration_s, f"pytest ended with {done.returncode}")
        return read_report(report, duration_s)


def failures_text(named: Iterable[tuple[str, Outcome]]) -> str:
    """Name what failed; nothing when nothing did."""
    lines = [f"- {name}: `{test}`" for name, outcome in named for test in outcome.failed]
    return "\n".join(["", "Failed:", "", *lines]) if lines else ""
