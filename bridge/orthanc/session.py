"""A client for each server, with credentials that may be renewed while the bridge runs."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import httpx

from bridge.credentials import Credentials, credentials_of
from bridge.errors import ConfigurationError, InstanceError, SideError, failure_of, side_error
from bridge.model import (
    AnswerKind,
    Endpoint,
    ServerInfo,
    SideProblem,
    StoreAnswer,
    answer_of,
)
from bridge.orthanc import OrthancClient, RetryPolicy
from bridge.orthanc.fault_table import Request
from bridge.orthanc.wire import Body, Wire

ONE_TRY = RetryPolicy(attempts_max=1)
OUT_OF_STEP = 0.5
"""How likely a probe asks once more than it needs to."""
FETCH_DEADLINE_FACTOR = 10
"""A whole file must be complete within this many time-outs."""
FROM_FILES = frozenset({SideProblem.LOGIN_REFUSED, SideProblem.TLS})
"""Problems after which what we show and trust is read again: its files may have been renewed."""


def connect(
    endpoint: Endpoint,
    credentials: Credentials | None = None,
    *,
    retries: RetryPolicy | None = None,
) -> OrthancClient:
    """Make a client with the credentials and certificates of this moment.

    Raises SideError LOGIN_REFUSED or TLS when they cannot be read: a file that is being renewed is
    an outage of that side, not a reason to end and no instance's fault.
    """
    known = credentials or credentials_now(endpoint)
    with _outage_of(endpoint):
        return OrthancClient(endpoint, known, retries=retries)


@contextmanager
def _outage_of(endpoint: Endpoint) -> Iterator[None]:
    """Certificates that cannot be read now are an outage of that side. Raises SideError TLS."""
    try:
        yield
    except ConfigurationError as exc:
        raise side_error(endpoint.side, SideProblem.TLS, exc.message, advice=exc.advice) from exc


def credentials_now(endpoint: Endpoint) -> Credentials:
    """Read the credentials for a server. Raises SideError LOGIN_REFUSED."""
    try:
        return credentials_of(endpoint.side)
    except ConfigurationError as exc:
        raise side_error(
            endpoint.side, SideProblem.LOGIN_REFUSED, exc.message, advice=exc.advice
        ) from exc


class RenewedWire(Wire):
    """A wire with the credentials and certificates of the moment, for any number of threads.

    One exchange at a time: a pipeline that ends leaves a hanging call behind, the next pipeline has
    threads of its own, and two calls at once would leave their deadlines to each other. After a
    refused login, or trouble with TLS, the next exchange reads credentials and certificates again.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._turn = threading.Lock()
        self._credentials: Credentials | None = None
        self._inner: Wire | None = None
        self._exchanging: Wire | None = None
        """That of the last exchange: whoever closes meanwhile does not end it."""

    def close(self) -> None:
        """Close the connections; the next exchange opens new ones. One under way goes on."""
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()

    @contextmanager
    def exchange(
        self,
        request: Request,
        *,
        query: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: Body | None = None,
        body_can_be_resent: bool = True,
        retried: bool = True,
        deadline_s: float | None,
    ) -> Iterator[httpx.Response]:
        """Do as Wire does. Raises SideError LOGIN_REFUSED or TLS where files cannot be read too."""
        with self.renewing() as credentials:
            wire = self._inner
            if wire is None:
                with _outage_of(self.endpoint):
                    wire = Wire(self.endpoint, credentials, retries=RetryPolicy())
                self._inner = wire
            self._exchanging = wire
            with wire.exchange(
                request,
                query=query,
                headers=headers,
                body=body,
                body_can_be_resent=body_can_be_resent,
                retried=retried,
                deadline_s=deadline_s,
            ) as response:
                yield response

    def pieces(self, response: httpx.Response, request: Request) -> Iterator[bytes]:
        """Yield the body as it comes, inside an exchange."""
        if self._exchanging is None:
            raise AssertionError("a body is read inside its exchange")
        return self._exchanging.pieces(response, request)

    @contextmanager
    def renewing(self) -> Iterator[Credentials]:
        """Give what is known, to one at a time; what was refused is read again the next time."""
        with self._turn:
            try:
                if self._credentials is None:
                    self._credentials = credentials_now(self.endpoint)
                yield self._credentials
            except SideError as exc:
                if exc.problem in FROM_FILES:
                    self._credentials = None
                    self.close()
                raise


class SideClient(OrthancClient):
    """The calls of the bridge's own process to one server, by one wire that is renewed.

    It may be closed, and used again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        chance: Callable[[], float] = random.Random().random,  # noqa: S311, B008 (no secret)
    ) -> None:
        self._renewed = RenewedWire(endpoint)
        super().__init__(endpoint, None, wire=self._renewed)
        self._chance = chance

    def probe(self) -> ServerInfo:
        """Ask whether the server is there and is an Orthanc. Raises SideError when not.

        Once and on a new connection: whoever asks comes again, and wants to know of a server
        that is just being started again. By chance it is asked once more, whatever it answers:
        where every second request fails (one of two behind a balancer is ill), the one that
        follows upon a good answer would fail for ever.
        """
        with self._renewed.renewing() as credentials:
            info = self._system_once(credentials)
            if self._chance() < OUT_OF_STEP:
                with suppress(SideError):
                    self._system_once(credentials)
            return info

    def _system_once(self, credentials: Credentials) -> ServerInfo:
        with connect(self.endpoint, credentials, retries=ONE_TRY) as client:
            return client.system()

    def count_instances(self) -> int:
        """Return how many instances the server holds. It counts: seconds on a large server."""
        return self.statistics().instances

    def serves_file(self, instance_id: str) -> bool:
        """Tell whether the server gives the file of an instance. Raises SideError when it is down.

        False when it has an answer that is about the instance, such as an error 500.
        """
        return _serves(super().serves_file, instance_id)

    def serves_whole_file(self, instance_id: str, *, with_metadata: bool = False) -> bool:
        """Tell whether it gives the file as long as it notes it. Raises SideError when it is down.

        ``with_metadata``: and its metadata. False as with ``serves_file``.
        """
        if with_metadata and not _serves(self._has_metadata, instance_id):
            return False
        return _serves(super().serves_whole_file, instance_id)

    def _has_metadata(self, instance_id: str) -> bool:
        self.instance_metadata(instance_id)
        return True

    def file_of(self, instance_id: str, *, bytes_max: int) -> bytes:
        """Return an instance's file. Raises InstanceGone, InstanceError (also when larger)."""
        gathered = bytearray()
        self.fetch_instance(
            instance_id,
            gathered.extend,
            deadline_s=FETCH_DEADLINE_FACTOR * self.endpoint.timeout_s,
            bytes_max=bytes_max,
        )
        return bytes(gathered)

    def store_instance(self, data: bytes) -> StoreAnswer:
        """Upload a file. Raises InstanceError, SideError."""
        return self.store(data, deadline_s=FETCH_DEADLINE_FACTOR * self.endpoint.timeout_s)


def _serves(ask: Callable[[str], bool], instance_id: str) -> bool:
    """Take an answer that is about the instance for False. Raises SideError for silence."""
    try:
        return ask(instance_id)
    except InstanceError:
        return False
    except SideError as exc:
        if answer_of(failure_of(exc)) is AnswerKind.SILENCE:
            raise
        return False
