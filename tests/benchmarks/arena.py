"""Real servers, loaded with instances, and one timed run of one way between them."""

from __future__ import annotations

import http.client
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bridge.demo.orthanc_server import OrthancServer
from tests.benchmarks.http_line import Arrivals, Line
from tests.benchmarks.inputs import WANTED, Input
from tests.benchmarks.usage import Roles, usage_of
from tests.benchmarks.ways import CORES, GDCM_PLUGIN, Look, Match, Way, crew_of_codec

ORTHANC = {"StableAge": 3600, "ConcurrentJobs": 4, "OverwriteInstances": False}
LOOK_S = 0.03
CHECK_S = 0.5
"""So often a way may say that it has failed."""
WARM_SHARE = 0.15
"""Instances after which the clock starts: starting is not what is measured."""
DEATH_S = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed run. ``ended``: how, when it was not the usual end."""

    way: str
    input: str
    instances: int = 0
    seconds: float = 0.0
    result_bytes: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    ended: str = ""

    @property
    def rate(self) -> float:
        """Instances a second; 0 of a run that did not end as it should."""
        return self.instances / self.seconds if self.seconds and not self.ended else 0.0

    def cpu_ms(self, role: str) -> float:
        """CPU of a role for each instance, milliseconds."""
        return self.cpu_s.get(role, 0.0) * 1000 / self.instances if self.instances else 0.0


class Arena:
    """A source loaded with the instances of one input, and targets for single runs."""

    def __init__(self, home: Path, source: OrthancServer, what: Input, seed: str) -> None:
        self.home, self.source, self.input, self.seed = home, source, what, seed
        self.ids: tuple[str, ...] = ()

    def load(self, count: int) -> None:
        """Put the instances into the source."""
        line = Line(self.source.url)
        self.ids = tuple(
            line.json("POST", "/instances", self.input.file(self.seed, number))["ID"]
            for number in range(count)
        )

    @contextmanager
    def match(self, *, ingest: bool) -> Iterator[Match]:
        """Start an empty target, transcoding by itself if asked to, and give it a home."""
        config: dict[str, object] = dict(ORTHANC)
        if ingest:
            config |= {"IngestTranscoding": WANTED, "Plugins": [str(GDCM_PLUGIN)]}
        with tempfile.TemporaryDirectory(dir=self.home) as scratch:
            home = Path(scratch)
            with OrthancServer("target", home / "target", config=config) as target:
                yield Match(self.source, target, self.input, self.seed, self.ids, home)


@contextmanager
def arena(what: Input, count: int, seed: str) -> Iterator[Arena]:
    """Start and load a source."""
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as scratch:
        home = Path(scratch)
        with OrthancServer("source", home / "source", config=ORTHANC) as source:
            made = Arena(home, source, what, seed)
            made.load(count)
            yield made


@dataclass(frozen=True, slots=True)
class _Moment:
    at_s: float
    count: int
    roles: Roles


def run_once(made: Arena, way: Way, *, limit_s: float) -> Sample:
    """Time one run of one way: from the first arrivals to the last."""
    with made.match(ingest=way.ingest) as match:
        try:
            with way.start(match) as look:
                return _watched(match, way, look, limit_s=limit_s)
        except ChildProcessError as exc:
            return Sample(way.name, made.input.name, ended=str(exc))
        except (OSError, http.client.HTTPException) as exc:
            died = "died" if _ends(match.target) else type(exc).__name__
            return Sample(way.name, made.input.name, ended=died)


def _watched(match: Match, way: Way, look: Look, *, limit_s: float) -> Sample:
    arrivals = Arrivals(match.target.url)
    total = len(match.ids)
    warm = max(1, round(total * WARM_SHARE))
    until = time.monotonic() + limit_s
    checked_s = time.monotonic()
    begun: _Moment | None = None
    pause = threading.Event()
    while True:
        count = arrivals.look()
        if begun is None and count >= warm:
            begun = _moment(match, look, count)
        if count >= total:
            break
        if not match.target.is_running:
            return Sample(way.name, match.input.name, ended="died")
        if time.monotonic() > checked_s + CHECK_S:
            checked_s = time.monotonic()
            look()
        if time.monotonic() > until:
            return Sample(way.name, match.input.name, ended=f"{count} of {total} in {limit_s:g} s")
        pause.wait(LOOK_S)
    done = _moment(match, look, count)
    ended = "" if begun and begun.count < total else "too fast to time"
    ended = ended or _left_compressed(match, arrivals.last_id)
    return _sample(match, way, begun or done, done, ended=ended)


def run_codec(made: Arena) -> Sample:
    """Time the codec alone, in one process for each core."""
    count = len(made.ids)
    with crew_of_codec(made.input, count, CORES) as run:
        used = run()
    seconds, usage = used
    return Sample(
        "codec",
        made.input.name,
        count,
        seconds,
        count * len(made.input.result),
        {"client": usage.cpu_s},
        {"client": usage.peak_bytes},
    )


def _ends(server: OrthancServer) -> bool:
    """Whether a server that broke a connection is about to be gone."""
    pause = threading.Event()
    until = time.monotonic() + DEATH_S
    while server.is_running and time.monotonic() < until:
        pause.wait(LOOK_S)
    return not server.is_running


def _moment(match: Match, look: Look, count: int) -> _Moment:
    servers = {"source": usage_of(match.source.pid), "target": usage_of(match.target.pid)}
    return _Moment(time.monotonic(), count, servers | dict(look()))


def _sample(match: Match, way: Way, begun: _Moment, done: _Moment, *, ended: str) -> Sample:
    return Sample(
        way=way.name,
        input=match.input.name,
        instances=done.count - begun.count,
        seconds=done.at_s - begun.at_s,
        result_bytes=(done.count - begun.count) * len(match.input.result),
        cpu_s={role: used.cpu_s - begun.roles[role].cpu_s for role, used in done.roles.items()},
        peak_bytes={role: used.peak_bytes for role, used in done.roles.items()},
        ended=ended,
    )


def _left_compressed(match: Match, instance_id: str) -> str:
    """Whether the target was left with something else than what was wanted."""
    path = f"/instances/{instance_id}/metadata/TransferSyntax"
    try:
        seen = Line(match.target.url)("GET", path).decode()
    except http.client.HTTPException:
        return "left compressed"  # in a syntax that this Orthanc does not even know
    return "" if seen == WANTED else "left compressed"
