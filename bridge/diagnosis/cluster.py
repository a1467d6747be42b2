"""The Dask cluster, if workers run on one: reachable, who works, who is refused, who may listen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

from bridge.config import Settings
from bridge.core.crew import LOCAL, Crew
from bridge.core.errors import EXIT_CONFIGURATION
from bridge.core.hosts import is_loopback
from bridge.core.model import Outcome, Task
from bridge.diagnosis.finding import ERROR, OK, WARNING, Diagnosis
from bridge.machinery import ClosableExecutor, cluster_executor

SUBJECT = "cluster"
PATIENCE_S = 30.0
LOOK_S = 0.2


def check_cluster(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the scheduler answers and which workers may work. Raises ConfigurationError."""
    if settings.executor == LOCAL:
        return
    if is_open(settings.executor):
        yield Diagnosis(
            WARNING,
            SUBJECT,
            f"{settings.executor} is not encrypted and asks nobody who they are",
            "Whoever reaches the scheduler may run code on the cluster and in the bridge: use "
            "tls://, or a network that nobody else is in (docs/cluster.md).",
        )
    with closing(cluster_executor(settings, _ignore)) as executor:
        crew = _settled(executor)
    yield from _described(crew)


def is_open(address: str) -> bool:
    """Tell whether a scheduler's address is unencrypted and not on loopback."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    return parts.scheme == "tcp" and not (host == "localhost" or is_loopback(host))


def _described(crew: Crew) -> Iterator[Diagnosis]:
    if crew.problem or not crew.threads:
        message = crew.message or f"no worker has answered within {PATIENCE_S:g} s"
        advice = crew.advice or "Look at the workers' logs."
        yield Diagnosis(ERROR, SUBJECT, message.rstrip("."), advice, EXIT_CONFIGURATION)
    else:
        text = f"{crew.place}: {crew.workers} workers, {crew.threads} instances at once"
        yield Diagnosis(OK, SUBJECT, text)
    for refused in crew.refused:
        yield Diagnosis(
            WARNING,
            SUBJECT,
            f"the worker {refused.address} is refused: {refused.reason.rstrip('.')}",
            "Install the same version with the same locked packages there.",
        )


def _settled(executor: ClosableExecutor) -> Crew:
    """Wait until every worker has said who it is, or there is a problem."""
    pause = threading.Event()
    until_s = time.monotonic() + PATIENCE_S
    crew = executor.crew()
    while time.monotonic() < until_s:
        if crew.problem or (crew.threads and not crew.awaited):
            break
        pause.wait(LOOK_S)
        crew = executor.crew()
    return crew


def _ignore(_task: Task, _outcome: Outcome) -> None:
    """Nothing is given out, so nothing comes back."""
