"""The tests of real servers with other versions of Orthanc, and mixed pairs: `make test-matrix`.

Every version passes tests/contract; every mixed pair moves, is killed, replays, checks and holds
against faults. Versions come from this machine and from other Debians (scripts/orthanc_root.sh).
Counts go into docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from bridge.demo.orthanc_server import OrthancServer, find_orthanc
from bridge.errors import BridgeError
from scripts.compatibility_page import table, when_and_where, write_section
from scripts.pytest_runs import Outcome, failures_text, run_pytest

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = "installed"
DEBIANS = ("trixie", "sid")
END_TO_END = (
    "tests/integration/test_service.py",
    "tests/integration/pipeline/test_kill.py",
    "tests/integration/pipeline/test_replay.py",
    "tests/integration/checks/test_check.py",
    "tests/integration/checks/test_ways_of_asking.py",
    "tests/integration/feed/test_snapshot.py",
    "tests/integration/pipeline/test_faults_identity.py",
    "tests/integration/feed/test_feed_faults_history.py",
    "tests/integration/retention/test_retention_real.py",
    "tests/integration/mirror",
)


class NoVersion(Exception):
    """A version cannot be had on this machine."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One Orthanc, where it came from and what it says of itself."""

    label: str
    executable: Path
    version: str
    database_version: str
    capabilities: Mapping[str, object]


def say(text: str) -> None:
    """Tell the operator."""
    sys.stderr.write(f"[matrix] {text}\n")


def executable_of(label: str) -> Path:
    """Find or make a version. Raises NoVersion with the reason."""
    if label == INSTALLED:
        try:
            return find_orthanc()
        except BridgeError as exc:
            raise NoVersion(str(exc)) from exc
    made = subprocess.run(  # noqa: S603 - our own script
        [ROOT / "scripts" / "orthanc_root.sh", label], capture_output=True, text=True, check=False
    )
    if made.returncode:
        reason = made.stderr.strip().splitlines()[-1:] or ["orthanc_root.sh said nothing"]
        raise NoVersion(reason[0])
    return Path(made.stdout.strip())


def look_at(label: str) -> Installation:
    """Start a version once and ask it what it is. Raises NoVersion."""
    executable = executable_of(label)
    with tempfile.TemporaryDirectory() as directory:
        try:
            with OrthancServer(label, Path(directory), executable=executable) as server:
                system = httpx.get(f"{server.url}/system", trust_env=False, timeout=10).json()
        except (BridgeError, httpx.HTTPError) as exc:
            raise NoVersion(str(exc)) from exc
    return Installation(
        label,
        executable,
        str(system["Version"]),
        str(system.get("DatabaseVersion", "")),
        system.get("Capabilities", {}),
    )


def run_tests(
    paths: Sequence[str], *, source: Installation, target: Installation, jobs: str
) -> Outcome:
    """Run tests with these two servers; the one of the target serves tests of a single server."""
    environment = os.environ | {
        "ORTHANC_EXECUTABLE": str(target.executable),
        "ORTHANC_EXECUTABLE_SOURCE": str(source.executable),
        "ORTHANC_EXECUTABLE_TARGET": str(target.executable),
        "CI": "true",  # a test of a real server that cannot run is a failure here
    }
    return run_pytest(paths, python=Path(sys.executable), environment=environment, jobs=jobs)


def versions_table(versions: Iterable[Installation]) -> str:
    """Return the versions and what they say they can do."""
    rows = []
    for one in versions:
        able = ", ".join(f"`{k}`" for k, v in sorted(one.capabilities.items()) if v is True)
        rows.append((one.version, one.label, one.database_version, able or "reports none"))
    return table(
        ("Orthanc", "from Debian", "database", "capabilities that `/system` reports"), rows
    )


