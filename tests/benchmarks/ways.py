"""The ways from one server to another that are compared, each as a context manager.

A way is started with a match (servers, instances) and yields a function that tells what its own
processes have used so far. The servers are watched by the caller.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.demo.orthanc_server import OrthancServer
from tests.benchmarks.crew import DONE, READY
from tests.benchmarks.http_line import Line
from tests.benchmarks.inputs import Input
from tests.benchmarks.usage import Roles, Usage, below, of_all, usage_of, with_children
from tests.bridge_process import process_environment

CORES = len(os.sched_getaffinity(0))
GDCM_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancGdcm.so")
CLONER_PYTHON = Path(__file__).resolve().parents[2] / "build" / "cloner" / "bin" / "python"
"""The interpreter of an environment in which orthanc-tools is installed."""
CLONER_THREADS = 4
END_S = 20.0


@dataclass(frozen=True, slots=True)
class Match:
    """What a way has to work with. ``ids``: the source's, by number of the instance."""

    source: OrthancServer
    target: OrthancServer
    input: Input
    seed: str
    ids: tuple[str, ...]
    home: Path


Look = Callable[[], Roles]
Timed = tuple[float, Usage]
"""Seconds, and what was used in them."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way. ``ingest``: the target transcodes. ``lacks``: why it cannot run here, or ""."""

    name: str
    text: str
    start: Callable[[Match], AbstractContextManager[Look]]
    ingest: bool = False
    lacks: Callable[[], str] = lambda: ""


def _lacks_plugin() -> str:
    return "" if GDCM_PLUGIN.exists() else "needs the package orthanc-gdcm"


def _lacks_gdcmconv() -> str:
    return "" if shutil.which("gdcmconv") else "needs the package libgdcm-tools"


def _lacks_cloner() -> str:
    return _lacks_plugin() if CLONER_PYTHON.exists() else "needs orthanc-tools in build/cloner"


@contextmanager
def ours(
    match: Match, *, module: str = "bridge", variables: Mapping[str, str] = {}, **settings: str
) -> Iterator[Look]:
    """``python -m bridge run``, as anybody starts it."""
    environment = process_environment(
        {
            "BRIDGE_SOURCE_URL": match.source.url,
            "BRIDGE_TARGET_URL": match.target.url,
            "BRIDGE_STATE_PATH": str(match.home / "state.sqlite3"),
            "BRIDGE_HEALTH_PORT": "0",
        }
        | {f"BRIDGE_{name}": value for name, value in settings.items()}
        | dict(variables)
    )
    with (match.home / "bridge.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "run"],
            env=environment,
            cwd=match.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield lambda: {
            "bridge": usage_of(process.pid),
            "workers": of_all(below(process.pid)),
        }
    finally:
        _end(process)


@contextmanager
def peer(match: Match) -> Iterator[Look]:
    """A job of the source that sends to its peer, one instance after the other."""
    line = Line(match.source.url)
    line("PUT", "/peers/target", json.dumps({"Url": match.target.url}).encode())
    order = {"Resources": list(match.ids), "Asynchronous": True}
    job = line.json("POST", "/peers/target/store", json.dumps(order).encode())["ID"]
    yield dict
    line("POST", f"/jobs/{job}/cancel", b"")


@contextmanager
def cloner(match: Match) -> Iterator[Look]:
    """orthanc-tools' OrthancCloner, which follows the source's feed as we do."""
    with (match.home / "cloner.log").open("ab") as log:
        process = subprocess.Popen(
            [
                str(CLONER_PYTHON),
                *("-m", "orthanc_tools.orthanc_cloner"),
                *("--source_url", match.source.url, "--dest_url", match.target.url),
                *("--worker_threads_count", str(CLONER_THREADS)),
                *("--persist_state_path", str(match.home / "cloner.state")),
            ],
            env=process_environment({"PYTHONPATH": ""}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield lambda: {"client": with_children(process.pid)}
    finally:
        _end(process)


def crew(mode: str, processes: int) -> Callable[[Match], AbstractContextManager[Look]]:
    """Some processes of ``tests.benchmarks.crew`` that share the instances."""

    @contextmanager
    def start(match: Match) -> Iterator[Look]:
        with ExitStack() as stack:
            servers = (match.source.url, match.target.url)
            numbered = [f"{number}:{instance}" for number, instance in enumerate(match.ids)]
            members = [
                stack.enter_context(
                    _member(
                        (mode, *servers, match.input.name, match.seed), numbered[first::processes]
                    )
                )
                for first in range(processes)
            ]
            for member in members:
                _expect(member, READY)
            for member in members:
                _tell(member)

            def look() -> Roles:
                if any(member.poll() for member in members):
                    raise ChildProcessError("refused: its program ended with an error")
                return {"client": sum_of(members)}

            yield look

    return start


def sum_of(members: list[subprocess.Popen[str]]) -> Usage:
    """Return what the members and their children have used."""
    return sum((with_children(member.pid) for member in members), Usage())


@contextmanager
def crew_of_codec(what: Input, count: int, processes: int) -> Iterator[Callable[[], Timed]]:
    """Processes that decode ``count`` instances together; yields what runs and times them."""
    with ExitStack() as stack:
        members = [
            stack.enter_context(
                _member(
                    ("codec", "", "", what.name, ""), [f"{n}:" for n in range(count)][i::processes]
                )
            )
            for i in range(processes)
        ]
        for member in members:
            _expect(member, READY)

        def run() -> Timed:
            before = sum_of(members)
            begun_s = time.monotonic()
            for member in members:
                _tell(member)
            for member in members:
                _expect(member, DONE)
            seconds = time.monotonic() - begun_s
            after = sum_of(members)
            return seconds, Usage(after.cpu_s - before.cpu_s, after.peak_bytes)

        yield run


@contextmanager
def _member(arguments: Sequence[str], numbered: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.benchmarks.crew"),
            *arguments,
            *numbered,
        ],
        env=process_environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _expect(process: subprocess.Popen[str], line: str) -> None:
    stdout = process.stdout
    if stdout is None or stdout.readline().strip() != line:
        raise RuntimeError(f"a process of the crew did not say {line}")


def _tell(process: subprocess.Popen[str]) -> None:
    stdin = process.stdin
    if stdin is not None:
        stdin.write("go\n")
        stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


WAYS = (
    Way("ours", "this bridge, `orthanc-bridge run`, all settings at their defaults", ours),
    Way("peer", "a peer job of the first server; the target transcodes with IngestTranscoding",
        peer, ingest=True, lacks=_lacks_plugin),
    Way("cloner", f"orthanc-tools' OrthancCloner, {CLONER_THREADS} threads; the target transcodes",
        cloner, ingest=True, lacks=_lacks_cloner),
    Way("gdcmconv", "a script: fetch, `gdcmconv --raw`, post; one for each core",
        crew("gdcmconv", CORES), lacks=_lacks_gdcmconv),
    Way("direct", "no first server: posted straight to a target that transcodes, one process for "
        "each core", crew("direct", CORES), ingest=True, lacks=_lacks_plugin),
    Way("floor", "the whole job with the answers known: fetch, the codec's call, post a "
        "ready-made file; two processes more than cores", crew("floor", CORES + 2)),
    Way("bare", "fetch, post a ready-made file, no codec; one process for each core",
        crew("bare", CORES)),
)  # fmt: skip

WAYS_BY_NAME = {way.name: way for way in WAYS}
