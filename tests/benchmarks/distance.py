"""Servers that are far away: a proxy on loopback holds every byte for a while, each way.

Run as a program, this file is the proxy: ``python -m tests.benchmarks.distance PORT DELAY_MS``
prints the port that it listens at. In a process of its own: it must not share an interpreter with
what is measured.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.arena import Arena, arena, run_once
from tests.benchmarks.inputs import BY_NAME, TINY, Input
from tests.benchmarks.usage import Usage, below, children, proportional_bytes
from tests.benchmarks.ways import Look, Match, Way, ours

LIMIT_S = 120.0
CHUNK_BYTES = 256 * 1024
END_S = 10.0


@dataclass(frozen=True, slots=True)
class Far:
    """One comparison: a server so far away, and what is wanted of the rate next door."""

    input: Input
    side: str
    delay_ms: int
    wanted: float
    share: float = 1.0
    """Of the count asked for: each run takes long enough to find its number of transfers."""


CASES = (
    Far(BY_NAME["j2k"], "target", 50, 0.9, 2.0),
    Far(BY_NAME["raw"], "target", 25, 0.8, 8.0),
    Far(TINY, "target", 25, 0.8, 16.0),
    Far(BY_NAME["raw"], "source", 25, 0.8, 8.0),
)
MEMORY_WANTED_MB = 400


@dataclass(frozen=True, slots=True)
class Distance:
    """Instances a second next door and far away, and the memory of all workers then, MB."""

    far: Far
    near_rate: float
    far_rate: float
    workers_mb: float
    ended: str = ""

    @property
    def ratio(self) -> float:
        return self.far_rate / self.near_rate if self.near_rate else 0.0


def measure_distance(far: Far, *, count: int, rounds: int) -> Distance:
    """Next door and far away in turns; the medians."""
    near: list[float] = []
    away: list[float] = []
    memory: list[float] = []
    ended = ""
    with arena(far.input, round(count * far.share), f"{far.input.name}-{far.side}") as made:
        for _ in range(rounds):
            for rates, delay_ms in ((near, 0), (away, far.delay_ms)):
                rate, used, how = _run(made, far.side, delay_ms)
                ended = ended or how
                rates.append(rate)
                if delay_ms:
                    memory.append(used)
    return Distance(far, statistics.median(near), statistics.median(away), max(memory) / 1e6, ended)


def _run(made: Arena, side: str, delay_ms: int) -> tuple[float, float, str]:
    most = [0]

    @contextmanager
    def start(match: Match) -> Iterator[Look]:
        server = match.target if side == "target" else match.source
        with delaying(server.url, delay_ms) as url:
            variables = {f"BRIDGE_{side.upper()}_URL": url}
            before = children(os.getpid())
            with ours(match, variables=variables) as look:

                def watched() -> dict[str, Usage]:
                    bridges = [each for each in children(os.getpid()) if each not in before]
                    workers = [each for bridge in bridges for each in below(bridge)]
                    most[0] = max(most[0], proportional_bytes(workers))
                    return dict(look())

                yield watched

    sample = run_once(made, Way("ours", "the bridge", start), limit_s=LIMIT_S)
    return sample.rate, most[0], sample.ended


@contextmanager
def delaying(url: str, delay_ms: int) -> Iterator[str]:
    """Yield the address of a proxy for a server; its own without a delay."""
    if not delay_ms:
        yield url
        return
    with subprocess.Popen(
        [sys.executable, "-m", __name__, str(urlsplit(url).port), str(delay_ms)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    ) as proxy:
        try:
            assert proxy.stdout is not None
            yield f"http://127.0.0.1:{int(proxy.stdout.readline())}"
        finally:
            proxy.kill()
            proxy.wait(END_S)


class _End(asyncio.Protocol):
    """One end of a connection: what comes is written to the other one, later."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self._early: list[Callable[[], None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        for action in self._early:
            action()

    def data_received(self, data: bytes) -> None:
        self._later(partial(self._write, data))

    def eof_received(self) -> bool:
        self._later(self._finish)
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        self._later(self._close)

    def _later(self, action: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(self._delay_s, self._when_there, action)

    def _when_there(self, action: Callable[[], None]) -> None:
        other = self.other
        if other is None or other.transport is None:
            (other or self)._early.append(action)
        else:
            action()

    def _write(self, data: bytes) -> None:
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def _finish(self) -> None:
        if self.other and self.other.transport and self.other.transport.can_write_eof():
            with suppress(OSError):  # whoever was killed has broken it
                self.other.transport.write_eof()

    def _close(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.close()


async def _serve(port: int, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[object]] = set()

    def client() -> _End:
        ours, theirs = _End(delay_s), _End(delay_s)
        ours.other, theirs.other = theirs, ours
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(lambda: theirs, "127.0.0.1", port)
        )
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return ours

    server = await loop.create_server(client, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def rows(found: Sequence[Distance]) -> Iterator[str]:
    """The table of the page."""
    yield "| server | input | next door | far away | ratio | wanted | workers, MB |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for one in found:
        far = one.far
        yield (
            f"| {far.side}, {far.delay_ms} ms each way | {far.input.name} | {one.near_rate:.0f} | "
            f"{one.far_rate:.0f} | {one.ratio:.2f} | {far.wanted:.2f} | {one.workers_mb:.0f} |"
            + (f" ({one.ended})" if one.ended else "")
        )


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]) / 1000))
