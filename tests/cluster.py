"""A Dask cluster on loopback for tests: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.bridge_process import process_environment, start_process, wait_until, workers_of
from tests.preloaded import Preloaded

OWN = "bridge.worker.dask.remote"
DASK = ("distributed.cli.dask_scheduler", "distributed.cli.dask_worker", OWN)
"""What schedulers and workers import, once for all of them."""
INSTEAD = "tests.cluster_preload"
"""A preload: workers run what TEST_FUNCTION names instead of moving instances."""

START_S = 60.0


@dataclass
class Member:
    """A scheduler or a worker: one process (with a nanny, two) and its log."""

    process: Preloaded | subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def workers(self) -> set[int]:
        """The processes in which a worker of the cluster does its tasks."""
        return set(workers_of(self.pid))

    def said(self, text: str) -> bool:
        return text in self.log.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the process and whatever it has started in its group."""
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(START_S)


@dataclass
class Cluster:
    """A scheduler at a port that stays the same, and its workers. A context manager."""

    directory: Path
    tls: Mapping[str, str] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    port: int = 0
    scheduler: Member | None = None

    def __enter__(self) -> Self:
        self.port = free_port()
        self.start_scheduler()
        return self

    def __exit__(self, *_exception: object) -> None:
        for member in self.members:
            member.kill()

    @property
    def address(self) -> str:
        return f"{'tls' if self.tls else 'tcp'}://127.0.0.1:{self.port}"

    def start_scheduler(self) -> Member:
        arguments = ["--host", self.address, "--no-dashboard", "--no-show", *self._tls_options()]
        self.scheduler = self._start("dask_scheduler", arguments, {})
        scheduler = self.scheduler
        wait_until(lambda: scheduler.said("Scheduler at:"), "the scheduler", START_S)
        return scheduler

    def start_worker(
        self,
        *,
        threads: int = 1,
        preload: str = OWN,
        function: str = "",
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = ("--no-nanny",),
        wait: bool = True,
    ) -> Member:
        arguments = [
            self.address,
            *("--host", "127.0.0.1", "--nthreads", str(threads), "--no-dashboard"),
            *("--local-directory", str(self.directory / f"worker-{len(self.members)}")),
            *("--preload", INSTEAD if function else preload) * bool(function or preload),
            *self._tls_options(),
            *options,
        ]
        chosen = {"TEST_FUNCTION": function} if function else {}
        worker = self._start("dask_worker", arguments, chosen | dict(environment or {}))
        if wait:
            wait_until(lambda: worker.said("Registered to:"), "a worker", START_S)
        return worker

    def _tls_options(self) -> list[str]:
        return [part for name, path in self.tls.items() for part in (f"--tls-{name}", path)]

    def _start(self, module: str, arguments: list[str], environment: Mapping[str, str]) -> Member:
        log = self.directory / f"{module}-{len(self.members)}.log"
        with log.open("wb") as file:
            process = start_process(
                f"distributed.cli.{module}",
                arguments,
                environment=process_environment(environment),
                cwd=self.directory,
                stdout=file.fileno(),
                stderr=file.fileno(),
                own_session=True,
                also=DASK,
            )
        member = Member(process, log)
        self.members.append(member)
        return member


@contextmanager
def adaptive_cluster(directory: Path, *, low: int, high: int) -> Iterator[str]:
    """Run tests/adaptive_cluster.py with workers of tests/worker_functions.py; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.adaptive_cluster", str(low), str(high)],
        env=process_environment(
            {
                "TEST_FUNCTION": "tests.worker_functions:misbehave",
                "BRIDGE_WORKER_MEMORY_MB": "512",
                "DASK_TEMPORARY_DIRECTORY": str(directory),
            }
        ),
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        try:
            process.communicate(timeout=START_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
