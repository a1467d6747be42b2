"""One connection to a Dask scheduler. The only place in the bridge that uses Dask's client.

Outcomes come back as events, which are plain texts, and not as results of Dask's futures: those
would be pickled, and fetching each would cost another round trip. Futures are kept to see that
Dask has not lost a task.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import operator
import pkgutil
import ssl
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future, Security

from bridge.untrusted_text import MESSAGE_CHARACTERS_MAX, cleaned, visible
from bridge.worker.dask.roster import Seen

REMOTE = "bridge.cluster.remote"
"""Known to workers of every version: so an older one can say which it is."""
CONNECT_S = 10.0
ANSWER_S = 10.0
CLOSE_S = 3.0
ADDRESS_CHARACTERS_MAX = 253 + len("tls://:65535")
THREADS_MAX = 4096
"""Of one worker: more is no number of threads."""
EVENT_MESSAGE = 1
"""Where an event's message is: events are pairs of time and message."""

LINK_FAULTS = (OSError, TimeoutError, asyncio.TimeoutError, ssl.SSLError, RuntimeError, ValueError)
"""What Dask's client raises when there is no scheduler, or none that it can speak to."""


class LinkLost(Exception):
    """The scheduler cannot be reached, or not any more. Says why."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The three files that both sides of every connection of the cluster need."""

    ca_file: str
    cert_file: str
    key_file: str


class Handle:
    """A task in Dask's hands; Dask forgets the task when this is let go of."""

    __slots__ = ("_future",)

    def __init__(self, future: Future) -> None:
        self._future = future

    @property
    def failure(self) -> str:
        """Why it has ended without doing its work; empty while it may still do it."""
        status = self._future.status
        if status == "error":
            return _kind_of(self._future)
        return "" if status in ("pending", "finished") else f"Dask says {status}"

    @property
    def is_finished(self) -> bool:
        """Whether Dask says that it ran to its end; its outcome was told before that."""
        return bool(self._future.status == "finished")


class BridgeClient(Client):  # type: ignore[misc]
    """Dask's client, which leaves its thread and its sockets behind when it cannot connect."""

    def start(self, **how: object) -> None:
        """Connect; its thread ends if that fails."""
        try:
            super().start(**how)
        except BaseException:
            self.end_thread()
            raise

    def end_thread(self) -> None:
        """End the thread. Dask's ``close`` does not, if the client has closed itself before."""
        self._loop_runner.stop(CLOSE_S)


class Link:
    """A connected client. Raises LinkLost from every method when the connection is lost."""

    def __init__(self, address: str, tls: Tls | None, receive: Callable[[str], None]) -> None:
        _quiet_logs()
        self._address = address
        self._ids = uuid.uuid4().hex
        self._keys = itertools.count()
        try:
            with warnings.catch_warnings():
                # Differing versions of Dask's parts: what matters is in the workers' builds.
                warnings.simplefilter("ignore")
                self._client = BridgeClient(
                    address,
                    security=_security(tls),
                    timeout=CONNECT_S,
                    set_as_default=False,
                    name="orthanc-bridge",
                    direct_to_workers=False,
                )
        except (*LINK_FAULTS, ImportError, TypeError) as exc:
            raise LinkLost(_why(exc)) from exc
        self.topic = f"orthanc-bridge-{self._ids}"
        self._client.subscribe_topic(self.topic, lambda event: receive(event[EVENT_MESSAGE]))

    def workers(self) -> tuple[Seen, ...]:
        """Ask the scheduler for its workers."""
        self._check()
        try:
            told = self._client.sync(
                self._client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_S
            )
        except LINK_FAULTS as exc:
            raise LinkLost(_why(exc)) from exc
        try:
            workers = dict(told["workers"])
        except (KeyError, TypeError, ValueError) as exc:
            raise LinkLost("it does not answer as a Dask scheduler does") from exc
        seen = (_seen(address, worker) for address, worker in workers.items())
        return tuple(worker for worker in seen if worker is not None)

    def introduce(self, address: str, identity: str) -> Handle:
        """Ask a worker who it is; the answer is an event."""
        key = f"{self._ids}-who-{next(self._keys)}"
        return self._submit(address, key, "introduce", self.topic, address, identity)

    def run(self, address: str, digest: str, payload: str) -> Handle:
        """Give a worker tasks as JSON, to be done one after another; outcomes are events."""
        key = f"{self._ids}-run-{next(self._keys)}"
        return self._submit(address, key, "run", self.topic, digest, address, payload)

    def close(self) -> None:
        """End the connection, in bounded time; what the scheduler has of ours is forgotten."""
        try:
            self._client.close(timeout=CLOSE_S)
        except LINK_FAULTS:
            pass  # it was lost already
        finally:
            self._client.end_thread()

    def _submit(self, address: str, name: str, function: str, *arguments: str) -> Handle:
        """Let a worker call a function of ``remote``, by its name.

        Only names travel, and what looks them up is Python's own: a worker (or scheduler) without
        orthanc-bridge would otherwise break while it reads the message, and be started again, and
        break again.
        """
        self._check()
        key = ("orthanc-bridge", name)
        call = (operator.call, (pkgutil.resolve_name, f"{REMOTE}:{function}"), *arguments)
        try:
            future = self._client.get(
                {key: call}, key, workers=[address], allow_other_workers=False, sync=False
            )
        except LINK_FAULTS as exc:
            raise LinkLost(_why(exc)) from exc
        return Handle(future)

    def _check(self) -> None:
        if self._client.status != "running":
            raise LinkLost("the connection to it was lost")


def _seen(address: object, told: Any) -> Seen | None:  # noqa: ANN401 (what a scheduler says)
    """Read one worker; None for one of which the scheduler says what Dask would not."""
    try:
        threads, heartbeat = int(told["nthreads"]), float(told["last_seen"])
        # A worker's directory is its own for the life of its process.
        identity = f"{told['name']} {told['local_directory']}"
        running = told["status"] == "running"
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    known = isinstance(address, str) and len(address) <= ADDRESS_CHARACTERS_MAX
    if not known or not 1 <= threads <= THREADS_MAX or not math.isfinite(heartbeat):
        return None
    return Seen(
        address=visible(cleaned(str(address))),
        identity=visible(cleaned(identity, MESSAGE_CHARACTERS_MAX)),
        threads=threads,
        heartbeat=heartbeat,
        running=running,
    )


def _security(tls: Tls | None) -> Security | None:
    if tls is None:
        return None
    return Security(
        tls_ca_file=tls.ca_file,
        tls_client_cert=tls.cert_file,
        tls_client_key=tls.key_file,
        require_encryption=True,
    )


def _kind_of(future: Future) -> str:
    """Name the kind of a failure: its text may quote what it likes."""
    exc = future.exception(timeout=ANSWER_S)
    kind = visible(cleaned(type(exc).__name__))
    if isinstance(exc, ImportError):
        missing = visible(cleaned(str(exc.name or "a module")))
        return f"{missing} is not installed there ({kind})"
    return kind


def _why(exc: BaseException) -> str:
    cause = exc.__cause__ or exc
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or type(cause).__name__}"
    text = getattr(cause, "strerror", None) or type(cause).__name__
    return visible(cleaned(str(text)))


def _quiet_logs() -> None:
    """Let Dask's log lines go where everybody's go, instead of to a handler of its own."""
    for name in ("distributed", "distributed.client", "distributed.gc", "bokeh", "tornado"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.CRITICAL if name == "distributed.client" else logging.ERROR)