def page_section(
    versions: Sequence[Installation],
    contract: Mapping[str, Outcome],
    pairs: Mapping[tuple[str, str], Outcome],
) -> str:
    """Return the section of the page."""
    version_of = {one.label: one.version for one in versions}
    counts = ("passed", "failed", "skipped", "took")
    contract_rows = [(version_of[label], *o.cells) for label, o in contract.items()]
    pair_rows = [(version_of[s], version_of[t], *o.cells) for (s, t), o in pairs.items()]
    wanted = len(versions) * (len(versions) - 1)
    left_out = f" {wanted - len(pairs)} of {wanted} mixed pairs were left out of this run."
    named = [(f"contract {version_of[k]}", o) for k, o in contract.items()]
    named += [(f"{version_of[s]} to {version_of[t]}", o) for (s, t), o in pairs.items()]
    files = ", ".join(f"`{Path(path).stem}`" for path in END_TO_END)
    parts = [
        f"Measured {when_and_where()}.",
        versions_table(versions),
        "What a server answers (`tests/contract`):",
        table(("Orthanc", *counts), contract_rows),
        f"End to end, mixed pairs ({files}).{left_out if wanted > len(pairs) else ''}",
        table(("source", "target", *counts), pair_rows),
        failures_text(named),
    ]
    return "\n\n".join(part for part in parts if part)


def wanted_pairs(text: str, labels: Sequence[str]) -> list[tuple[str, str]]:
    """Read ``source:target,...``; every mixed pair when nothing is said."""
    if not text:
        return list(itertools.permutations(labels, 2))
    pairs = []
    for pair in text.split(","):
        source, _, target = pair.partition(":")
        if source not in labels or target not in labels:
            raise SystemExit(f"--pairs: {pair!r} is not source:target out of {', '.join(labels)}")
        pairs.append((source, target))
    return pairs


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--pairs", default="", help="source:target,... instead of all mixed pairs")
    parser.add_argument(
        "--debians", default=",".join(DEBIANS), help="other Debians whose Orthanc is tried"
    )
    parser.add_argument("--jobs", default="auto", help="processes of pytest")
    parser.add_argument("--no-page", action="store_true", help="leave docs/compatibility.md alone")
    return parser.parse_args()


def main() -> int:
    """Run the matrix: 0 when all passed, 1 when something failed, 2 when it cannot run here."""
    chosen = arguments()
    labels = (INSTALLED, *chosen.debians.split(","))
    pairs = wanted_pairs(chosen.pairs, labels)
    if shutil.which("apt-get") is None:
        say("NOT RUN: there is no apt-get, and other versions of Orthanc come from Debian.")
        return 2
    versions = {}
    for label in labels:
        try:
            versions[label] = look_at(label)
        except NoVersion as exc:
            say(f"NOT RUN: the Orthanc of '{label}' cannot be had here: {exc}")
            return 2
        say(f"{label}: Orthanc {versions[label].version}")
    outcomes = run_all(versions, pairs, chosen)
    return 0 if all(outcome.well for outcome in outcomes) else 1


def run_all(
    versions: Mapping[str, Installation],
    pairs: Sequence[tuple[str, str]],
    chosen: argparse.Namespace,
) -> list[Outcome]:
    """Run everything; the page is written after each run, so that a cut loses only the rest."""
    contract: dict[str, Outcome] = {}
    ends: dict[tuple[str, str], Outcome] = {}
    section = ""

    def note() -> None:
        nonlocal section
        section = page_section(list(versions.values()), contract, ends)
        if not chosen.no_page:
            write_section("versions", section)

    for label, one in versions.items():
        say(f"contract: {one.version}")
        contract[label] = run_tests(["tests/contract"], source=one, target=one, jobs=chosen.jobs)
        note()
    for source, target in pairs:
        say(f"end to end: {versions[source].version} to {versions[target].version}")
        ends[source, target] = run_tests(
            END_TO_END, source=versions[source], target=versions[target], jobs=chosen.jobs
        )
        note()
    sys.stdout.write(f"{section}\n")
    return [*contract.values(), *ends.values()]


if __name__ == "__main__":
    sys.exit(main())
