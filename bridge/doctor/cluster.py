"""The Dask cluster, if workers run on one: reachable, who works, who is refused, who may listen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

from bridge.config import Settings
from bridge.doctor.diagnosis import ERROR, OK, WARNING, Diagnosis
from bridge.errors import EXIT_CONFIGURATION
from bridge.events import LOCAL, Workforce
from bridge.model import Outcome, Task
from bridge.monitoring.guard import is_loopback
from bridge.wiring import ClosableExecutor, cluster_executor

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
            f"{settings.executor} is neither encrypted nor authenticated",
            "Anybody who can connect to the scheduler can run code on the cluster and in the "
            "bridge. Use tls://, or a separate network. See: orthanc-bridge docs cluster.",
        )
    with closing(cluster_executor(settings, _ignore)) as executor:
        workforce = _settled(executor)
    yield from _described(workforce)


def is_open(address: str) -> bool:
    """Tell whether a scheduler's address is unencrypted and not on loopback."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    return parts.scheme == "tcp" and not (host == "localhost" or is_loopback(host))


def _described(workforce: Workforce) -> Iterator[Diagnosis]:
    if workforce.problem or not workforce.threads:
        message = workforce.message or f"no worker has answered within {PATIENCE_S:g} s"
        advice = workforce.advice or "Look at the workers' logs."
        yield Diagnosis(ERROR, SUBJECT, message.rstrip("."), advice, EXIT_CONFIGURATION)
    else:
        text = (
            f"{workforce.place}: {workforce.workers} workers, {workforce.threads} instances at once"
        )
        yield Diagnosis(OK, SUBJECT, text)
    for refused in workforce.refused:
        yield Diagnosis(
            WARNING,
            SUBJECT,
            f"the worker {refused.address} is refused: {refused.reason.rstrip('.')}",
            "Install the same version with the same locked packages there.",
        )


def _settled(executor: ClosableExecutor) -> Workforce:
    """Wait until every worker has said who it is, or there is a problem."""
    pause = threading.Event()
    until_s = time.monotonic() + PATIENCE_S
    workforce = executor.workforce()
    while time.monotonic() < until_s:
        if workforce.problem or (workforce.threads and not workforce.awaited):
            break
        pause.wait(LOOK_S)
        workforce = executor.workforce()
    return workforce


def _ignore(_task: Task, _outcome: Outcome) -> None:
    """Nothing is given out, so nothing comes back."""
