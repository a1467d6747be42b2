"""Measure studies in the ledger: ``python -m tests.benchmarks.studies``.

1,000,000 instances in 20,000 studies: how large the ledger is, and how long a page takes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bridge.ledger.records import EndedAs, Entry, StudyNote
from bridge.ledger.store import Ledger
from bridge.model import Study
from bridge.monitoring.studies import studies_page

STUDIES_TOGETHER = 20
TIMES = 9
SPREAD = 2654435761 * 2**128 + 97
"""Identifiers are digests: one after the other they are far apart."""


def identifier(number: int) -> str:
    """Make an Orthanc ID."""
    text = f"{number * SPREAD % 2**160:040x}"
    return "-".join(text[start : start + 8] for start in range(0, 40, 8))


def fill(path: Path, *, studies: int, instances: int) -> None:
    """Write so many studies of so many instances each; every hundredth lacks one."""
    with Ledger(path) as ledger:
        for first in range(0, studies, STUDIES_TOGETHER):
            notes = [
                note
                for number in range(first, min(studies, first + STUDIES_TOGETHER))
                for note in notes_of(number, instances)
            ]
            ledger.commit(Entry(studies=tuple(notes)))


def notes_of(number: int, instances: int) -> Iterator[StudyNote]:
    """Return how the instances of a study came to their end."""
    study = Study(f"1.2.826.0.1.3680043.8.498.{number:032}", identifier(-number))
    for place in range(instances):
        ended = EndedAs.PARKED if place == 0 and number % 100 == 0 else EndedAs.DELIVERED
        instance = identifier(number * instances + place)
        yield StudyNote(study, instance, ended, 1e9 + number, 0.0)


def main() -> None:
    """Fill a ledger and print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--instances", type=int, default=50, help="of each study")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state.sqlite3"
        begun_s = time.perf_counter()
        fill(path, studies=given.studies, instances=given.instances)
        took_s = time.perf_counter() - begun_s
        sys.stdout.write(f"filled in {took_s:.0f} s, {path.stat().st_size / 1e6:.1f} MB\n")
        middle = f"1.2.826.0.1.3680043.8.498.{given.studies // 2:032}"
        ways = {
            "newest": {},
            "after the middle": {"after": middle},
            "incomplete": {"incomplete": True},
            "search by UID": {"search": middle},
            "search by Orthanc ID": {"search": identifier(-given.studies // 2)},
            "search for nothing": {"search": "1.2.3"},
        }
        for name, wanted in ways.items():
            took_ms = []
            for _ in range(TIMES):
                begun_s = time.perf_counter()
                studies_page(path, **wanted)  # type: ignore[arg-type]
                took_ms.append((time.perf_counter() - begun_s) * 1000)
            middle_ms, worst_ms = statistics.median(took_ms), max(took_ms)
            sys.stdout.write(f"{name}: {middle_ms:.1f} ms, at worst {worst_ms:.1f} ms\n")


if __name__ == "__main__":
    main()
