"""What bringing and signing share: metadata in a list of all, and failures at one resource."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from bridge.errors import SideError
from bridge.model import Reason, ServerInfo, SideProblem
from bridge.orthanc import Need, lacks_right
from bridge.orthanc.answers import Resource
from bridge.pipeline.parked_policy import RETRIES

INTERVALS_S = RETRIES[Reason.SERVER_REFUSES_INSTANCE].intervals_s
LONGEST_S = INTERVALS_S[-1]
"""The longest pause before something is tried again."""
AT_ONE_MAX = 3
"""So often a server may fail at one resource before that one waits and the others go on."""


class CannotWrite(Exception):
    """One value cannot be written. ``message``: without anything that a user has written."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DescribedServer(Protocol):
    """What is needed to know by what names a server tells metadata."""

    def system(self) -> ServerInfo:
        """Return the server's description."""


class ToldMetadata:
    """Finds metadata in a list of all, which tells them under their number or under their name."""

    def __init__(self, server: DescribedServer, names: Iterable[str]) -> None:
        self._server = server
        self._names = tuple(names)
        self._aliases: dict[str, tuple[str, ...]] | None = None

    def get(self, resource: Resource, name: str) -> str | None:
        """Return what the list has under this name, or under another one of the same metadata."""
        for told in (name, *self._others(name)):
            if told in resource.metadata:
                return resource.metadata[told]
        return None

    def _others(self, name: str) -> tuple[str, ...]:
        if self._aliases is None:
            known = self._server.system().user_metadata
            self._aliases = {
                wanted: tuple(
                    told
                    for told, number in known.items()
                    if told != wanted and number == known.get(wanted, _number(wanted))
                )
                for wanted in self._names
            }
        return self._aliases[name]


class FailuresAtOne:
    """Tells an outage from what a server fails at each time, because of one resource."""

    def __init__(self) -> None:
        self._failed_at = ("", 0)
        """The resource at which a server failed last, and how often in a row."""

    def about(self, error: SideError, resource_id: str) -> bool:
        """Tell whether an error is about a value: a right that is missing, a size, a conflict.

        What looks like an outage, and comes each time at the same resource, is about that one:
        the server has described it a moment before.
        """
        if lacks_right(error, Need.WRITE) or error.problem is SideProblem.BODY_LIMIT:
            return True
        failed_id, times = self._failed_at
        times = times + 1 if failed_id == resource_id else 1
        self._failed_at = (resource_id, times)
        return times >= AT_ONE_MAX

    def passed(self, resource_id: str) -> None:
        """Note that this resource was done, well or not."""
        if self._failed_at[0] == resource_id:
            self._failed_at = ("", 0)


def digest_of(data: bytes) -> str:
    """Return what a value is known again by. It is no secret: a short value can be guessed."""
    return hashlib.blake2b(data, digest_size=16, person=b"orthanc-bridge").hexdigest()


def digest_of_attachment(md5: str) -> str:
    """Return what an attachment is known again by. ``md5``: of its content."""
    return digest_of(md5.encode())


def metadata_key(name: str) -> str:
    """Return under what the ledger notes what was written to a metadata."""
    return f"metadata {name}"


def attachment_key(name: str) -> str:
    """Return under what the ledger notes what was written to an attachment."""
    return f"attachment {name}"


def retry_after_s(tries: int) -> float:
    """Return for how long to wait after so many tries before, seconds."""
    return INTERVALS_S[min(tries, len(INTERVALS_S) - 1)]


def waits_still(tries: int, next_at: float, *, now: float) -> bool:
    """Tell whether it is too early to try again. ``next_at``, ``now``: epoch seconds.

    A pause that ends later than the last try allows was begun while the clock was ahead.
    """
    return 0 < next_at - now <= retry_after_s(max(0, tries - 1))


def _number(name: str) -> int | None:
    return int(name) if name.isdigit() else None
