"""How long a new patient waits behind a long backlog, with a target that is far away."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from tests.benchmarks.arena import arena
from tests.benchmarks.distance import delaying
from tests.benchmarks.http_line import Arrivals
from tests.benchmarks.inputs import Input
from tests.benchmarks.latency import single
from tests.benchmarks.ways import ours

DELAY_MS = 25
WANTED_P99_S = 2.0
APART_S = 1.5
"""Single instances come so far apart at most, at random."""


@dataclass(frozen=True, slots=True)
class BehindBacklog:
    """Seconds from the answer of the POST at the source to an answer of the target.

    ``left``: instances of the backlog that had not arrived when the last single one had.
    """

    backlog: int
    seconds: tuple[float, ...]
    left: int

    @property
    def p99_s(self) -> float:
        return quantiles(self.seconds, n=100, method="inclusive")[98]


def measure_behind_backlog(what: Input, *, backlog: int, singles: int) -> BehindBacklog:
    """Start a bridge before a backlog, and send single instances while it is moved."""
    with arena(what, backlog, "backlog") as made, made.match(ingest=False) as match:
        arrivals = Arrivals(match.target.url)
        with (
            delaying(match.target.url, DELAY_MS) as url,
            ours(match, variables={"BRIDGE_TARGET_URL": url}),
        ):
            pause = threading.Event()
            while arrivals.look() < backlog // 20:
                pause.wait(APART_S / 10)
            seconds = []
            for number in range(singles):
                pause.wait(random.random() * APART_S)
                if arrivals.look() >= backlog:
                    break  # what follows has nobody before it
                seconds.append(single(match, number))
            return BehindBacklog(backlog, tuple(seconds), backlog - arrivals.look())


def rows(found: Sequence[BehindBacklog]) -> Sequence[str]:
    """The table of the page."""
    return (
        "| backlog | single instances | median, s | p99, s | wanted p99, s | backlog left |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {one.backlog} | {len(one.seconds)} | {median(one.seconds):.2f} | "
            f"{one.p99_s:.2f} | {WANTED_P99_S:.0f} | {max(0, one.left)} |"
            for one in found
        ),
    )
