"""CPU and memory of processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far and the peak of resident memory, bytes, of some processes together."""

    cpu_s: float = 0.0
    peak_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu_s + other.cpu_s, self.peak_bytes + other.peak_bytes)


Roles = Mapping[str, Usage]
"""By what the processes are for: source, target, bridge, workers, client."""


def usage_of(pid: int) -> Usage:
    """Return the usage of one process alone; nothing when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return Usage()
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return Usage((int(fields[11]) + int(fields[12])) / TICKS_S, int(peak.split()[1]) * 1024)


def of_all(pids: Iterable[int]) -> Usage:
    return sum(map(usage_of, pids), Usage())


def proportional_bytes(pids: Iterable[int]) -> int:
    """Return the memory of processes at this moment, each page that several share counted once."""
    return sum(map(_proportional_bytes, pids))


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    found: list[int] = []
    try:
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, listing.read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def below(pid: int) -> list[int]:
    """Return what a process has started, and what that has: templates and their workers."""
    started = children(pid)
    return [*started, *(each for one in started for each in children(one))]


def with_children(pid: int) -> Usage:
    """Return the usage of a process and its children; of those that have ended, the CPU."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return Usage()
    ended_s = (int(fields[13]) + int(fields[14])) / TICKS_S
    return of_all([pid, *below(pid)]) + Usage(ended_s)
