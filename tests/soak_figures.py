"""What a soak measures, and how much of it is too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from tests.bridge_process import BridgeProcess

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """The bridge at one moment. Sizes in bytes; of the workers: all of them together."""

    bridge_rss: int
    workers_rss: int
    descriptors: int
    worker_descriptors: int
    threads: int
    ledger: int
    log_lines: int
    delivered: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table: how much more the last third may have than the first."""

    name: str
    of: Callable[[Sample], float]
    factor: float = 1.0
    more: float = 0.0
    unit: float = 1.0


FIGURES = (
    Figure("bridge, resident MB", lambda s: s.bridge_rss, 1.10, 8 * MIB, MIB),
    Figure("workers, resident MB", lambda s: s.workers_rss, 1.10, 24 * MIB, MIB),
    Figure("bridge, descriptors", lambda s: s.descriptors, 1.0, 6),
    Figure("workers, descriptors", lambda s: s.worker_descriptors, 1.0, 6),
    Figure("bridge, threads", lambda s: s.threads, 1.0, 4),
    # The write-ahead log is cut back at about 4 MB.
    Figure("ledger, KB", lambda s: s.ledger, 1.10, 4.5 * MIB, 1024),
)


def look(bridge: BridgeProcess, state_path: Path) -> Sample:
    """Look at the processes and the files."""
    workers = [*bridge.templates(), *bridge.workers()]
    return Sample(
        bridge_rss=_status(bridge.pid, "VmRSS") * 1024,
        workers_rss=sum(_status(pid, "VmRSS") for pid in workers) * 1024,
        descriptors=_descriptors(bridge.pid),
        worker_descriptors=sum(_descriptors(pid) for pid in workers),
        threads=_status(bridge.pid, "Threads"),
        ledger=sum(path.stat().st_size for path in state_path.parent.iterdir()),
        log_lines=bridge.stderr.count("\n"),
        delivered=len(bridge.logged("instance_delivered")),
    )


def growth(samples: Sequence[Sample]) -> list[str]:
    """Name every figure that grew from the first third to the last. Empty when all are flat."""
    found = []
    for figure in FIGURES:
        before, after = _first_and_last(figure, samples)
        if after > before * figure.factor + figure.more:
            found.append(f"{figure.name} grew: {_shown(figure, before)} to {_shown(figure, after)}")
    return found


def table(samples: Sequence[Sample]) -> str:
    """Write the figures: means of the first and last third, and the peak."""
    lines = [f"{'':24}{'first third':>14}{'last third':>14}{'peak':>14}"]
    for figure in FIGURES:
        values = (*_first_and_last(figure, samples), max(figure.of(s) for s in samples))
        lines.append(f"{figure.name:24}" + "".join(f"{_shown(figure, v):>14}" for v in values))
    return "\n".join(lines)


def _first_and_last(figure: Figure, samples: Sequence[Sample]) -> tuple[float, float]:
    size = max(1, len(samples) // 3)
    return mean(map(figure.of, samples[:size])), mean(map(figure.of, samples[-size:]))


def _shown(figure: Figure, value: float) -> str:
    return f"{value / figure.unit:.1f}"


def _status(pid: int, field: str) -> int:
    """Read a number of /proc/PID/status; 0 when the process has just ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    line = next((line for line in text.splitlines() if line.startswith(f"{field}:")), ": 0")
    return int(line.split()[1])


def _descriptors(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return 0
