"""A client for each server, with credentials that may be renewed while the bridge runs."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from bridge.core.errors import ConfigurationError, SideError, side_error
from bridge.core.model import Endpoint, Page, ServerInfo, SideFailed, SideProblem
from bridge.credentials import Credentials, credentials_of
from bridge.orthanc import CustodyClient, RetryPolicy

_Answer = TypeVar("_Answer")


ONE_TRY = RetryPolicy(attempts_max=1)
OUT_OF_STEP = 0.5
"""How likely a probe asks once more than it needs to."""
FROM_FILES = frozenset({SideProblem.LOGIN_REFUSED, SideProblem.TLS})
"""Problems after which what we show and trust is read again: its files may have been renewed."""


def connect(
    endpoint: Endpoint,
    credentials: Credentials | None = None,
    *,
    retries: RetryPolicy | None = None,
) -> CustodyClient:
    """Make a client with the credentials and certificates of this moment.

    Raises SideError LOGIN_REFUSED or TLS when they cannot be read: a file that is being renewed is
    an outage of that side, not a reason to end and no instance's fault.
    """
    known = credentials or credentials_now(endpoint)
    try:
        return CustodyClient(endpoint, known, retries=retries)
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


def failure_of(error: SideError) -> SideFailed:
    """Turn a server's error into a value."""
    return SideFailed(
        error.side, error.problem, error.message, error.advice, error.specific, error.begun
    )


class SideClient:
    """The calls of the bridge's own process to one server.

    One call at a time: a pipeline that ends leaves a hanging call behind, the next pipeline has
    threads of its own, and two calls at once would leave their deadlines to each other.
    After a refused login, or trouble with TLS, the next call reads credentials and certificates
    again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        chance: Callable[[], float] = random.Random().random,  # noqa: S311, B008 (no secret)
    ) -> None:
        self.endpoint = endpoint
        self._chance = chance
        self._turn = threading.Lock()
        self._credentials: Credentials | None = None
        self._client: CustodyClient | None = None

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def probe(self) -> ServerInfo:
        """Ask whether the server is there and is an Orthanc. Raises SideError when not.

        Once and on a new connection: whoever asks comes again, and wants to know of a server
        that is just being started again. By chance it is asked once more, whatever it answers:
        where every second request fails (one of two behind a balancer is ill), the one that
        follows upon a good answer would fail for ever.
        """
        with self._reading_again_after_a_refusal():
            info = self._system_once()
            if self._chance() < OUT_OF_STEP:
                with suppress(SideError):
                    self._system_once()
            return info

    def _system_once(self) -> ServerInfo:
        with connect(self.endpoint, self._known(), retries=ONE_TRY) as client:
            return client.system()

    def system(self) -> ServerInfo:
        """Return the server's description."""
        return self._call(lambda client: client.system())

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        """Return the rows of the feed after ``since``."""
        return self._call(
            lambda client: client.changes(since, limit, only_new_instances=only_new_instances)
        )

    def last_change(self) -> Page:
        """Return the newest row of the feed."""
        return self._call(lambda client: client.last_change())

    def list_instances(self, since: int, limit: int) -> list[str]:
        """Return instance IDs by position."""
        return self._call(lambda client: client.list_instances(since, limit))

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""
        return self._call(lambda client: client.has_instance(instance_id))

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        """Return what Orthanc knows of an instance. Raises InstanceGone."""
        return self._call(lambda client: client.instance_metadata(instance_id))

    def attachment_size(self, instance_id: str) -> int:
        """Return the size of an instance's file in bytes. Raises InstanceGone, InstanceError."""
        return self._call(lambda client: client.attachment_size(instance_id))

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 of an instance's file. Raises InstanceGone, InstanceError."""
        return self._call(lambda client: client.stored_md5(instance_id))

    def delete_instance(self, instance_id: str) -> bool:
        """Delete an instance; False when it was not there any more."""
        return self._call(lambda client: client.delete_instance(instance_id))

    def verify_stored(self, instance_id: str) -> bool:
        """Have the server read its file again. Raises InstanceGone, InstanceError."""
        return self._call(lambda client: client.verify_stored(instance_id))

    def set_metadata(self, instance_id: str, name: str, value: str) -> None:
        """Set a metadata of an instance. Raises InstanceGone, InstanceError."""
        self._call(lambda client: client.set_metadata(instance_id, name, value))

    def delete_metadata(self, instance_id: str, name: str) -> None:
        """Delete a metadata of an instance. Raises InstanceGone, InstanceError."""
        self._call(lambda client: client.delete_metadata(instance_id, name))

    def _call(self, ask: Callable[[CustodyClient], _Answer]) -> _Answer:
        with self._reading_again_after_a_refusal():
            if self._client is None:
                self._client = connect(self.endpoint, self._known())
            return ask(self._client)

    def _known(self) -> Credentials:
        if self._credentials is None:
            self._credentials = credentials_now(self.endpoint)
        return self._credentials

    @contextmanager
    def _reading_again_after_a_refusal(self) -> Iterator[None]:
        with self._turn:
            try:
                yield
            except SideError as exc:
                if exc.problem in FROM_FILES:
                    self._credentials = None
                    self.close()
                raise
